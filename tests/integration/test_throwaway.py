# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Throw-away servers: they come, answer, keep what is inside them inside, and go without a trace, however they end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import throwaway
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import Cancellation, Processes
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.throwaway import Running, sweep
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.tools import ServerTools, find_server
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import (
    ConfigurationError,
    Interrupted,
    PgkeepError,
    SpaceError,
    ToolError,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import verify

from tests.integration.samples import Engine
from tests.integration.test_full_disk import disk
from tests.integration.test_verify import archive, sign_again
from tests.keeper import ROOT, processes_in, until
from tests.postgres import CELERP, DEBIAN, EMBEDDED, Server, find_installation

SANDBOXES = [pytest.param(True, marks=pytest.mark.needs_programs("bwrap")), False]
sandboxed = pytest.mark.needs_programs("bwrap")


@pytest.fixture
def work_dir() -> Iterator[Path]:
    """A directory to work in; a socket's path may not be long."""
    path = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def tools_of(source: str) -> ServerTools:
    installation = find_installation(source)
    if installation is None:
        pytest.skip(f"no PostgreSQL server from {source} is installed")
    return find_server(installation.major, str(installation.bindir))


@contextmanager
def a_server(
    work_dir: Path,
    source: str = DEBIAN,
    *,
    sandbox: bool = True,
    hidden: Sequence[str] = (),
    preload: Sequence[str] = (),
    cancellation: Cancellation | None = None,
) -> Iterator[Running]:
    """A throw-away server as a drill makes it; afterwards, nothing of it may be left."""
    tools, asked = tools_of(source), cancellation or Cancellation()
    with throwaway.workspace(str(work_dir)) as place:
        confinement = throwaway.confine(place, asked, sandbox, hidden=hidden)
        with throwaway.server(tools, place, confinement, asked, preload) as running:
            yield running
        assert_gone(work_dir, but=Path(place.path))
    assert_gone(work_dir)


def assert_gone(work_dir: Path, but: Path | None = None) -> None:
    """Assert that no program works in a directory any more, and, but for one directory, that nothing is left there."""
    assert processes_in(work_dir) == []
    assert [path for path in work_dir.iterdir() if path != but] == []


def link_to(running: Running) -> Any:
    link = psycopg2.connect(host=running.connection.login_unix_socket, user="postgres", dbname="postgres")
    link.autocommit = True
    return link


def ask(running: Running, query: str, *parameters: object) -> str:
    """Given a query of one value, return the answer of the server to its superuser."""
    link = link_to(running)
    try:
        with link.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return str(cursor.fetchone()[0]) if cursor.description else ""
    finally:
        link.close()


def shell(running: Running, command: str) -> str:
    """Given a shell command, let the server run it, as code in a backup can; return what it says."""
    link = link_to(running)
    try:
        with link.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE said (number serial, line text)")
            program = f"{{ {command}\n}} 2>&1; true"
            cursor.execute(
                r"COPY said (line) FROM PROGRAM %s (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02', ENCODING 'LATIN1')",
                (program,),
            )
            cursor.execute("SELECT coalesce(string_agg(line, E'\n' ORDER BY number), '') FROM said")
            return str(cursor.fetchone()[0])
    finally:
        link.close()


def refusal(work_dir: Path, kind: type[PgkeepError], **more: Any) -> str:
    """Return what is said of a server that does not come; nothing of it may be left."""
    with pytest.raises(kind) as caught, a_server(work_dir, **more):
        pass
    assert_gone(work_dir)
    return str(caught.value)


# --- a life ---


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize("source", [DEBIAN, CELERP, EMBEDDED])
def test_a_server_starts_answers_and_is_gone(work_dir: Path, source: str, sandbox: bool) -> None:
    with a_server(work_dir, source, sandbox=sandbox) as running:
        assert running.tools.version.split()[0] == ask(running, "SHOW server_version").split()[0]
        assert ask(running, "SHOW server_encoding") == "UTF8"
        running.check()
        (place,) = work_dir.iterdir()
        assert place.stat().st_mode & 0o777 == 0o700
        assert ask(running, "SHOW listen_addresses") == ""
        assert listening(processes_in(work_dir)) == []


def listening(pids: list[int]) -> list[str]:
    """Given processes, return the TCP ports that they wait at."""
    assert pids
    ports = {}
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _number, local, _remote, state, *_more, inode = line.split()[:10]
            if state == "0A":
                ports[f"socket:[{inode}]"] = local
    links = []
    for pid in pids:
        with suppress(FileNotFoundError):  # it has ended
            links += [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return [ports[link] for link in links if link in ports]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_libraries_that_extensions_need_are_preloaded(work_dir: Path, sandbox: bool) -> None:
    with a_server(work_dir, sandbox=sandbox, preload=["auto_explain", "pg_prewarm"]) as running:
        assert ask(running, "SHOW shared_preload_libraries") == '"auto_explain", "pg_prewarm"'


@sandboxed
@pytest.mark.parametrize(
    ("library", "said"),
    [
        (
            "no_such_library",
            "this host has no library 'no_such_library': install the package of that extension for PostgreSQL 15, or"
            " correct `preload`",
        ),
        ('x", "auto_explain', 'could not access file "x", "auto_explain"'),
        ("x'\nport = '1", "could not access file"),
    ],
)
def test_a_library_that_the_host_lacks_is_named(work_dir: Path, library: str, said: str) -> None:
    assert said in refusal(work_dir, ToolError, preload=["auto_explain", library])


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_server_that_ends_before_its_time_is_noticed(work_dir: Path, sandbox: bool) -> None:
    with a_server(work_dir, sandbox=sandbox) as running:
        with pytest.raises(psycopg2.OperationalError):
            ask(running, "SELECT pg_terminate_backend(pg_backend_pid())")
        running.check()  # a session's end is not the server's
        with suppress(psycopg2.OperationalError):  # in the sandbox it takes the session along
            shell(running, "kill -9 $(head -1 postmaster.pid)")
        until(running.process.ended, "the server ends")
        with pytest.raises(ToolError, match="the throw-away server of PostgreSQL 15 ended: "):
            running.check()


def test_a_cancelled_start_leaves_nothing(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancellation = Cancellation()
    monkeypatch.setattr(throwaway, "_accepts", lambda _connection: cancellation.cancel(signal.SIGTERM))
    assert refusal(work_dir, Interrupted, cancellation=cancellation, sandbox=False) == "interrupted by SIGTERM"


def test_whatever_ends_the_drill_its_directory_goes(work_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError), throwaway.workspace(str(work_dir)) as place:
        Path(place.path, "server", "some").write_text(f"{1 / 0}")
    assert_gone(work_dir)


# --- where it works ---


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file or directory: set `work_dir` to an existing directory"),
        (lambda path: path.write_text("x"), "is not a directory: set `work_dir` to one"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory: set `work_dir`"),
        (lambda path: (path.mkdir(), path.chmod(0o777)), "everybody may remove what is in {0}: chmod +t {0}, or set"),
    ],
)
def test_a_work_dir_that_cannot_be_used_is_refused(work_dir: Path, make: Callable[[Path], object], said: str) -> None:
    path = work_dir / "work"
    make(path)
    with pytest.raises(ConfigurationError) as caught, throwaway.workspace(str(path)):
        pass
    assert said.format(path) in str(caught.value)


def test_a_work_dir_may_be_as_long_as_a_socket_allows(work_dir: Path) -> None:
    longest = 107 - len("/pgkeep-drill-12345678/server/.s.PGSQL.5432")
    fits = work_dir / ("x" * (longest - len(str(work_dir)) - 1))
    for path, over in ((fits, 0), (fits.with_name(fits.name + "x"), 1), (fits.with_name(fits.name + "éé"), 4)):
        path.mkdir()
        if over:
            said = f"is {over} bytes too long .* set `work_dir` to a shorter"
            with pytest.raises(ConfigurationError, match=said), throwaway.workspace(str(path)):
                pass
        else:
            with a_server(path, sandbox=False) as running:
                assert ask(running, "SELECT 1") == "1"


def test_the_work_dir_may_be_a_link_and_everybodys(work_dir: Path) -> None:
    (work_dir / "real").mkdir()
    (work_dir / "real").chmod(0o1777)
    (work_dir / "link").symlink_to("real")
    with throwaway.workspace(str(work_dir / "link")) as place:
        assert Path(place.path).parent == work_dir / "real"


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("nr_inodes=1", "cannot make the drill's directory in {}: No space left on device: free some space there"),
        ("nr_inodes=4", "cannot make the drill's directory in {}: No space left on device: free some space there"),
        ("size=4m", "initdb of PostgreSQL 15 failed, no space left: free some space, or set `work_dir`"),
    ],
)
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_full_disk_is_an_error_that_says_so(work_dir: Path, options: str, said: str, sandbox: bool) -> None:
    with disk(work_dir / "disk", options) as place:
        assert said.format(place) in refusal(place, SpaceError, sandbox=sandbox)


