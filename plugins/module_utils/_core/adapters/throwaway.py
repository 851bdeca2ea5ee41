# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A PostgreSQL server for one drill: made, used and thrown away, with nothing of the host in its reach.

A drill's directory has two lock files. The drill alone holds one: the kernel frees it when the drill ends, however that
happens. The programs inherit the other: whoever still has it open was left behind by a drill, and nobody else has.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable

from ..domain.errors import ConfigurationError, PgkeepError, ServerError, SpaceError, ToolError
from ..domain.model import Connection
from ..domain.sandbox import SYSTEM, bwrap_command
from . import lock
from .files import remove_tree
from .process import SEARCH_PATH, Cancellation, Process, Processes
from .server import HAS_PSYCOPG2, connect
from .tools import ServerTools, loaded_from, usage

PREFIX = "pgkeep-drill-"
ENVIRONMENT = {"PATH": SEARCH_PATH, "HOME": "/", "LC_ALL": "C", "LANGUAGE": "C", "TZ": "UTC"}

_OWNER, _PROGRAMS = "owner.lock", "programs.lock"
_INSIDE, _SOCKET, _USERS = "server", "socket", "passwd"  # what a workspace has; the server can change the first alone
_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET = 107  # bytes; sun_path has 108
_PATIENCE = 120  # seconds for initdb, and for a start; only what is broken takes that long
_GRACE = 10  # seconds for programs to end
_TICK = 0.05  # seconds
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OUTSIDER = 1000  # the number that root has inside; no user of the host is meant
_PRIVATE = ("/usr/local/etc", "/usr/local/var")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|Check free disk space")
_NO_LIBRARY = re.compile(r'could not access file "([^"]+)": No such file')
_TRUSTED = "or set `sandbox` to false if whoever could write to the databases of these backups can be trusted"
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "cluster_name": "pgkeep drill",
    # Nobody needs the data after a crash.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "archive_mode": "off",
    "restart_after_crash": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "1GB",
    # It works for us alone: no background work, and nothing that a subscription in a backup could start.
    "autovacuum": "off",
    "max_logical_replication_workers": "0",
    "jit": "off",
    "max_connections": "40",
    "max_locks_per_transaction": "2048",  # times max_connections: pg_dump locks every table in one transaction
    "shared_buffers": "128MB",
    "maintenance_work_mem": "128MB",
    "huge_pages": "off",
    "dynamic_shared_memory_type": "mmap",  # in the data directory, so that it goes with it
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_line_prefix": "",
    "lc_messages": "C",
}  # fmt: skip


@dataclass(frozen=True)
class Workspace:
    """The private directory of one drill."""

    path: str
    inherit: int  # the descriptor that every program of the drill has to inherit


@dataclass(frozen=True)
class Confinement:
    """How the programs of a drill are run; `confine` makes it."""

    bwrap: str | None  # None: without the sandbox
    hidden: tuple[str, ...] = ()
    uid: int | None = None  # what they believe to be, where we are root
    outside: tuple[str, ...] = ()  # the prefix without the sandbox
    disable_userns: bool = False  # bubblewrap can keep them from user namespaces of their own


@dataclass(frozen=True)
class Running:
    """A throw-away server that runs."""

    connection: Connection
    tools: ServerTools
    workspace: Workspace
    confinement: Confinement
    process: Process

    def log_tail(self, lines: int = 20) -> str:
        """Given a number of lines, return the last of the server's log."""
        return "\n".join(list(self.process.lines)[-lines:])

    def check(self) -> None:
        """Raise ToolError or SpaceError when the server has ended."""
        if self.process.ended():
            raise _failure(f"the throw-away server of PostgreSQL {self.tools.major} ended", self.log_tail())

    def directory(self, name: str) -> str:
        """Given a name, make a directory that the server can write to, and is gone with it; return its path."""
        path = os.path.join(self.workspace.path, _INSIDE, name)
        os.mkdir(path, 0o700)
        return path

    def prefix(self, readable: Sequence[str] = (), writable: Sequence[str] = ()) -> tuple[str, ...]:
        """Given existing files or directories that a program shall read or write besides the server's socket, return
        what to run it with: the `prefix` of Processes, which have to inherit `workspace.inherit`.
        """
        socket = os.path.join(self.workspace.path, _SOCKET)
        return _prefix(self.confinement, self.workspace, self.tools, (socket, *readable), writable)


# --- the directory ---


