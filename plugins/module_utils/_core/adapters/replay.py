# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Pausing a standby's replay for the time of dumps, and resuming it whatever happens.

`.replay` in the instance's directory says on disk that we paused replay, from before we ask for it until it goes on.
Each run holds a shared lock on that file while it dumps: who gets it for itself alone is the last, and resumes. All of
this, beginning and end, happens under the lock of a second file.

The end is the work of a process of its own, the guardian, which has its own connection from the beginning. It waits for
the end of a pipe, which comes when we close it, or die. Where the guardian is killed as well, the next run finds the
file with nobody holding its lock.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Callable, NoReturn

from ..domain import naming
from ..domain.errors import LockedError, PgkeepError, ServerError
from ..domain.facts import ServerFacts
from ..domain.model import Connection
from ..domain.quantities import human_duration, iso
from ..domain.standby import over, still_paused
from . import files, lock, server

_POLL = 0.1  # seconds
_STANDSTILL = 1  # seconds; a server before 14 does not tell when replay has stopped, so it has to stand still that long
_MOMENT = 1  # seconds in which replay goes on when it was paused at a bad time
_PATIENCE = 60  # seconds in which a server that is not there may come back to be resumed
_MAX_BYTES = 4096

_GoOn = Callable[[], None]


@dataclass
class Pause:
    """What a person should know of a pause, and what went wrong at its end."""

    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settled:
    """What became of the pause that the file tells of."""

    resumed: bool = False
    note: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Place:
    """The directory of an instance, and how to reach its server."""

    directory: str
    connection: Connection

    @property
    def path(self) -> str:
        """Return the file that tells of the pause."""
        return os.path.join(self.directory, naming.REPLAY_NAME)

    @property
    def instance(self) -> str:
        """Return the name of the instance."""
        return os.path.basename(self.directory)

    def told(self) -> dict[str, Any]:
        """Return what the file says, {} when nothing is paused; raise OSError or RepositoryError."""
        try:
            return _parsed(files.read_small(self.path, _MAX_BYTES))
        except FileNotFoundError:
            return {}

    @contextmanager
    def alone(self, until: float, go_on: _GoOn = lambda: None) -> Iterator[None]:
        """Keep other runs from pausing and resuming. Wait for them until that time, unless `go_on` raises; raise
        LockedError, OSError or RepositoryError.
        """
        fd = lock.open_own(os.path.join(self.directory, naming.REPLAY_LOCK_NAME), os.O_RDWR | os.O_CREAT)
        try:
            while not _lock(fd, fcntl.LOCK_EX):
                go_on()
                if time.monotonic() >= until:
                    raise LockedError(
                        "another run is about to pause or resume replay: run again, or raise `pause_timeout`"
                    )
                time.sleep(_POLL)
            yield
        finally:
            os.close(fd)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _parsed(data: bytes) -> dict[str, Any]:
    # What is there in part never became durable, and nothing was paused before it was.
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("started"), str) else {}


def _write(fd: int, told: dict[str, Any]) -> None:
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    files.write_all(fd, json.dumps(told).encode() if told else b"")
    os.fsync(fd)


# --- the beginning ---


