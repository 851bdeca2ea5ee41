# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sshd of the tests lets in whom it shall, and rrsync behind it does what appending off-site copies relies on."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ssh_host import SshHost

pytestmark = pytest.mark.needs_programs("rsync", "rrsync")


@pytest.fixture
def vault(ssh_host: SshHost, tmp_path: Path) -> tuple[Path, list[str]]:
    """A directory to which one may only add, and the start of the rsync that does."""
    directory = tmp_path / "vault"
    directory.mkdir()
    program = shutil.which("rrsync")
    key = ssh_host.authorize(f"{program} -wo -no-del -no-overwrite -munge {directory}")
    *ssh, host = ssh_host.command(key)
    return directory, ["rsync", "--recursive", "--rsh", shlex.join(ssh), str(tmp_path / "home") + "/", f"{host}:"]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


def test_login_with_a_key(ssh_host: SshHost) -> None:
    done = _run([*ssh_host.command(), "echo", "$SSH_CONNECTION"])
    assert done.stdout.split()[3] == str(ssh_host.port), done.stderr
    unknown = _run([word for word in ssh_host.command() if not word.startswith("UserKnownHostsFile=") and word != "-o"])
    assert unknown.returncode == 255


def test_forced_command_is_all_that_a_key_is_good_for(ssh_host: SshHost) -> None:
    key = ssh_host.authorize('printf %s "you said: $SSH_ORIGINAL_COMMAND"')
    assert _run([*ssh_host.command(key), "cat", "/etc/shadow"]).stdout == "you said: cat /etc/shadow"


def test_push_adds_and_never_replaces(vault: tuple[Path, list[str]], tmp_path: Path) -> None:
    directory, push = vault
    home = tmp_path / "home"
    home.mkdir()
    (home / "a").write_text("first")
    done = _run(push)
    assert done.returncode == 0, done.stderr
    assert (directory / "a").read_text() == "first"

    (home / "a").write_text("changed")
    (home / "b").write_text("new")
    assert _run(push).returncode == 0
    assert (directory / "a").read_text() == "first"
    assert (directory / "b").read_text() == "new"


def test_push_cannot_delete_or_read(vault: tuple[Path, list[str]], tmp_path: Path) -> None:
    directory, push = vault
    (tmp_path / "home").mkdir()
    (directory / "a").write_text("kept")
    refused = _run([*push, "--delete"])
    assert refused.returncode != 0
    assert (directory / "a").read_text() == "kept"
    refused = _run([*push[:-2], f"{push[-1]}a", str(tmp_path / "stolen")])
    assert refused.returncode != 0
    assert not (tmp_path / "stolen").exists()


def test_host_goes_away_and_comes_back(ssh_host: SshHost) -> None:
    ssh_host.stop()
    try:
        assert "Connection refused" in _run([*ssh_host.command(), "true"]).stderr
    finally:
        ssh_host.start()
    assert _run([*ssh_host.command(), "true"]).returncode == 0