@contextmanager
def workspace(work_dir: str) -> Iterator[Workspace]:
    """Given the directory to work in, yield a private directory there, and remove it at the end with all in it.

    Raise ConfigurationError where work_dir cannot be used, SpaceError, or ToolError when it cannot be removed.
    """
    parent = os.path.realpath(work_dir)
    _check_work_dir(work_dir, parent)
    try:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    except OSError as error:
        raise _cannot_write(work_dir, error) from None
    # A child that only we hold tells a sweep that we live; a name that appears with its lock held leaves no gap.
    owner = programs = -1
    try:
        try:
            owner = _create(os.path.join(path, "." + _OWNER))
            fcntl.flock(owner, fcntl.LOCK_EX)
            programs = _create(os.path.join(path, _PROGRAMS))
            fcntl.flock(programs, fcntl.LOCK_EX)
            os.rename(os.path.join(path, "." + _OWNER), os.path.join(path, _OWNER))
            for name in (_INSIDE, _SOCKET):
                os.mkdir(os.path.join(path, name), 0o700)
        except OSError as error:
            raise _cannot_write(work_dir, error) from None
        yield Workspace(path, programs)
    finally:
        if programs >= 0:
            _end_programs(path)
            os.close(programs)
        try:
            _remove(path)
        finally:
            if owner >= 0:
                os.close(owner)


def _check_work_dir(work_dir: str, parent: str) -> None:
    try:
        mode = os.stat(parent).st_mode
    except OSError as error:
        raise ConfigurationError(f"{work_dir}: {error.strerror}: set `work_dir` to an existing directory") from None
    if not stat.S_ISDIR(mode):
        raise ConfigurationError(f"{work_dir} is not a directory: set `work_dir` to one")
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ConfigurationError(f"everybody may remove what is in {work_dir}: chmod +t {work_dir}, or set `work_dir`")
    longest = os.path.join(parent, PREFIX + "12345678", max(_INSIDE, _SOCKET, key=len), _SOCKET_NAME)
    over = len(os.fsencode(longest)) - _LONGEST_SOCKET
    if over > 0:
        raise ConfigurationError(
            f"{work_dir} is {over} bytes too long for a Unix socket below it: set `work_dir` to a shorter path"
        )


def _cannot_write(work_dir: str, error: OSError) -> PgkeepError:
    said = f"cannot make the drill's directory in {work_dir}: {error.strerror}"
    if _NO_SPACE.search(str(error.strerror)):
        return SpaceError(f"{said}: free some space there, or set `work_dir` to a larger file system")
    return ConfigurationError(f"{said}: set `work_dir` to a directory that this user may write to")


def _create(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)


def _remove(path: str) -> None:
    """Given a directory of ours, remove it, whatever code of a backup made of it; raise ToolError."""
    try:
        try:
            remove_tree(path)
        except (OSError, RecursionError):  # closed to its own user, or folders inside folders without end
            with Processes(ENVIRONMENT, Cancellation()) as run:
                for argv in (("chmod", "-R", "u+rwx", "--", path), ("rm", "-rf", "--", path)):  # neither follows a link
                    run.start(argv, stdout=subprocess.DEVNULL).wait()
            remove_tree(path)
    except (OSError, RecursionError, ToolError) as error:
        raise ToolError(f"the drill's directory {path} cannot be removed ({error}): remove it") from None


def _end_programs(path: str) -> list[int]:
    """Given a drill's directory, end every process that inherited it; return those that do not end."""
    until = time.monotonic() + _GRACE
    while True:
        left = lock.holders(os.path.join(path, _PROGRAMS))
        if not left or time.monotonic() > until:
            return left
        lock.kill(left)
        time.sleep(_TICK)


def sweep(work_dir: str) -> list[str]:
    """Given the directory to work in, end and remove what killed drills left there; return a sentence for each.

    Only directories of this user that have our lock file, which no living drill holds.
    """
    parent = os.path.realpath(work_dir)
    try:
        names = sorted(name for name in os.listdir(parent) if name.startswith(PREFIX))
    except OSError:
        return []  # `workspace` says what is wrong
    return [said for said in (_sweep(os.path.join(parent, name)) for name in names) if said]


def _sweep(path: str) -> str:
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return ""
        fd = os.open(os.path.join(path, _OWNER), os.O_RDONLY | _OPEN)
    except OSError:
        return ""  # gone in the meantime, or none of ours
    try:
        own = os.fstat(fd)
        if not stat.S_ISREG(own.st_mode) or own.st_uid != os.geteuid():
            return ""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return ""  # a drill that lives
        holders = _end_programs(path)
        if holders:
            numbers = ", ".join(map(str, holders))
            return f"left {path}, of a drill that was killed: its processes do not end: {numbers}: end them"
        try:
            _remove(path)
        except ToolError as error:
            return str(error)
        return f"removed {path}, of a drill that was killed"
    finally:
        os.close(fd)


# --- how its programs are run ---