class _Beginning:
    """Pausing, with a limit in time."""

    def __init__(self, place: Place, session: server.Session, facts: ServerFacts, timeout: timedelta, go_on: _GoOn):
        self._place, self._session, self._facts, self._go_on = place, session, facts, go_on
        self._limit, self._until = (
            f"{human_duration(timeout)} (`pause_timeout`)",
            time.monotonic() + timeout.total_seconds(),
        )
        self._obstacle = "a query on the standby may be in its way"  # until more is known

    def pause(self, now: datetime) -> tuple[int, str]:
        """Return the descriptor whose closing says that we no longer need the pause, and what to know of it."""
        files.make_directory(self._place.directory)
        with self._place.alone(self._until, self._go_on):
            fd = lock.open_own(self._place.path, os.O_RDWR | os.O_CREAT)
            try:
                files.sync_directory(self._place.directory)
                joined = not _lock(fd, fcntl.LOCK_EX)
                _lock(fd, fcntl.LOCK_SH)  # nobody holds another kind, but for those who are alone
                return fd, self._pause(fd, joined, now)
            except BaseException:
                os.close(fd)
                raise

    def _pause(self, fd: int, joined: bool, now: datetime) -> str:
        started = server.started(self._session)
        ours = _parsed(os.pread(fd, _MAX_BYTES, 0)).get("started") == started
        if not ours and self._state()[0] != "not paused":
            return self._anothers()
        if not ours:
            about = {"started": started, "address": self._session.address, "since": iso(now)}
            _write(fd, {**about, "pid": os.getpid()})
        while True:
            server.pause_replay(self._session)
            self._wait_until_paused()
            locked = () if ours and joined else server.replay_locks(self._session)
            if not locked:
                return ""
            # pg_dump would wait for a lock that replay cannot give back while it is paused.
            server.resume_replay(self._session)
            self._obstacle = f"a transaction of the primary goes on holding tables in {', '.join(locked)} for itself"
            self._check()
            time.sleep(_MOMENT)

    def _anothers(self) -> str:
        self._wait_until_paused()
        locked = server.replay_locks(self._session)
        if locked:
            raise ServerError(
                f"somebody paused replay while a transaction of the primary held tables in {', '.join(locked)} for itself,"
                " so that a dump would wait for ever: resume replay, then run again"
            )
        return "replay was paused already, and not by pgkeep: it stays paused"

    def _state(self) -> tuple[str, str]:
        return server.replay_state(self._session, self._facts)

    def _wait_until_paused(self) -> None:
        before, tells = "", self._facts.major >= 14
        while True:
            state, position = self._state()
            if state == "paused" or (not tells and state == "pause requested" and position == before):
                return
            self._check()
            before = position
            time.sleep(_POLL if tells else _STANDSTILL)

    def _check(self) -> None:
        self._go_on()
        if time.monotonic() >= self._until:
            raise ServerError(
                f"replay could not be paused within {self._limit}: {self._obstacle}: run when it is not, or raise"
                " `pause_timeout`"
            )


# --- the end ---


def settle(place: Place, session: server.Session | None, until: float = math.inf) -> Settled:
    """Given a place and perhaps a session, resume replay if the file says that we paused it and no run needs that.

    Where the session does not work, another is opened. Raise PgkeepError or OSError; the file then stays as it is.
    """
    if not place.told():
        return Settled()
    with place.alone(until):
        fd = lock.open_own(place.path, os.O_RDWR)
        try:
            if not _lock(fd, fcntl.LOCK_EX):
                return Settled()  # others dump, and the last of them resumes
            told = _parsed(os.pread(fd, _MAX_BYTES, 0))
            settled = _resume(place, session, told) if told else Settled()
            _write(fd, {})
            return settled
        finally:
            os.close(fd)


def recover(place: Place, session: server.Session) -> Settled:
    """Given a place and a session on its server, end the pause that a killed run left, and leave alone those of runs
    that are alive. Raise ServerError where it cannot be ended; RepositoryError or OSError.
    """
    try:
        return settle(place, session, until=0)
    except LockedError:
        return Settled()
    except ServerError as error:
        raise ServerError(still_paused(place.instance, str(error))) from None


def told_of(place: Place, session: server.Session) -> bool:
    """Given a place and a session on its server, return whether we have its replay paused."""
    told = place.told()
    return bool(told) and told["started"] == server.started(session)


def _resume(place: Place, session: server.Session | None, told: dict[str, Any]) -> Settled:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            if session:
                return _resume_with(session, told)
            with server.connect(place.connection) as another:
                return _resume_with(another, told)
        except ServerError as error:
            session = None
            if server.forbidden(error) or time.monotonic() >= until:
                raise
            time.sleep(_POLL)


def _resume_with(session: server.Session, told: dict[str, Any]) -> Settled:
    if server.started(session) != told["started"]:
        # Our pause ended with the restart: if replay is paused now, that is somebody else's doing.
        return Settled(note=over(str(told.get("address"))))
    return Settled(resumed=server.resume_replay(session))


