# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command `pgkeep` as a process, and its repository looked at from outside, with none of pgkeep's own code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.postgres import Server

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60  # seconds; only something that hangs ever takes that long


class Done(NamedTuple):
    """What a command did: its exit code (negative: the signal that ended it) and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Keeper:
    """The command, a server to back up and a repository to keep the backups in."""

    def __init__(self, program: Path, server: Server, repository: Path) -> None:
        self.program, self.server, self.repository = program, server, repository
        self.connection: tuple[str, ...] = (
            f"--login-unix-socket={server.socket_dir}", f"--login-port={server.port}", f"--bin-dir={server.bindir}",
        )  # fmt: skip

    def start(
        self,
        command: str,
        *arguments: str,
        prefix: Sequence[str | Path] = (),
        env: Mapping[str, str | None] | None = None,
    ) -> subprocess.Popen[str]:
        """Start `pgkeep COMMAND`, with connection and repository; None takes a variable out of the environment."""
        place = [f"--repository={self.repository}"] if command not in ("run", "status", "check-config") else []
        own = [*self.connection, "--reserve=0"] if command == "backup" else []
        variables = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
        return subprocess.Popen(
            [*prefix, self.program, command, *place, *own, *arguments],
            env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="surrogateescape", cwd="/", start_new_session=True,
        )  # fmt: skip

    def run(self, command: str, *arguments: str, **more: Any) -> Done:
        """Run `pgkeep COMMAND` to its end, with connection and repository."""
        return finish(self.start(command, *arguments, **more))

    def backup(self, *arguments: str, **more: Any) -> Done:
        """Run `pgkeep backup` without the globals."""
        return self.run("backup", "--no-globals", *arguments, **more)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what `pgkeep list` lists, the newest first."""
        done = self.run("list", "--json", *arguments)
        assert done.code == 0, done
        backups: list[dict[str, Any]] = done.json["backups"]
        return backups


def finish(process: subprocess.Popen[str]) -> Done:
    """Given a started command, wait for its end; kill it and fail where it does not come."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it hangs; it said {out!r} and {err!r}") from None
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def build(directory: Path) -> Path:
    """Given a directory, build the command there, for the Python of the tests; return its path."""
    program = directory / "pgkeep"
    builder = [sys.executable, ROOT / "tools/build_command.py", program, "--interpreter", sys.executable]
    subprocess.run(builder, check=True)
    return program


# --- a repository, looked at from outside ---

Snapshot = dict[Path, tuple[int, int, str]]


def snapshot(repository: Path) -> Snapshot:
    """Given a repository, return mode, time of modification and SHA-256 of every file, but for the lock files."""
    return {
        path: (path.stat().st_mode, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in repository.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def manifests(repository: Path) -> dict[Path, dict[str, Any]]:
    """Given a repository, return the manifest of each backup directory that has one."""
    return {path.parent: json.loads(path.read_bytes()) for path in sorted(repository.glob("*/*/[!.]*/manifest.json"))}


def leftovers(repository: Path) -> list[Path]:
    """Given a repository, return what an interrupted run left in it."""
    return [path for path in repository.rglob(".*") if path.name != ".lock"]


def assert_untouched(repository: Path, before: Snapshot, *, new: int = 0, server: Server | None = None) -> None:
    """Given a repository and what was in it, assert that all of that is as it was, that `new` backups came to it, that
    nothing partial is there, that every backup is good, and that no process works in it any more.

    With a server every archive is read to its end by that server's pg_restore.
    """
    assert_no_process(repository)
    after = snapshot(repository)
    assert {path: after.get(path) for path in before} == before
    assert leftovers(repository) == []
    added = {path.parent for path in after if path.name == "manifest.json"} - {path.parent for path in before}
    assert len(added) == new, sorted(added)
    strangers = [path for path in after.keys() - before.keys() if not any(path.is_relative_to(one) for one in added)]
    assert strangers == []
    for directory in manifests(repository):
        assert_good(directory, server)


def assert_good(directory: Path, server: Server | None = None) -> None:
    """Given a backup's directory, assert that its files are exactly those of its manifest, and that they are readable."""
    manifest = json.loads((directory / "manifest.json").read_bytes())
    assert manifest["id"] == "/".join(directory.parts[-3:])
    told = {item["path"]: (item["size"], item["sha256"]) for item in manifest["files"]}
    found = {
        str(path.relative_to(directory)): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "state.json")
    }
    assert found == told
    assert {path.stat().st_mode & 0o777 for path in directory.rglob("*") if path.is_file()} == {0o600}
    if server:
        _read(next(path for path in directory.iterdir() if path.suffix != ".json"), manifest["format"], server)


def _read(archive: Path, form: str, server: Server) -> None:
    """Given a backup's archive, assert that it can be read to its end."""
    unpack = {".zst": "zstd", ".gz": "gzip", ".lz4": "lz4"}.get(archive.suffix)
    if form == "plain":
        content = subprocess.run([unpack, "-dc", archive], capture_output=True, check=True).stdout if unpack else b""
        assert b"dump complete" in (content or archive.read_bytes())[-4096:]
        return
    reader = [server.bindir / "pg_restore", "-f", "/dev/null"]
    if unpack:
        with subprocess.Popen([unpack, "-dc", archive], stdout=subprocess.PIPE) as unpacking:
            subprocess.run(reader, stdin=unpacking.stdout, check=True)
        assert unpacking.returncode == 0
    else:
        subprocess.run([*reader, archive], check=True)


def assert_no_process(repository: Path) -> None:
    """Given a repository, assert that within a few seconds no process has a file in it open."""
    until = time.monotonic() + 10
    while True:
        found = {pid: command_line(pid) for pid in processes_in(repository)}
        if not found or time.monotonic() > until:
            assert found == {}
            return
        time.sleep(0.05)


def processes_in(directory: Path) -> list[int]:
    """Given a directory, return the processes that have a file below it open, but for this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
        except OSError:
            continue  # it has ended
        if int(process.name) != os.getpid() and any(link.startswith(f"{directory}/") for link in links):
            found.append(int(process.name))
    return found


def command_line(pid: int) -> str:
    """Given a process id, return the process's command line; "" where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


# --- making things happen ---


def until(condition: Callable[[], Any], what: str) -> Any:
    """Given a condition, wait until it holds and return its value; fail where it never does."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited in vain until {what}")


def bytes_in_progress(repository: Path) -> int:
    """Given a repository, return the bytes that running dumps have written into it."""
    total = 0
    for path in repository.glob("*/*/.inprogress-*/**/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass  # gone between the two looks
    return total


def write_job(directory: Path, name: str, **options: Any) -> str:
    """Given a configuration directory, write a job into it (0600); return the option that leads to it."""
    return _write(directory, directory / "jobs.d" / f"{name}.json", options)


def write_target(directory: Path, name: str, **options: Any) -> str:
    """Given a configuration directory, write a target into it (0600); return the option that leads to it."""
    return _write(directory, directory / "targets.d" / f"{name}.json", options)


def _write(directory: Path, path: Path, options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(json.dumps(options))
    return f"--config-dir={directory}"