@pytest.mark.needs_root
def test_a_disk_that_fills_up_ends_no_server_and_is_told(work_dir: Path) -> None:
    with disk(work_dir / "disk", "size=80m") as place, a_server(place) as running:
        with pytest.raises(psycopg2.Error, match=r"(?s)could not (extend|write).*(free disk space|No space)"):
            ask(running, "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
        assert ask(running, "SELECT 1") == "1"


@pytest.mark.needs_root
def test_a_work_dir_that_cannot_be_written_to_is_refused(work_dir: Path) -> None:
    with (
        disk(work_dir / "disk", "ro") as place,
        pytest.raises(ConfigurationError) as caught,
        throwaway.workspace(str(place)),
    ):
        pass
    assert "Read-only file system: set `work_dir` to a directory that this user may write to" in str(caught.value)


# --- being killed ---

DRILL = """
import json, os, pwd, subprocess, sys, threading
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import server, throwaway, tools
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import Cancellation

user, work_dir, sandbox, major, bin_dir, survivor = json.loads(sys.argv[1])
if user:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
swept = throwaway.sweep(work_dir)
with throwaway.workspace(work_dir) as place:
    if survivor:
        subprocess.Popen(["sleep", "1000"], pass_fds=[place.inherit], start_new_session=True, stdout=sys.stderr)
    cancellation = Cancellation()
    confinement = throwaway.confine(place, cancellation, sandbox)
    programs = tools.find_server(major, bin_dir)
    with throwaway.server(programs, place, confinement, cancellation) as running:
        with server.connect(running.connection) as session:
            print(json.dumps([place.path, session.row("SELECT current_setting('server_version_num')")[0], swept]))
        sys.stdout.flush()
        sys.stdin.readline()
"""


class Drill:
    """A drill in a process of its own, with a server that runs, until it is told to end or killed."""

    def __init__(self, work_dir: Path, *, sandbox: bool = True, user: str = "", survivor: bool = False) -> None:
        tools = tools_of(DEBIAN)
        task = json.dumps([user, str(work_dir), sandbox, tools.major, tools.directory, survivor])
        environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache/collections")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRILL, task],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        said = self.process.stdout.readline()
        assert said, "the drill failed, and said so above"
        path, self.version, self.swept = json.loads(said)
        self.path = Path(path)

    def end(self) -> int:
        """Let it end as it should; return its status."""
        self.process.communicate("\n")
        return self.process.returncode

    def kill(self) -> None:
        """Kill it as only the kernel can."""
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_killed_drill_is_swept_by_the_next_one(work_dir: Path, sandbox: bool) -> None:
    killed = Drill(work_dir, sandbox=sandbox)
    assert processes_in(work_dir)
    killed.kill()
    until(lambda: not processes_in(work_dir), "the kernel ended the programs")
    assert killed.path.exists()
    following = Drill(work_dir, sandbox=sandbox)
    assert following.swept == [f"removed {killed.path}, of a drill that was killed"]
    assert not killed.path.exists()
    assert following.end() == 0
    assert_gone(work_dir)


def test_what_survived_a_killed_drill_is_ended_by_the_next_one(work_dir: Path) -> None:
    killed = Drill(work_dir, sandbox=False, survivor=True)
    killed.kill()
    assert processes_in(work_dir)
    assert sweep(str(work_dir)) == [f"removed {killed.path}, of a drill that was killed"]
    assert_gone(work_dir)


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_drill_that_lives_is_not_swept(work_dir: Path, sandbox: bool) -> None:
    first = Drill(work_dir, sandbox=sandbox)
    assert sweep(str(work_dir)) == []
    second = Drill(work_dir, sandbox=sandbox)
    assert (second.swept, first.path.exists()) == ([], True)
    assert second.end() == 0
    assert (first.path / "socket" / ".s.PGSQL.5432").exists()
    assert first.end() == 0
    assert_gone(work_dir)


@pytest.mark.needs_root
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_an_ordinary_user_drills_as_well_as_root(work_dir: Path, sandbox: bool) -> None:
    work_dir.chmod(0o1777)
    drill = Drill(work_dir, sandbox=sandbox, user="nobody")
    assert (drill.path.owner(), drill.path.stat().st_mode & 0o777) == ("nobody", 0o700)
    drill.kill()
    until(lambda: not processes_in(work_dir), "the kernel ended the programs")
    assert sweep(str(work_dir)) == [], "it is not root's"
    for closed in (drill.path / "server/closed/inner", drill.path / "server/closed", drill.path / "server"):
        closed.mkdir(parents=True, exist_ok=True)
        shutil.chown(closed, "nobody")
        closed.chmod(0)
    following = Drill(work_dir, sandbox=sandbox, user="nobody")
    assert following.swept == [f"removed {drill.path}, of a drill that was killed"]
    assert following.end() == 0
    assert_gone(work_dir)


def pretend(path: Path) -> Path:
    """Make a directory that looks like a killed drill's; return its lock file."""
    path.mkdir()
    (path / "precious").touch()
    (path / "owner.lock").touch(0o600)
    return path / "owner.lock"


def test_what_only_has_a_drills_name_is_not_touched(work_dir: Path) -> None:
    def named(name: str) -> Path:
        return work_dir / f"{throwaway.PREFIX}{name}"

    pretend(named("without")).unlink()
    pretend(work_dir / "elsewhere")
    named("link").symlink_to(work_dir / "elsewhere")
    named("file").touch()
    (pretend(named("lock-is-a-link"))).unlink()
    (named("lock-is-a-link") / "owner.lock").symlink_to(work_dir / "elsewhere" / "owner.lock")
    pretend(named("lock-is-a-fifo")).unlink()
    os.mkfifo(named("lock-is-a-fifo") / "owner.lock")
    pretend(named("lock-is-a-directory")).unlink()
    (named("lock-is-a-directory") / "owner.lock").mkdir()
    if os.geteuid() == 0:
        shutil.chown(pretend(named("lock-of-another")), "nobody")
        pretend(named("of-another"))
        shutil.chown(named("of-another"), "nobody")
    before = sorted(work_dir.rglob("*"))
    assert sweep(str(work_dir)) == []
    assert sorted(work_dir.rglob("*")) == before
    lock = pretend(named("ours"))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sweep(str(work_dir)) == []
    assert sweep(str(work_dir)) == [f"removed {named('ours')}, of a drill that was killed"]
    assert sorted(work_dir.rglob("*")) == before


def test_where_there_is_nothing_to_sweep_nothing_is_said(work_dir: Path) -> None:
    assert sweep(str(work_dir)) == []
    assert sweep(str(work_dir / "nothing")) == []


# --- code in a backup ---


@pytest.fixture(scope="module")
def repository() -> Iterator[Path]:
    """A repository with two backups, where a program of the host would find them."""
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgkeep-", dir="/var/tmp")))
        for name in ("ours", "another"):
            (path / "main" / name).mkdir(parents=True)
            (path / "main" / name / "x.dump").write_text(f"backup of {name}")
        yield path


@pytest.fixture(scope="module")
def prison(repository: Path) -> Iterator[Running]:
    """A server in its sandbox, whose superuser is hostile."""
    if not shutil.which("bwrap"):
        pytest.skip("needs bwrap, which is not installed")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgkeep-", dir="/tmp")))
        yield stack.enter_context(a_server(place, hidden=[str(repository)]))


SHADOW = Path("/etc/shadow")


def test_it_sees_nothing_of_the_host_but_programs(prison: Running, repository: Path) -> None:
    assert shell(prison, "ls -A /root /home /run /var/lib /srv /mnt /opt /boot /sys 2>/dev/null | grep -v :$") == ""
    assert "No such file" in shell(prison, f"ls {SHADOW}")
    assert shell(prison, f"ls -A {repository}") == ""
    listed = set(shell(prison, "ls /etc").split())
    assert "passwd" in listed
    assert not listed & {"shadow", "group", "hosts", "resolv.conf", "ssh", "pgkeep", "postgresql", "ansible"}
    assert len(shell(prison, "cat /etc/passwd").splitlines()) == 1
    for function in ("pg_read_file(%s)", "pg_read_binary_file(%s)::text", "lo_import(%s)::text"):
        with pytest.raises(psycopg2.Error, match="No such file"):
            ask(prison, f"SELECT {function}", str(SHADOW))
    assert ask(prison, "SELECT count(*) FROM pg_ls_dir(%s)", str(repository)) == "0"


def test_it_can_change_nothing_but_its_own_directory(prison: Running, repository: Path) -> None:
    place = Path(prison.workspace.path)
    before = {path: path.stat().st_mtime_ns for path in (place, place / "socket", repository, Path("/usr/bin"))}
    for target in ("/x", "/usr/bin/x", "/usr/lib/x", "/etc/x", "/bin/x", "/lib/x"):
        assert "Read-only file system" in shell(prison, f"echo x > {target}")
    # Whom the kernel knows as root needs no capability for that. What is written is what is there.
    setting = "/proc/sys/kernel/randomize_va_space"
    assert "Read-only file system" in shell(prison, f"cat {setting} > {setting}")
    large_object = int(ask(prison, "SELECT lo_from_bytea(0, 'x')"))
    for target in ("/usr/bin/x", "/x"):
        with pytest.raises(psycopg2.Error, match="Read-only"):
            ask(prison, "SELECT lo_export(%s, %s)", large_object, target)
        with pytest.raises(psycopg2.Error, match="Read-only"):
            ask(prison, f"COPY (SELECT 1) TO '{target}'")
    # Where it believes to be outside, it is in memory of its own.
    shell(prison, f"echo x > {place}/x; echo x > {place}/socket/x; echo x > /tmp/pgkeep-x; echo x > /var/tmp/pgkeep-x")
    assert not any(
        Path(path).exists() for path in (place / "x", place / "socket/x", "/tmp/pgkeep-x", "/var/tmp/pgkeep-x")
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    ask(prison, "COPY (SELECT 1) TO PROGRAM 'cat > ../own'")
    assert (place / "server" / "own").read_text() == "1\n"


def test_it_has_no_rights_and_gets_none(prison: Running) -> None:
    status = dict(line.split(":\t", 1) for line in shell(prison, "cat /proc/self/status").splitlines())
    assert (status["CapEff"], status["CapPrm"], status["CapBnd"], status["NoNewPrivs"]) == (
        "0" * 16,
        "0" * 16,
        "0" * 16,
        "1",
    )
    assert shell(prison, "id -u") == str(os.geteuid() or 1000)
    for command in (
        "mount -t tmpfs x /tmp", "mount -o remount,rw /usr", "umount /usr", "chroot /", "chown 0 /tmp",
        "unshare -Urm sh -c 'mount -o remount,bind,rw /usr && touch /usr/x'",
        "unshare -Urm sh -c 'umount -l /usr && ls'", "nsenter -t 1 -m ls",
    ):  # fmt: skip
        assert "failed" not in shell(prison, f"if {command} > /dev/null 2>&1; then echo failed; fi")


def test_it_cannot_make_namespaces_of_its_own(prison: Running) -> None:
    """As root in one, it could mount what the kernel lets its root mount, such as the host's control groups."""
    assert "No space left on device" in shell(prison, "unshare --user --map-root-user true 2>&1; true")
    assert "unshare" in shell(prison, "unshare --user --map-root-user mount -t cgroup2 x /tmp 2>&1; true")


def test_it_sees_no_process_but_its_own(prison: Running) -> None:
    ours = shell(prison, "cat /proc/[0-9]*/comm").splitlines()
    assert set(ours) <= {"bwrap", "postgres", "sh", "cat", "setpriv"}
    assert len(ours) < 20
    assert "No such process" in shell(prison, f"kill -0 {os.getpid()}")


def test_it_has_no_network_but_itself(prison: Running, debian_server: Server) -> None:
    interfaces = [line.split(":")[0].strip() for line in shell(prison, "cat /proc/net/dev").splitlines()[2:]]
    assert interfaces == ["lo"]
    with socket.create_connection(("127.0.0.1", debian_server.port)):
        pass  # it is there
    said = shell(prison, f"bash -c 'echo > /dev/tcp/127.0.0.1/{debian_server.port}'")
    assert "Connection refused" in said
    assert "No such file" in shell(prison, f"ls {debian_server.socket_dir}")


def test_its_environment_and_descriptors_tell_nothing(prison: Running) -> None:
    assert str(ROOT) not in shell(prison, "cat /proc/*/environ | tr '\\0' '\\n'")
    # A descriptor of a directory outside would lead everywhere.
    assert shell(prison, "for fd in /proc/[0-9]*/fd/*; do [ -d $fd ] && readlink $fd; done") == ""


def test_a_link_in_place_of_its_socket_leads_nobody_elsewhere(prison: Running, debian_server: Server) -> None:
    there = f"{prison.workspace.path}/server/.s.PGSQL.5432"
    theirs = f"{debian_server.socket_dir}/.s.PGSQL.{debian_server.port}"
    shell(prison, f"mv {there} {there}.old && ln -s {theirs} {there}")
    assert Path(there).is_symlink()
    assert ask(prison, "SHOW cluster_name") == "pgkeep drill"


def test_a_program_sees_what_it_is_given_and_the_server_and_no_more(prison: Running, repository: Path) -> None:
    given, out = repository / "main/ours", repository / "out"
    out.mkdir(exist_ok=True)
    script = f"""
        cat {given}/x.dump; ls {repository}/main; cat {repository}/main/another/x.dump
        echo x > {given}/x.dump; echo x > {given}/new; echo x > {repository}/main/new; echo x > {out}/new
        ls -A {prison.workspace.path} {prison.workspace.path}/socket; rm {prison.workspace.path}/socket/.s.PGSQL.5432
        {prison.tools.psql} -XAtc 'SELECT 40 + 2' -h {prison.connection.login_unix_socket} -U postgres
    """
    prefix = prison.prefix([str(given)], [str(out)])
    with Processes(throwaway.ENVIRONMENT, Cancellation(), (prison.workspace.inherit,), prefix) as programs:
        said = programs.start(("/bin/sh", "-c", f"exec 2>&1\n{script}")).stdout.read().decode()
    assert "backup of ours" in said
    assert "backup of another" not in said
    assert said.endswith("\n42\n")
    assert (given / "x.dump").read_text() == "backup of ours"
    assert sorted(path.name for path in given.iterdir()) == ["x.dump"]
    assert sorted(path.name for path in (repository / "main").iterdir()) == ["another", "ours"]
    assert (out / "new").read_text() == "x\n"
    assert Path(prison.connection.login_unix_socket, ".s.PGSQL.5432").exists()


@sandboxed
def test_commands_to_psql_in_a_plain_dump_find_no_way_out(
    debian_server: Server, tmp_path: Path, fresh_database: Callable[..., str]
) -> None:
    engine = Engine(debian_server, tmp_path / "repository")
    taken = engine.take_one(fresh_database(debian_server), format="plain", compression="none")
    # An inherited descriptor of a directory would lead to all of the host.
    attack = (
        r"\! for fd in /proc/[0-9]*/fd/*; do for up in . .. ../..; do echo x > $fd/$up/written; done; done 2> /dev/null"
    )
    archive(taken).write_text(f"{attack}\n{archive(taken).read_text()}")
    sign_again(taken)
    (found,) = verify({"repository": str(engine.repository), "level": "restore"}, False, engine.clock).verifications
    assert (found.verdict, list(tmp_path.rglob("written"))) == ("good", [])


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_whatever_it_leaves_behind_is_removed_and_no_link_is_followed(work_dir: Path, sandbox: bool) -> None:
    (work_dir / "victim").mkdir()
    (work_dir / "victim" / "precious").touch()
    (work_dir / "drills").mkdir()
    with a_server(work_dir / "drills", sandbox=sandbox) as running:
        shell(
            running,
            f"mkdir -p ../a/b; ln -s {work_dir}/victim ../a/b/link; touch ../a/b/c; chmod 000 ../a/b ../a; mkfifo ../p;"
            f" ln -s {work_dir}/victim/precious ../owner.lock; touch ../$(printf '\\377\\n'); chmod 500 ..",
        )
    assert (work_dir / "victim" / "precious").exists()


def test_folders_inside_folders_without_end_are_removed(work_dir: Path) -> None:
    (work_dir / "victim").mkdir()
    (work_dir / "drills").mkdir()
    with a_server(work_dir / "drills", sandbox=False) as running:
        shell(running, f"n=0; while [ $n -lt 3000 ]; do mkdir d; cd d; n=$((n+1)); done; ln -s {work_dir}/victim .")
    assert (work_dir / "victim").stat().st_mode & 0o777 == 0o755


# --- without bubblewrap ---


def test_without_bubblewrap_it_is_said_what_to_install(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throwaway, "SEARCH_PATH", str(work_dir))
    assert refusal(work_dir, ToolError) == (
        "the sandbox needs bubblewrap: install the package bubblewrap, or set `sandbox` to false if whoever could write"
        " to the databases of these backups can be trusted"
    )


def test_a_host_that_refuses_the_sandbox_is_told_what_to_allow(work_dir: Path, tmp_path: Path) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    with throwaway.workspace(str(work_dir)) as place, pytest.raises(ToolError) as caught:
        throwaway.confine(place, Cancellation(), True, bwrap=str(refusing))
    assert "this host refuses the sandbox (bubblewrap: bwrap: No permissions to create new namespace)" in str(
        caught.value
    )
    assert "user.max_user_namespaces" in str(caught.value)
    with throwaway.workspace(str(work_dir)) as place, pytest.raises(ToolError, match="No such file"):
        throwaway.confine(place, Cancellation(), True, bwrap=str(tmp_path / "nothing"))