def _settled(place: Place, session: server.Session | None) -> Settled:
    """As `settle`, with what went wrong as a part of what is returned."""
    try:
        return settle(place, session)
    except PgkeepError as error:
        reason = str(error)
    except OSError as error:
        reason = str(files.describe(error, f"writing {place.path}"))
    return Settled(problem=still_paused(place.instance, reason))


# --- the guardian ---


class _Guardian:
    """The process that sees to the end: when we say so, or when we are gone."""

    def __init__(self, place: Place) -> None:
        self._place = place
        waiting, self._ours = os.pipe()  # nothing is written: its end says that we are done, or gone
        self._hearing, answering = os.pipe()
        self._heard = b""
        self._pid = os.fork()
        if self._pid == 0:
            _guard(place, waiting, answering)
        os.close(waiting)
        os.close(answering)

    def wait_until_ready(self, go_on: _GoOn) -> None:
        """Wait until it is connected, unless `go_on` raises; raise ServerError where it cannot be."""
        while b"\n" not in self._heard:
            go_on()
            if select.select([self._hearing], [], [], _POLL)[0] and not self._read():
                raise ServerError("the process that resumes replay was ended: run again")
        problem = str(json.loads(self._heard.partition(b"\n")[0]))
        if problem:
            raise ServerError(problem)

    def end(self) -> Settled:
        """Have it resume replay, if no other run needs the pause, and return how that went."""
        os.close(self._ours)
        while self._read():
            pass
        os.close(self._hearing)
        os.waitpid(self._pid, 0)
        answer = self._heard.partition(b"\n")[2]
        # Somebody killed it: nobody but us is left to do it.
        return Settled(**json.loads(answer)) if answer.endswith(b"\n") else _settled(self._place, None)

    def _read(self) -> bool:
        data = os.read(self._hearing, _MAX_BYTES)
        self._heard += data
        return bool(data)


def _guard(place: Place, waiting: int, answering: int) -> NoReturn:
    """In the guardian: connect, wait until our parent is done or gone, see to the end, and end."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # they are for our parent; with its end we end
        _close_all_but(waiting, answering)
        try:
            with server.connect(place.connection) as session:
                server.stay(session)
                _say(answering, "")
                os.read(waiting, 1)
                _say(answering, vars(_settled(place, session)))
        except PgkeepError as error:
            _say(answering, str(error))
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    """Close every descriptor but these: no lock, pipe or terminal of our parent shall live as long as we do."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # that of the listing itself


def _say(fd: int, what: Any) -> None:
    try:
        files.write_all(fd, json.dumps(what).encode() + b"\n")
    except OSError:
        pass  # nobody is left to hear it


@contextmanager
def paused(
    place: Place, facts: ServerFacts, timeout: timedelta, clock: Callable[[], datetime], go_on: _GoOn
) -> Iterator[Pause]:
    """Given the place of a standby, keep its replay paused inside the block, and resume it afterwards.

    Call it before there are threads: it forks. Wait for the pause as long as asked, unless `go_on` raises. Raise
    PgkeepError or OSError; what goes wrong at the end is in what is yielded.
    """
    told, guardian, fd = Pause(), _Guardian(place), -1
    try:
        guardian.wait_until_ready(go_on)
        with server.connect(place.connection) as session:
            fd, note = _Beginning(place, session, facts, timeout, go_on).pause(clock())
        told.notes += [note] if note else []
        yield told
    except PgkeepError as error:
        settled = _end(guardian, fd)
        if settled.problem:
            raise ServerError(f"{error}; {settled.problem}") from None
        raise
    except BaseException:
        _end(guardian, fd)
        raise
    settled = _end(guardian, fd)
    told.notes += [settled.note] if settled.note else []
    told.problems += [settled.problem] if settled.problem else []


def _end(guardian: _Guardian, fd: int) -> Settled:
    if fd >= 0:
        os.close(fd)
    return guardian.end()
