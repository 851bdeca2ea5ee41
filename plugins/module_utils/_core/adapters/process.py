# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Running client programs: no shell, a built environment, every status looked at, and nothing outlives us."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import IO, Callable

from ..domain.advice import advice
from ..domain.errors import Interrupted, PgkeepError, ToolError
from ..domain.quantities import human_duration

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ERROR = re.compile(r"^[\w./-]*: (error|fatal|panic): ", re.IGNORECASE)
_WARNING = re.compile(r"^[\w./-]*: warning: ")
_TABLE = re.compile(r"^pg_(dump: dumping contents of table|restore: processing data for table) ")
_KEPT_LINES = 200  # of stderr; a verbose pg_dump of 100,000 tables writes many more
_TERMINATION_GRACE = 5  # seconds between SIGTERM and SIGKILL
_LAST_WORDS = 1  # seconds for what an ended program has started: ssh may still tell why the other end of rsync failed
_TICK = 0.1  # seconds between two looks at limits and cancellation


def scrub_environment(environment: MutableMapping[str, str]) -> None:
    """Given our own environment, take every variable of libpq out of it; each front does so before anything else.

    psycopg2 reads them from the process: a PGSERVICE, PGHOSTADDR or PGOPTIONS left in a crontab would send a backup
    elsewhere. All of PG* goes, known or not, but for our own PGKEEP_*.
    """
    for name in [name for name in environment if name.startswith("PG") and not name.startswith("PGKEEP_")]:
        del environment[name]


class Cancellation:
    """Asks running work to end, from a signal handler: setting is all it does."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal_number = 0

    def cancel(self, signal_number: int) -> None:
        """Given the signal that asked for it, ask all work to end."""
        self.signal_number = signal_number
        self._event.set()

    @property
    def requested(self) -> bool:
        """Return whether the work shall end."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise Interrupted when the work shall end."""
        if self.requested:
            raise Interrupted(self.signal_number, f"interrupted by {signal.Signals(self.signal_number).name}")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the program was started without this pipe")
    return pipe


class Process:
    """A started program and what it says on stderr."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str) -> None:
        self.popen, self.name = popen, name
        self.tables = 0  # whose rows pg_dump has begun to write, or pg_restore to read
        self.last = ""
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.errors: deque[str] = deque(maxlen=_KEPT_LINES)
        self.warnings: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reaping = threading.Lock()
        self._listener = threading.Thread(target=self._listen, name="stderr", daemon=True)
        self._listener.start()

    @property
    def stdin(self) -> IO[bytes]:
        """Return the pipe to its stdin; it was started with one."""
        return _pipe(self.popen.stdin)

    @property
    def stdout(self) -> IO[bytes]:
        """Return the pipe from its stdout; it was started with one."""
        return _pipe(self.popen.stdout)

    def _listen(self) -> None:
        # Unbuffered, it would be read byte by byte, and a verbose pg_dump of many tables says many megabytes.
        with open(_pipe(self.popen.stderr).fileno(), "rb", closefd=False) as stderr:
            for raw in stderr:
                self._hear(raw.decode("utf-8", "replace").rstrip())

    def _hear(self, line: str) -> None:
        self.last = line
        if _TABLE.match(line):
            self.tables += 1
            return
        self.lines.append(line)
        if _ERROR.match(line):
            self.errors.append(line)
        elif _WARNING.match(line):
            self.warnings.append(line)

    def ended(self, *, wait: bool = False) -> bool:
        """Return whether the program has ended. It is not reaped, so that its number, and its group's, stay its own."""
        try:
            options = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
            return self.popen.returncode is not None or os.waitid(os.P_PID, self.popen.pid, options) is not None
        except ChildProcessError:
            return True  # reaped in the meantime

    def send_signal(self, number: int) -> None:
        """Given a signal, send it to the program and all that it started, also where the program itself has ended."""
        with self._reaping:
            if self.popen.returncode is None:
                try:
                    os.killpg(self.popen.pid, number)
                except (ProcessLookupError, PermissionError):
                    pass  # it has ended

    def wait(self) -> int:
        """Wait for the end of the program, and of its stderr; return its status (negative: ended by a signal)."""
        self.ended(wait=True)
        self.end_others()
        with self._reaping:
            status = self.popen.wait()
        self._listener.join()
        return status

    def end_others(self) -> None:
        """End what the program, which has ended, leaves behind: a worker that outlives its leader would keep our pipes open
        for ever.
        """
        self._listener.join(_LAST_WORDS)
        self.send_signal(signal.SIGKILL)

    def check(self) -> None:
        """Wait for the end; raise ToolError unless the status is 0 and stderr has no error (pg_dump can say both)."""
        status = self.wait()
        if status or self.errors:
            raise ToolError(self.failure(status))

    def failure(self, status: int) -> str:
        """Given its status, return what went wrong, with the program's own words."""
        if self.errors:
            text = list(self.lines)
            first = text.index(self.errors[0]) if self.errors[0] in text else 0
            said = "; ".join(line for line in text[first : first + 4] if not line.startswith(f"{self.name}: reading"))
        else:
            said = "; ".join(list(self.lines)[-3:]) or "it said nothing"
        if status == -9:
            return f"{self.name} was killed (out of memory?): {said}"
        if status < 0:
            return f"{self.name} was ended by signal {-status}: {said}"
        return f"{self.name} failed (status {status}): {said}{advice(said)}"


