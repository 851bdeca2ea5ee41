# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`pgkeep receive`: what somebody who has the sender's key can do to the copies. Nothing, but add some."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from tests.keeper import snapshot
from tests.ssh_host import SshHost

pytestmark = pytest.mark.needs_programs("rsync", "rrsync")

NAME = "main/shop/shop_2025-11-05_14-30-00"
OLD = b"an old copy\n"
TIMEOUT = 60


class Vault:
    """The directory that receives, a directory outside, and a client with the sender's key."""

    def __init__(self, host: SshHost, program: Path, place: Path) -> None:
        self.host, self.program = host, program
        self.directory, self.outside, self.home = place / "vault", place / "outside", place / "home"
        for path in (self.directory / NAME, self.outside, self.home):
            path.mkdir(parents=True)
        (self.directory / NAME / "shop.dump").write_bytes(OLD)
        (self.directory / NAME / "manifest.json").write_text("{}")
        (self.directory / "link").symlink_to(self.outside)
        (self.outside / "secret").write_text("outside")
        self.key = self.bind()

    def bind(self, *options: str, before: str = "") -> Path:
        """Return a new key for the forced command with these options."""
        return self.host.authorize(
            f"{before}{self.program} receive {self.directory} {' '.join(options) or '--reserve 0'}"
        )

    def ssh(self, *words: str, stdin: bytes = b"", key: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        return _run([*self.host.command(key or self.key), *words], stdin)

    def rsync(self, *words: str, key: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run rsync; FAR stands for the far side."""
        *ssh, host = self.host.command(key or self.key)
        shell = shlex.join(ssh)
        return _run(["rsync", "--rsh", shell, *(word.replace("FAR", f"{host}:") for word in words)])


def _run(words: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, input=stdin, capture_output=True, check=False, timeout=TIMEOUT)


@pytest.fixture
def vault(ssh_host: SshHost, program: Path, tmp_path: Path) -> Vault:
    """A directory that receives copies, with one in it."""
    return Vault(ssh_host, program, tmp_path)


@pytest.fixture
def evil(vault: Vault) -> str:
    """A directory with files of the same names, and other things that could hurt; return its path, with a slash."""
    folder = vault.home / NAME
    folder.mkdir(parents=True)
    (folder / "shop.dump").write_bytes(b"evil" * 1000)
    (folder / "manifest.json").write_text("evil")
    os.utime(folder / "shop.dump", (0, 0))
    (vault.home / "link").mkdir()
    (vault.home / "link/planted").write_text("evil")
    (vault.home / "points").symlink_to("/etc/passwd")
    os.mkfifo(vault.home / "pipe")
    return f"{vault.home}/"


ATTACKS = {
    "overwrite": ("--recursive", "--ignore-times", "HOME", "FAR./"),
    "overwrite in place": ("--recursive", "--ignore-times", "--inplace", "HOME", "FAR./"),
    "append": ("--recursive", "--append", "HOME", "FAR./"),
    "append and compare": ("--recursive", "--append-verify", "HOME", "FAR./"),
    "truncate": ("--recursive", "--inplace", "--existing", "--ignore-times", "--max-size=0", "HOME", "FAR./"),
    "partial": ("--recursive", "--partial", "HOME", "FAR./"),
    "partial elsewhere": ("--recursive", "--partial-dir=/tmp", "HOME", "FAR./"),
    "write elsewhere first": ("--recursive", "--temp-dir=/tmp", "HOME", "FAR./"),
    "delete": ("--recursive", "--delete", "--force", "HOMEempty/", "FAR./"),
    "delete before": ("--recursive", "--delete-before", "HOME", "FAR./"),
    "replace by a backup": ("--recursive", "--backup", "--suffix=.old", "HOME", "FAR./"),
    "move away": ("--recursive", "--backup", "--backup-dir=/tmp", "HOME", "FAR./"),
    "change modes": ("--recursive", "--perms", "--chmod=ugo=rwx", "--existing", "HOME", "FAR./"),
    "everything": ("--archive", "HOME", "FAR./"),
    "links": ("--recursive", "--links", "HOME", "FAR./"),
    "through a link": ("--recursive", "--keep-dirlinks", "HOME", "FAR./"),
    "into a link": ("--recursive", "HOMElink/", "FARlink/"),
    "above": ("--recursive", "HOME", "FAR../outside/"),
    "somewhere else": ("--recursive", "HOME", "FAROUTSIDE/"),
    "hard links": ("--recursive", "--link-dest=/etc", "HOME", "FAR./"),
    "compare with others": ("--recursive", "--copy-dest=/etc", "HOME", "FAR./"),
    "write a log": ("--recursive", "-M--log-file=OUTSIDE/secret", "HOME", "FAR./"),
    "become another": ("--recursive", "-M--super", "-M--fake-super", "HOME", "FAR./"),
    "write to devices": ("--recursive", "--write-devices", "HOME", "FAR./"),
    "follow all links": ("--recursive", "-M--no-munge-links", "HOME", "FAR./"),
    "read": ("--recursive", "FAR./", "HOMEinto/"),
    "read a file": (f"FAR{NAME}/shop.dump", "HOMEinto/"),
    "read the password file": ("FAR/etc/passwd", "HOMEinto/"),
    "list": ("--list-only", "FAR./"),
    "read by pretending": ("-M--sender", "--recursive", "HOME", "FAR./"),
    "take the source away": ("--recursive", "--remove-source-files", "FAR./", "HOMEinto/"),
    "be a daemon": ("--recursive", "HOME", "FAR:module"),
    "another program": ("--recursive", "--rsync-path=touch OUTSIDE/secret; rsync", "HOME", "FAR./"),
    "an argument too many": ("--recursive", "--rsync-path=rsync --server . OUTSIDE", "HOME", "FAR./"),
    "a file list from there": ("--files-from=FAR/etc/passwd", "HOME", "FAR./"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_copies_cannot_be_read_replaced_or_deleted(vault: Vault, evil: str, attack: str) -> None:
    for name in ("into", "empty"):
        (vault.home / name).mkdir()
    names = (f"{NAME}/shop.dump", f"{NAME}/manifest.json")
    before = {name: _whole(vault.directory / name) for name in names}
    outside = snapshot(vault.outside)
    words = [word.replace("HOME", evil).replace("OUTSIDE", str(vault.outside)) for word in ATTACKS[attack]]
    done = vault.rsync(*words)
    assert {name: _whole(vault.directory / name) for name in names} == before, done.stderr
    assert snapshot(vault.outside) == outside
    assert not list((vault.home / "into").iterdir())
    assert OLD not in done.stdout
    assert "secret" not in done.stdout.decode()
    added = [path for path in vault.directory.rglob("*") if path.is_symlink() or not (path.is_dir() or path.is_file())]
    assert [path.name for path in added if path.name != "link"] == []


def _whole(path: Path) -> tuple[bytes, int, int, int]:
    status = path.lstat()
    return path.read_bytes(), status.st_mode, status.st_mtime_ns, status.st_ino


COMMANDS = (
    "", "id", "sh", "bash -i", "cat /etc/passwd", f"cat {NAME}/shop.dump", "rm -rf .", "scp -t .", "scp -f .",
    "/usr/lib/openssh/sftp-server", "internal-sftp", "rsync --server . ./; id", "rsync --server -e.L . ./ $(id)",
    "rsync --server --sender -e.L . ./", "rsync --server -e.L --sender . ./", "rsync --server --daemon .",
    "rsync --server -e.L . ./ /etc/passwd", "rsync --server -e.L . ../outside", "rsync --server -e.L . `id`",
    "rsync  --server -e.L . ./", "rsync --server\t-e.L . ./", "rsync --server -e.L --config=/etc/passwd . ./",
    "pgkeep list; id", "pgkeep list\nid", "pgkeep hash x", "pgkeep", "pgkeep prune", "pgkeep receive /etc", " pgkeep list",
    "pgkeep list .", "true", "env", "git-upload-pack .",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_else_is_done(vault: Vault, command: str) -> None:
    before = snapshot(vault.directory)
    *ssh, host = vault.host.command(vault.key)
    done = _run([*ssh, "-T", host, command])
    assert done.returncode not in (0, 255)
    assert done.stdout == b""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(b"pgkeep: error: ")
    assert b"uid=" not in done.stderr
    assert snapshot(vault.directory) == before


def test_neither_sftp_nor_forwarding(vault: Vault, tmp_path: Path) -> None:
    *ssh, host = vault.host.command(vault.key)
    batch = tmp_path / "batch"
    batch.write_text("ls\nget /etc/passwd\n")
    sftp = _run(["sftp", "-b", str(batch), "-S", "ssh", *_options(ssh), f"{vault.host.user}@{host}"])
    assert sftp.returncode != 0
    assert b"passwd" not in sftp.stdout
    through = _run([*ssh, "-W", f"127.0.0.1:{vault.host.port}", host])
    assert through.returncode != 0
    assert b"prohibited" in through.stderr
    assert b"SSH-2.0" not in through.stdout
    back = _run([*ssh, "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", host, "pgkeep list"])
    assert back.returncode == 255
    terminal = _run([*ssh, "-tt", host, "pgkeep list"])
    assert b"PTY allocation request failed" in terminal.stderr


def _options(ssh: list[str]) -> list[str]:
    """Given the words of ssh, return those that sftp understands in its own way."""
    words = ["-F", "none", "-i", ssh[ssh.index("-i") + 1], "-P", ssh[ssh.index("-p") + 1]]
    options = [ssh[number + 1] for number, word in enumerate(ssh) if word == "-o"]
    return [*words, *(item for option in options for item in ("-o", option))]


# --- what it is for ---


def test_list_says_what_is_finished(vault: Vault) -> None:
    (vault.directory / NAME / ".shop.dump.a1B2c3").write_bytes(b"not finished")
    (vault.directory / ".lock").touch()
    done = vault.ssh("pgkeep list")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {f"{NAME}/shop.dump": len(OLD), f"{NAME}/manifest.json": 2}


def test_no_sender_can_say_what_became_of_a_copy_once_its_manifest_was_looked_at(vault: Vault) -> None:
    manifest = f"{NAME}/manifest.json"
    assert vault.ssh("pgkeep hash", stdin=json.dumps([f"{NAME}/shop.dump"]).encode()).returncode == 0
    assert not (vault.directory / NAME / "state.json").exists()
    assert vault.ssh("pgkeep hash", stdin=json.dumps([manifest]).encode()).returncode == 0
    state = vault.directory / NAME / "state.json"
    kept, mode = state.read_bytes(), state.stat().st_mode & 0o777
    assert (json.loads(kept)["failure"], mode) == (None, 0o600)
    evil = vault.home / "state.json"
    evil.write_text('{"state_version": 1, "pin": null, "levels": {}, "failure": {"at": "x"}}')
    vault.rsync("--times", "--perms", str(evil), f"FAR{NAME}/")
    assert state.read_bytes() == kept
    # What the off-site host itself writes there stays.
    state.write_bytes(kept.replace(b"null", b"null ", 1))
    assert vault.ssh("pgkeep hash", stdin=json.dumps([manifest]).encode()).returncode == 0
    assert state.read_bytes() != kept


def test_hash_says_what_is_there_and_only_there(vault: Vault) -> None:
    (vault.directory / NAME / "points").symlink_to(vault.outside / "secret")
    os.mkfifo(vault.directory / NAME / "pipe")
    asked = {
        f"{NAME}/shop.dump": {"size": len(OLD), "sha256": hashlib.sha256(OLD).hexdigest()},
        f"{NAME}/gone": {"size": 0, "problem": "missing"},
        **{
            path: {"size": 0, "problem": "not a regular file"}
            for path in (f"{NAME}/points", f"{NAME}/pipe", NAME, "link/secret")
        },
        **{
            path: {"size": 0, "problem": "not a path below the directory"}
            for path in (
                "../outside/secret",
                "/etc/passwd",
                f"{NAME}/../../../outside/secret",
                "",
                "a//b",
                ".lock",
                "a\0b",
            )
        },
    }
    done = vault.ssh("pgkeep hash", stdin=json.dumps(list(asked)).encode())
    assert done.returncode == 0
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {item.pop("path"): item for item in answers} == asked


@pytest.mark.parametrize("request_", [b"", b"{}", b"[1]", b"[", b"\xff", b'"a"', b"[[]]"])
def test_request_that_is_none(vault: Vault, request_: bytes) -> None:
    done = vault.ssh("pgkeep hash", stdin=request_)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"takes a list of paths" in done.stderr


def test_what_was_hashed_is_durable(vault: Vault, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    if not shutil.which("strace"):
        pytest.skip("needs strace, which is not installed")
    key = vault.bind(before=f"strace -f -y -e trace=fsync -o {trace} ")
    assert vault.ssh("pgkeep hash", stdin=json.dumps([f"{NAME}/shop.dump"]).encode(), key=key).returncode == 0
    synced = [line.split("<")[1].split(">")[0] for line in trace.read_text().splitlines() if "fsync" in line]
    path = vault.directory / NAME / "shop.dump"
    assert synced == [str(item) for item in (path, *list(path.parents)[:4])]


def test_folders_and_files_are_for_the_account_alone(vault: Vault) -> None:
    (vault.home / "new").mkdir()
    (vault.home / "new/file").write_text("1")
    done = vault.rsync("--recursive", f"{vault.home}/", "FAR./")
    assert done.returncode == 0, done.stderr
    assert (vault.directory / "new").stat().st_mode & 0o777 == 0o700
    assert (vault.directory / "new/file").stat().st_mode & 0o777 == 0o600


def test_several_transfers_at_a_time(vault: Vault) -> None:
    (vault.home / "data").write_bytes(os.urandom(4_000_000))
    codes: list[int] = []

    def send(number: int) -> None:
        codes.append(vault.rsync("--bwlimit=2000", f"{vault.home}/data", f"FARhost{number}/").returncode)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert vault.ssh("pgkeep list").returncode == 0
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0]


@pytest.mark.needs_root
def test_account_of_an_ordinary_user(ssh_host: SshHost, program: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pgkeep-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        vault = Vault(ssh_host, program, place)
        subprocess.run(["chown", "-R", "nobody", vault.directory], check=True)
        key = vault.bind("--quota 10MB", "--reserve 0", before="setpriv --reuid=nobody --regid=nogroup --clear-groups ")
        assert _send(vault, key, [1000], "new").returncode == 0
        path = vault.directory / "new/file0"
        assert path.owner() == "nobody"
        done = vault.ssh("pgkeep hash", stdin=b'["new/file0"]', key=key)
        assert json.loads(done.stdout)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


# --- how much ---


def _send(vault: Vault, key: Path, sizes: list[int], folder: str) -> subprocess.CompletedProcess[bytes]:
    place = vault.home / folder
    place.mkdir()
    for number, size in enumerate(sizes):
        (place / f"file{number}").write_bytes(os.urandom(size))
    return vault.rsync("--recursive", "--bwlimit=4000", str(place), "FAR./", key=key)


def test_quota_ends_a_transfer_and_refuses_the_next(vault: Vault) -> None:
    key = vault.bind("--quota 4MB", "--reserve 0")
    one = _send(vault, key, [6_000_000], "one")
    assert one.returncode != 0
    assert b"pgkeep: error: a transfer failed, for which 4" in one.stderr
    assert not list(vault.directory.glob("one/*"))
    assert _send(vault, key, [1_000_000], "small").returncode == 0
    many = _send(vault, key, [1_500_000] * 10, "many")
    assert many.returncode != 0
    assert b"the quota of 4" in many.stderr
    taken = sum(path.stat().st_size for path in vault.directory.rglob("*") if path.is_file())
    assert taken < 12_000_000
    assert not list(vault.directory.rglob(".*"))
    more = _send(vault, key, [10], "more")
    assert more.returncode != 0
    assert b"pgkeep: error: the quota of 4" in more.stderr
    assert not (vault.directory / "more").exists()
    assert _send(vault, vault.bind("--quota 40MB", "--reserve 0"), [10], "again").returncode == 0


def test_names_count_too(vault: Vault) -> None:
    key = vault.bind("--quota 100kB", "--reserve 0")
    _send(vault, key, [0] * 40, "empty")
    done = _send(vault, key, [0], "next")
    assert b"the quota of" in done.stderr


def test_reserve_is_kept(vault: Vault) -> None:
    free = shutil.disk_usage(vault.directory).free
    done = _send(vault, vault.bind(f"--reserve {free * 2}B"), [10], "one")
    assert done.returncode != 0
    assert b"stay in reserve" in done.stderr
    assert not (vault.directory / "one").exists()


# --- what is wrong at the far side ---


def test_what_killed_transfers_left_goes_after_a_day(vault: Vault) -> None:
    folder = vault.directory / NAME
    for name in (".shop.dump.a1B2c3", ".note", ".shop.dump.longer1", "shop.dump.a1B2c3"):
        (folder / name).write_bytes(b"1")
    (folder / ".link.dump.a1B2c3").symlink_to(vault.outside / "secret")
    (vault.home / "new").write_text("1")
    assert vault.rsync(f"{vault.home}/new", "FAR./").returncode == 0
    assert (folder / ".shop.dump.a1B2c3").exists()
    later = vault.bind(before="faketime -f +2d ")
    assert vault.rsync(f"{vault.home}/new", "FARlater/", key=later).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        ".link.dump.a1B2c3", ".note", ".shop.dump.longer1", "manifest.json", "shop.dump", "shop.dump.a1B2c3",
    ]  # fmt: skip


def test_directory_that_is_not_there(vault: Vault) -> None:
    shutil.rmtree(vault.directory)
    for command in ("pgkeep list", "pgkeep hash", "rsync --server -e.L . ./"):
        done = vault.ssh(command)
        assert done.returncode == 1
        assert b"is not there: create it" in done.stderr


@pytest.mark.needs_root
def test_old_rrsync_is_refused(ssh_host: SshHost, program: Path, tmp_path: Path) -> None:
    """One that does not know -no-overwrite would let old copies be replaced."""
    vault = Vault(ssh_host, program, tmp_path)
    (tmp_path / "rrsync").write_text("#!/bin/sh\necho 'usage: rrsync [-ro | -wo] [-munge] [-no-del] [-no-lock] DIR'\n")
    (tmp_path / "rrsync").chmod(0o755)
    mounts = f"mount --bind {tmp_path}/rrsync {shutil.which('rrsync')}; exec"
    key = ssh_host.authorize(f"unshare --mount sh -c '{mounts} {program} receive {vault.directory} --reserve 0'")
    done = _send(vault, key, [10], "one")
    assert done.returncode != 0
    assert b"too old to refuse overwriting: install rsync 3.4 or newer" in done.stderr
    assert not (vault.directory / "one").exists()


def test_by_hand_it_says_what_it_is_for(program: Path, tmp_path: Path) -> None:
    done = _run([str(program), "receive", str(tmp_path)])
    assert done.returncode == 2
    assert b"pgkeep sync" in done.stderr
