# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import process
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import (
    SEARCH_PATH,
    Cancellation,
    Limits,
    Processes,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import Interrupted, ToolError

from tests.keeper import ROOT, until

Script = Callable[..., tuple[str, ...]]
NEVER = Limits(timedelta(hours=1), timedelta(hours=1))


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Return a function: given a shell script, and perhaps its name, return the command that runs it."""

    def write(text: str, name: str = "pg_dump") -> tuple[str, ...]:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return (str(path),)

    return write


def processes(cancellation: Cancellation | None = None, **environment: str) -> Processes:
    return Processes({"PATH": SEARCH_PATH, **environment}, cancellation or Cancellation())


def alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read_pid(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text().strip(), f"{path} is written"))


def failure(run: Processes, *argv: str) -> str:
    """Run a command that fails; return what is said of it."""
    with run, pytest.raises(ToolError) as caught:
        run.start(argv).check()
    return str(caught.value)


# --- what a program says ---


def test_a_program_that_ends_well_is_fine(script: Script) -> None:
    with processes() as run:
        started = run.start(script("echo out; echo 'pg_dump: last built-in OID is 16383' >&2"))
        assert started.stdout.read() == b"out\n"
        started.check()
        assert list(started.lines) == ["pg_dump: last built-in OID is 16383"]


def test_an_error_counts_also_where_the_status_is_0(script: Script) -> None:
    said = failure(processes(), *script("echo 'pg_dump: error: could not write to output file: No space left' >&2"))
    assert said == "pg_dump failed (status 0): pg_dump: error: could not write to output file: No space left"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "pg_dump failed (status 3): it said nothing"),
        ("echo a >&2; echo b >&2; echo c >&2; echo d >&2; exit 1", "pg_dump failed (status 1): b; c; d"),
        (
            "echo noise >&2; echo 'pg_dump: error: x' >&2; echo 'pg_dump: detail: y' >&2; exit 1",
            "pg_dump failed (status 1): pg_dump: error: x; pg_dump: detail: y",
        ),
        ("kill -KILL $$", "pg_dump was killed (out of memory?): it said nothing"),
        ("kill -TERM $$", "pg_dump was ended by signal 15: it said nothing"),
        ("printf '\\377\\n' >&2; exit 1", "pg_dump failed (status 1): \ufffd"),
    ],
)
def test_a_failure_is_told_in_the_programs_own_words(script: Script, text: str, said: str) -> None:
    assert failure(processes(), *script(text)) == said


def test_what_a_program_has_started_may_say_why_it_failed_and_then_ends(script: Script, tmp_path: Path) -> None:
    # rsync ends at once when its other end does; what that said is still on its way through ssh.
    text = f"(sleep 0.3; echo 'the quota is used up' >&2; sleep 1000) & echo $! > {tmp_path}/child; exit 11"
    assert failure(processes(), *script(text)) == "pg_dump failed (status 11): the quota is used up"
    child = read_pid(tmp_path / "child")
    until(lambda: not alive(child), "the child is gone")


def test_warnings_and_tables_are_counted_and_memory_stays_small(script: Script) -> None:
    text = """
        seq 1000 | sed 's/.*/pg_dump: dumping contents of table "public.t&"/' >&2
        seq 1000 | sed 's/.*/pg_dump: reading &/' >&2
        echo 'pg_dump: warning: there are circular foreign-key constraints' >&2
    """
    with processes() as run:
        started = run.start(script(text))
        assert started.wait() == 0
        assert started.tables == 1000
        assert list(started.warnings) == ["pg_dump: warning: there are circular foreign-key constraints"]
        assert len(started.lines) == 200


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "No such file or directory" in failure(processes(), str(tmp_path / "nothing"))


# --- its surroundings ---


def test_a_program_sees_the_environment_it_was_given_and_nothing_of_ours(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "ours")
    with processes(GIVEN="yes") as run:
        started = run.start(script("env; pwd; ls -l /proc/self/fd"))
        output = started.stdout.read().decode()
        started.check()
    assert "GIVEN=yes\n" in output
    assert "PGPASSWORD" not in output
    assert "\n/\n" in output


def test_only_the_descriptors_that_are_meant_to_are_inherited(script: Script, tmp_path: Path) -> None:
    ours, theirs = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    with Processes({"PATH": SEARCH_PATH}, Cancellation(), (theirs,)) as run:
        output = run.start(script("ls -l /proc/$$/fd")).stdout.read().decode()
    assert f" {theirs} -> {tmp_path}\n" in output
    assert f" {ours} -> {tmp_path}\n" not in output
    os.close(ours)
    os.close(theirs)


def test_arguments_are_no_shells_business(script: Script, tmp_path: Path) -> None:
    with processes() as run:
        argv = (*script('printf "%s|" "$@"'), "$(touch x)", "a b", "", "--", "'\";")
        assert run.start(argv).stdout.read() == b"$(touch x)|a b||--|'\";|"


def test_a_secret_in_memory_is_read_by_the_program_that_gets_its_descriptor(script: Script) -> None:
    fd = process.memory_file("passfile", b"*:*:*:*:secret\n")
    for _unused in range(2):  # each reads it from its beginning
        with Processes({"PATH": SEARCH_PATH}, Cancellation(), (fd,)) as run:
            assert run.start(script(f"cat /proc/self/fd/{fd}")).stdout.read() == b"*:*:*:*:secret\n"
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    os.close(fd)


# --- being ended ---


def test_leaving_the_work_ends_its_programs_and_their_children(script: Script, tmp_path: Path) -> None:
    with processes() as run:
        run.start(script(f"sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/leader; wait"))
        child, leader = read_pid(tmp_path / "child"), read_pid(tmp_path / "leader")
        assert alive(child)
    assert not alive(leader)
    until(lambda: not alive(child), "the child, which is not ours to wait for, is gone")


def test_a_program_that_ignores_the_polite_signal_is_killed(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_TERMINATION_GRACE", 0.1)
    with processes() as run:
        run.start(script(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done"))
        pid = read_pid(tmp_path / "pid")
    assert not alive(pid)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            Limits(timedelta(seconds=0.2), timedelta(hours=1)),
            "ended: not done after 0.2s (`deadline`): last heard: busy",
        ),
        (Limits(timedelta(hours=1), timedelta(seconds=0.2)), "not one new byte for 0.2s (`stall_timeout`)"),
    ],
)
def test_a_limit_that_passes_ends_the_programs_and_is_told(script: Script, limits: Limits, said: str) -> None:
    with processes() as run:
        started = run.start(script("echo busy >&2; exec sleep 1000"))
        until(lambda: started.last, "it says something")
        run.limit(limits, lambda: 0)
        assert started.wait() < 0
        with pytest.raises(ToolError) as caught:
            run.check()
    assert said in str(caught.value)


def test_work_that_goes_on_does_not_stall(script: Script) -> None:
    count = iter(range(10**9))
    with processes() as run:
        started = run.start(script("sleep 0.5"))
        run.limit(Limits(timedelta(hours=1), timedelta(seconds=0.05)), lambda: next(count))
        started.check()
        run.check()


def test_a_cancellation_ends_the_programs_and_lets_none_start(script: Script) -> None:
    cancellation = Cancellation()
    with processes(cancellation) as run:
        started = run.start(script("exec sleep 1000"))
        run.limit(NEVER, lambda: 0)
        cancellation.cancel(signal.SIGTERM)
        assert started.wait() < 0
        with pytest.raises(Interrupted, match="interrupted by SIGTERM") as caught:
            run.check()
        assert caught.value.exit_code == 143
        with pytest.raises(Interrupted):
            run.start(script("true"))


ORPHANING = """
    import os, sys
    from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import *
    with Processes({"PATH": SEARCH_PATH}, Cancellation()) as run:
        started = run.start((sys.argv[1],))
        print(started.popen.pid, started.stdout.readline(), flush=True)
        os.kill(os.getpid(), 9)
"""


@pytest.mark.needs_programs("setpriv")
def test_a_program_dies_with_us_whatever_kills_us(script: Script) -> None:
    command = [sys.executable, "-c", textwrap.dedent(ORPHANING), *script("echo begun; exec sleep 1000")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache" / "collections")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout.split()[0])
    until(lambda: not alive(pid), "the program is gone")