@dataclass(frozen=True)
class Limits:
    """How long work may take, and how long it may go on without progress."""

    deadline: timedelta
    stall: timedelta
    stall_option: str = "stall_timeout"  # the user's


class Processes:
    """The programs of one piece of work. They end with it: by themselves, a limit, a signal, our death."""

    def __init__(
        self,
        environment: Mapping[str, str],
        cancellation: Cancellation,
        inherit: Sequence[int] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        """Given their environment, what asks them to end, descriptors to inherit, and what each is run with."""
        self._environment, self._cancellation, self._inherit = dict(environment), cancellation, tuple(inherit)
        self._started: list[Process] = []
        self._verdict: PgkeepError | None = None
        self._done = threading.Event()
        self._watch: threading.Thread | None = None
        # Where it exists (every distribution's util-linux), the kernel ends the program when we die by SIGKILL.
        setpriv = shutil.which("setpriv", path=SEARCH_PATH)
        self._outside = (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
        self._prefix = (*self._outside, *prefix)

    def __enter__(self) -> Processes:
        return self

    def start(self, argv: Sequence[str], stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE) -> Process:
        """Given a command line, return the started program; raise ToolError when it cannot be started."""
        return self._start(argv, stdin, stdout, self._prefix, ())

    def start_outside(self, argv: Sequence[str], stdin: int, descriptors: Sequence[int] = ()) -> Process:
        """Given a command line and descriptors that this program alone inherits, start it as `start` does, without what
        the others are run with: it may see what they may not.
        """
        return self._start(argv, stdin, subprocess.PIPE, self._outside, descriptors)

    def _start(
        self, argv: Sequence[str], stdin: int, stdout: int, prefix: Sequence[str], descriptors: Sequence[int]
    ) -> Process:
        self._cancellation.check()
        name = os.path.basename(argv[0])
        try:
            popen = subprocess.Popen(
                (*prefix, *argv),
                env=self._environment,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                pass_fds=(*self._inherit, *descriptors),
                start_new_session=True,  # a Ctrl-C is for us; we end them
            )
        except OSError as error:
            raise ToolError(f"{argv[0]} cannot be started: {error.strerror}") from None
        process = Process(popen, name)
        self._started.append(process)
        return process

    def limit(self, limits: Limits, progress: Callable[[], int]) -> None:
        """Given limits and a counter that grows with the work, end the programs at a limit or a cancellation.

        The counter may raise a PgkeepError, which ends them as well.
        """
        self._watch = threading.Thread(target=self._guard, args=(limits, progress), name="limits", daemon=True)
        self._watch.start()

    def _guard(self, limits: Limits, progress: Callable[[], int]) -> None:
        begin = moved = time.monotonic()
        before = -1
        while not self._done.wait(_TICK):
            for process in self._started:
                if process.ended():
                    process.end_others()  # as in `wait`, but nobody may wait yet: the pipes come first
            now = time.monotonic()
            try:
                self._cancellation.check()
                count = progress()
                if count != before:
                    before, moved = count, now
                if now - begin > limits.deadline.total_seconds():
                    raise self._passed(f"not done after {human_duration(limits.deadline)} (`deadline`)")
                if now - moved > limits.stall.total_seconds():
                    raise self._passed(f"not one new byte for {human_duration(limits.stall)} (`{limits.stall_option}`)")
            except PgkeepError as error:
                self._verdict = error
                self.end()
                return

    def _passed(self, limit: str) -> ToolError:
        # Asked now: what a program says when it is ended is of no interest.
        heard = next((process.last for process in self._started if process.last), "")
        return ToolError(f"ended: {limit}" + (f": last heard: {heard}" if heard else ""))

    def check(self) -> None:
        """Raise Interrupted or what else ended the programs before their time."""
        self._cancellation.check()
        if self._verdict:
            raise self._verdict

    def end(self) -> None:
        """End every program that still runs: politely, then not."""
        for process in self._started:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + _TERMINATION_GRACE
        while not all(process.ended() for process in self._started) and time.monotonic() < until:
            time.sleep(0.02)
        for process in self._started:
            process.send_signal(signal.SIGKILL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._watch:
            self._watch.join()
        self.end()
        for process in self._started:
            process.wait()
            for pipe in (process.popen.stdin, process.popen.stdout, process.popen.stderr):
                if pipe:
                    _close(pipe)


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:
        pass  # a reader that has ended


def read_up_to(pipe: IO[bytes], limit: int) -> bytes:
    """Given a pipe and a number of bytes, return what comes out of it, up to that many; more stays in it."""
    pieces: list[bytes] = []
    while limit > 0:
        piece = pipe.read(limit)  # unbuffered: what is there now
        if not piece:
            break
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def memory_file(name: str, content: bytes) -> int:
    """Given a name and a secret, return the descriptor of an unnamed file (0600) that holds it.

    It never has a path on a disk and is gone with the last process that has it open, whatever kills that.
    """
    fd = os.memfd_create(name, 0)
    os.fchmod(fd, 0o600)
    os.write(fd, content)
    os.set_inheritable(fd, True)
    return fd