def confine(
    place: Workspace, cancellation: Cancellation, sandbox: bool, *, hidden: Sequence[str] = (), bwrap: str = ""
) -> Confinement:
    """Given a workspace, whether to use the sandbox, directories that nobody in it may see, and perhaps bubblewrap's
    path, return how to run the drill's programs; raise ToolError where this host cannot run them that way.
    """
    uid = _OUTSIDER if os.geteuid() == 0 else None
    if sandbox:
        program = bwrap or shutil.which("bwrap", path=SEARCH_PATH)
        if not program:
            raise ToolError(f"the sandbox needs bubblewrap: install the package bubblewrap, {_TRUSTED}")
        _write_users(place)
        real = [os.path.realpath(path) for path in (*hidden, *_PRIVATE)]
        there = tuple(path for path in dict.fromkeys(real) if os.path.isdir(path))
        chosen = Confinement(program, there, uid, disable_userns="--disable-userns" in usage(program))
        said = _try(chosen, place, cancellation)
        if said is not None:
            raise ToolError(
                f"this host refuses the sandbox (bubblewrap: {said}): install the package bubblewrap and allow user"
                " namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone,"
                f" kernel.apparmor_restrict_unprivileged_userns), {_TRUSTED}"
            )
        return chosen
    setpriv = shutil.which("setpriv", path=SEARCH_PATH)
    # QUIT, because the server then ends its own processes at once. Last, as a change of the user would undo it.
    dies_with_us = (setpriv, "--pdeathsig", "QUIT", "--") if setpriv else ()
    if uid is None:
        return Confinement(None, outside=dies_with_us)
    # In a user namespace root is an ordinary user with root's files. initdb wants a user that the host knows.
    known = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid), uid)
    unshare = shutil.which("unshare", path=SEARCH_PATH) or "unshare"
    namespace = (unshare, "--user", f"--map-user={known}", f"--map-group={known}", "--")
    chosen = Confinement(None, uid=known, outside=(*namespace, *dies_with_us))
    said = _try(chosen, place, cancellation)
    if said is not None:
        raise ToolError(
            f"a PostgreSQL server does not run as root, and this host refuses a user namespace ({said}): run the drill"
            " as another user, who owns the repository, or with `sandbox`"
        )
    return chosen


def _try(confinement: Confinement, place: Workspace, cancellation: Cancellation) -> str | None:
    """Given how to run programs, run one that does nothing; return what was said when that fails."""
    true = shutil.which("true", path=SEARCH_PATH) or "/bin/true"
    prefix = _prefix(confinement, place, None, (), (os.path.join(place.path, _INSIDE),))
    try:
        with Processes(ENVIRONMENT, cancellation, (place.inherit,), prefix) as run:
            process = run.start((true,), stdout=subprocess.DEVNULL)
            return (process.last or "it said nothing") if process.wait() else None
    except ToolError as error:
        return str(error)


