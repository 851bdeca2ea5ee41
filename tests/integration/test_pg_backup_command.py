# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.playbook import results, run_tasks

ROOT = Path(__file__).resolve().parents[2]


MODULE = "pgkeep.backup.pg_backup_command"


def play(directory: Path, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """Given options of the module (and check_mode), one task after the other, run them here, return their results."""
    written = []
    for options in tasks:
        check = options.pop("check_mode", False)
        defaults = {"path": str(directory / "bin" / "pgkeep"), "interpreter": sys.executable}
        written.append({MODULE: {**defaults, **options}, "check_mode": check})
    (directory / "bin").mkdir(exist_ok=True)
    done = run_tasks(directory, written, "-v")
    assert "DEPRECATION WARNING" not in done.stdout + done.stderr
    return results(done, len(tasks))


def test_the_command_is_installed_once_and_check_mode_says_so(tmp_path: Path) -> None:
    path = tmp_path / "bin" / "pgkeep"
    (before,) = play(tmp_path, {"check_mode": True})
    assert before["changed"] is True
    assert not path.exists()

    first, second, same, other = play(
        tmp_path,
        {"mode": "0750"},
        {"mode": "0750"},
        {"mode": "0750", "check_mode": True},
        {"mode": "0755", "check_mode": True},
    )
    assert [result["changed"] for result in (first, second, same, other)] == [True, False, False, True]
    assert (first["path"], first["mode"]) == (str(path), "0750")
    assert {result["checksum"] for result in (before, first, second)} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    assert first["version"] in version
    assert first["checksum"] in version
    assert list(path.parent.iterdir()) == [path]


def test_another_program_is_replaced_but_not_by_one_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "bin" / "pgkeep"
    path.parent.mkdir()
    path.write_text("an older one")
    (broken,) = play(tmp_path, {"interpreter": "/bin/false"})
    assert "failed to validate" in broken["msg"]
    assert path.read_text() == "an older one"
    (replaced,) = play(tmp_path, {})
    assert replaced["changed"] is True
    assert path.read_bytes().startswith(b"#!" + sys.executable.encode())


def test_options_that_cannot_work_are_refused_and_a_directory_gets_the_command_under_its_name(tmp_path: Path) -> None:
    bad = [
        ({"path": "bin/pgkeep"}, "path is 'bin/pgkeep': must be the absolute path of a file"),
        ({"path": "~/pgkeep"}, "path is '~/pgkeep': must be the absolute path of a file"),
        ({"interpreter": "python3"}, "interpreter is 'python3': must be an absolute path"),
        ({"interpreter": "/usr/bin/env python3"}, "interpreter is '/usr/bin/env python3': must be an absolute path"),
        ({"destination": "/x"}, "destination"),
    ]
    *refused, installed = play(tmp_path, *(options for options, _message in bad), {"path": str(tmp_path / "bin")})
    for result, (_options, message) in zip(refused, bad):
        assert message in result["msg"]
    assert installed["path"] == str(tmp_path / "bin" / "pgkeep")
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["pgkeep"]