def _write_users(place: Workspace) -> None:
    """Write the list of users that the sandbox shows: the one that its programs are."""
    uid = os.geteuid() or _OUTSIDER
    with open(os.path.join(place.path, _USERS), "w", encoding="utf-8", opener=_private) as users:
        users.write(f"postgres:x:{uid}:{uid}::/:/bin/false\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | _OPEN, 0o600)


def _prefix(
    confinement: Confinement,
    place: Workspace,
    tools: ServerTools | None,
    readable: Sequence[str],
    writable: Sequence[str],
) -> tuple[str, ...]:
    if not confinement.bwrap:
        return confinement.outside
    return bwrap_command(
        confinement.bwrap,
        confinement.hidden,
        tuple(os.path.realpath(path) for path in (*_installation(tools), *readable)),
        tuple(map(os.path.realpath, writable)),
        confinement.uid,
        confinement.uid,
        os.path.join(place.path, _USERS),
        disable_userns=confinement.disable_userns,
    )


def _installation(tools: ServerTools | None) -> list[str]:
    """Given programs, return the directories that they need, unless every program sees them anyway."""
    if not tools:
        return []
    root = os.path.dirname(tools.directory)
    paths = [tools.directory, *(os.path.join(root, name) for name in ("lib", "lib64", "share"))]
    paths += loaded_from((tools.initdb, tools.postgres, tools.psql))
    return [path for path in paths if os.path.isdir(path) and not path.startswith(tuple(f"{top}/" for top in SYSTEM))]


# --- the server ---


@contextmanager
def server(
    tools: ServerTools,
    place: Workspace,
    confinement: Confinement,
    cancellation: Cancellation,
    preload: Sequence[str] = (),
) -> Iterator[Running]:
    """Given programs, a workspace, how to run programs and what to preload, yield a new server that accepts connections;
    it is ended and gone afterwards. A workspace takes one server. Raise ToolError, SpaceError or Interrupted.

    Call it from the thread that lives as long as the drill: Linux ends a child together with the thread that made it.
    """
    inside = os.path.join(place.path, _INSIDE)
    prefix = _prefix(confinement, place, tools, (), (inside,))
    with Processes(ENVIRONMENT, cancellation, (place.inherit,), prefix) as run:
        data = os.path.join(inside, "data")
        _initialise(run, tools, data, cancellation)
        _configure(data, inside, preload)
        process = run.start((tools.postgres, "-D", data), stdout=subprocess.DEVNULL)
        connection = Connection(login_unix_socket=os.path.join(place.path, _SOCKET))
        running = Running(connection, tools, place, confinement, process)
        try:
            _wait_until_ready(running, preload, cancellation)
            yield running
        finally:
            # Bubblewrap's end is that of everything inside; without it the server has to end its own processes.
            process.send_signal(signal.SIGKILL if confinement.bwrap else signal.SIGQUIT)
            _wait(process.ended, _GRACE)
            process.send_signal(signal.SIGKILL)
            _end_programs(place.path)


def _wait(condition: Callable[[], bool], patience: float) -> bool:
    until = time.monotonic() + patience
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(_TICK)
    return True


def _initialise(run: Processes, tools: ServerTools, data: str, cancellation: Cancellation) -> None:
    argv = (
        tools.initdb, f"--pgdata={data}", "--username=postgres", "--auth=trust", "--encoding=UTF8",
        "--no-locale", "--no-sync",
    )  # fmt: skip
    process = run.start(argv, stdout=subprocess.DEVNULL)

    def ended() -> bool:
        cancellation.check()
        return process.ended()

    what = f"initdb of PostgreSQL {tools.major} failed"
    if not _wait(ended, _PATIENCE):
        raise ToolError(f"{what}: not done after {_PATIENCE} s: run again when this host has less to do")
    if process.wait():
        said = "\n".join(process.lines)
        raise _failure(what, said)


def _configure(data: str, socket_directory: str, preload: Sequence[str]) -> None:
    chosen = {
        **_SETTINGS,
        "unix_socket_directories": _listed((socket_directory,)),
        "shared_preload_libraries": _listed(preload),
    }
    # Written here, although the server's user could have put a link there: nothing of a backup has run yet.
    try:
        with open(os.path.join(data, "postgresql.conf"), "w", encoding="utf-8", opener=_private) as configuration:
            configuration.writelines(f"{name} = {_quoted(value)}\n" for name, value in chosen.items())
    except OSError as error:
        raise _failure("the throw-away server could not be configured", str(error.strerror)) from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)


def _quoted(value: str) -> str:
    """Given a value, return it as postgresql.conf has it; a value from a backup must not become two settings."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\0", "") + "'"


def _wait_until_ready(running: Running, preload: Sequence[str], cancellation: Cancellation) -> None:
    def ready() -> bool:
        cancellation.check()
        return running.process.ended() or (_named(running.workspace) and _accepts(running.connection))

    what = f"the throw-away server of PostgreSQL {running.tools.major} did not start"
    done = _wait(ready, _PATIENCE)
    if running.process.ended():
        raise _not_started(what, running, preload)
    if not done:
        raise ToolError(
            f"{what} within {_PATIENCE} s: run again when this host has less to do; its log ends with:"
            f" {_one_line(running.log_tail())}"
        )


def _named(place: Workspace) -> bool:
    """Give the server's socket, if it is there, the name that clients use; return whether it has that name.

    What a backup brings could later put a link to another server's socket in place of the first name. The second is in
    a directory that nobody in the sandbox can change.
    """
    ours = os.path.join(place.path, _SOCKET, _SOCKET_NAME)
    try:
        if not os.path.lexists(ours):
            os.link(os.path.join(place.path, _INSIDE, _SOCKET_NAME), ours, follow_symlinks=False)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ToolError(
            f"the throw-away server's socket cannot have a second name ({error.strerror}): set `work_dir` to a file"
            " system with hard links"
        ) from None


def _accepts(connection: Connection) -> bool:
    try:
        with connect(connection):
            return True
    except ServerError:
        if not HAS_PSYCOPG2:
            raise
        return False


def _not_started(what: str, running: Running, preload: Sequence[str]) -> PgkeepError:
    running.process.wait()  # for its last words
    said = running.log_tail()
    missing = _NO_LIBRARY.search(said)
    if missing and missing.group(1) in preload:
        return ToolError(
            f"{what}: this host has no library {missing.group(1)!r}: install the package of that extension for"
            f" PostgreSQL {running.tools.major}, or correct `preload`"
        )
    return _failure(what, said)


def _failure(what: str, said: str) -> PgkeepError:
    """Given what failed and the program's own words, return the error to raise."""
    if _NO_SPACE.search(said):
        return SpaceError(f"{what}, no space left: free some space, or set `work_dir` to a larger file system")
    return ToolError(f"{what}: {_one_line(said) or 'it said nothing'}: correct that, then run again")


def _one_line(said: str) -> str:
    return "; ".join(line.strip() for line in said.splitlines()[-5:] if line.strip())
