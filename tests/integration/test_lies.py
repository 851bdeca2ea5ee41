# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Client programs that lie, die or do not end: what they leave is never taken for a backup.

The liars are scripts around the real programs, because the real ones lie only on a disk that fails at the right byte.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.keeper import Done, Keeper, assert_untouched, command_line, processes_in, snapshot, until

Liar = Callable[..., Keeper]


@pytest.fixture
def liar(keeper: Keeper, debian_keeper: Keeper, tmp_path: Path) -> Liar:
    """Return a function: given shell code for one program ($real is the real one) return a keeper that has to use it.

    What asks a program for its version or its abilities gets true answers.
    """

    def lie(code: str, program: str = "pg_dump", *, external: bool = False) -> Keeper:
        chosen = debian_keeper if external else keeper
        chosen.server.psql("CREATE TABLE IF NOT EXISTS lies AS SELECT i, md5(i::text) FROM generate_series(1, 3000) i")
        fake = tmp_path / "bin"
        fake.mkdir()
        for name in ("pg_dump", "pg_dumpall", "pg_restore"):
            real = shlex.quote(str(chosen.server.bindir / name))
            honest = f'case "$*" in --version|*/dev/null/pgkeep*) exec {real} "$@";; esac'
            script = f"real={real}\n{honest}\n{code}\n" if name == program else f'exec {real} "$@"\n'
            (fake / name).write_text("#!/bin/bash\n" + script)
            (fake / name).chmod(0o755)
        chosen.connection = (*chosen.connection[:-1], f"--bin-dir={fake}")
        return chosen

    return lie


def assert_refused(keeper: Keeper, *parts: str, arguments: tuple[str, ...] = ()) -> Done:
    """Given a keeper with a liar, assert that a backup fails with one message with these parts and changes nothing."""
    before = snapshot(keeper.repository)
    done = keeper.backup("postgres", *arguments)
    assert done.code == 1, done
    (line,) = done.err.splitlines()
    assert line.startswith("pgkeep: error: postgres: ")
    for part in parts:
        assert part in line
    assert_untouched(keeper.repository, before)
    return done


FORMS = {
    "custom": (),
    "tar": ("--format=tar", "--compression=none"),
    "plain": ("--format=plain", "--compression=none"),
    "packed plain": ("--format=plain", "--compression=gzip"),
    "packed custom": ("--format=custom", "--compression=zstd"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", ["0", "1", "4000", "-12000"])
def test_a_dump_that_is_cut_off_with_status_0_is_found(liar: Liar, form: str, kept: str) -> None:
    keeper = liar(f'"$real" "$@" | head -c {kept}; exit 0', external=form == "packed custom")
    assert_refused(keeper, arguments=FORMS[form])


@pytest.mark.parametrize("lost", [1, 10, 1000])
def test_a_custom_archive_without_its_last_bytes_is_found(liar: Liar, lost: int) -> None:
    assert_refused(liar(f'"$real" "$@" | head -c -{lost}; exit 0'), "the archive cannot be read back: pg_restore")


def test_an_earlier_backup_outlives_a_lie(liar: Liar) -> None:
    keeper = liar('"$real" "$@" | head -c 9000; exit 0')
    assert keeper.backup("postgres", f"--bin-dir={keeper.server.bindir}").code == 0
    assert_refused(keeper)


def test_an_empty_dump_with_status_0_is_found(liar: Liar) -> None:
    assert_refused(liar("exit 0"), "pg_dump", "wrote nothing")


def test_an_error_on_stderr_counts_more_than_status_0(liar: Liar) -> None:
    keeper = liar('"$real" "$@"; echo "pg_dump: error: could not fsync file" >&2; exit 0')
    assert_refused(keeper, "pg_dump", "could not fsync file")


def test_a_status_counts_more_than_a_whole_archive(liar: Liar) -> None:
    assert_refused(liar('"$real" "$@"; exit 3'), "pg_dump failed (status 3)")


def test_a_dump_that_was_killed_is_said_to_be(liar: Liar) -> None:
    assert_refused(liar('"$real" "$@" | head -c 5000; kill -9 $$'), "pg_dump was killed (out of memory?)")


def test_an_archive_that_pg_restore_cannot_read_is_no_backup(liar: Liar) -> None:
    keeper = liar('cat >/dev/null; echo "pg_restore: error: not today" >&2; exit 1', "pg_restore")
    assert_refused(
        keeper, "the archive cannot be read back: pg_restore failed (status 1): pg_restore: error: not today"
    )


@pytest.mark.parametrize("kept", ["0", "1", "200", "-20"])
def test_globals_that_are_cut_off_with_status_0_are_found(liar: Liar, kept: str) -> None:
    keeper = liar(f'"$real" "$@" | head -c {kept}; exit 0', "pg_dumpall")
    before = snapshot(keeper.repository)
    done = keeper.run("backup", "postgres")
    assert done.code == 4
    assert "pgkeep: error: @globals: " in done.err
    assert_untouched(keeper.repository, before, new=1)


DIRECTORY_LIES = {
    "a file is missing": 'rm "$target"/*.dat*',
    "a file is cut off": 'for file in "$target"/*.dat*; do truncate -s -10 "$file"; done',
    "a file is empty": 'for file in "$target"/*.dat*; do truncate -s 0 "$file"; done',
    "the table of contents is missing": 'rm "$target/toc.dat"',
    "the table of contents is cut off": 'truncate -s -200 "$target/toc.dat"',
    "nothing is there": 'rm -r "$target"',
}


@pytest.mark.parametrize("lie", DIRECTORY_LIES)
def test_a_directory_that_is_not_whole_is_found(liar: Liar, lie: str) -> None:
    find = 'for word; do case "$word" in --file=*) target="${word#--file=}";; esac; done'
    keeper = liar(f'"$real" "$@" || exit; {find}; {DIRECTORY_LIES[lie]}; exit 0')
    assert_refused(keeper, arguments=("--format=directory",))


# --- programs that do not end ---


def test_a_program_that_ignores_the_polite_signal_is_killed(liar: Liar) -> None:
    keeper = liar("trap '' TERM INT; while :; do sleep 100; done")
    assert_refused(keeper, "(`deadline`)", arguments=("--deadline=1s",))


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_what_outlives_its_leader_and_keeps_the_pipes_open_is_ended_by_the_limits(liar: Liar, form: str) -> None:
    keeper = liar("sleep 1000 & exit 1")
    assert_refused(keeper, arguments=("--deadline=2s", f"--format={form}"))


def test_a_worker_whose_leader_was_killed_does_not_hold_the_run_up(keeper: Keeper) -> None:
    text = "md5(i::text) || md5((i * 7)::text)"
    keeper.server.psql("CREATE DATABASE orphaned")
    keeper.server.psql(f"CREATE TABLE big AS SELECT i, {text} FROM generate_series(1, 400000) i", "orphaned")
    try:
        running = keeper.start("backup", "--no-globals", "--format=directory", "--jobs=2", "orphaned")
        query = "SELECT pid FROM pg_stat_activity WHERE datname = 'orphaned' AND query LIKE 'COPY %'"
        until(lambda: keeper.server.psql(query), "a worker reads rows")
        dumps = [pid for pid in processes_in(keeper.repository) if "pg_dump" in command_line(pid)]
        leader = next(pid for pid in dumps if os.getpgid(pid) == pid)
        for pid in dumps:
            os.kill(pid, signal.SIGSTOP)
        os.kill(leader, signal.SIGKILL)
        _out, err = running.communicate(timeout=60)
        assert running.returncode == 1
        assert "orphaned: pg_dump was killed (out of memory?)" in err
        assert_untouched(keeper.repository, {})
    finally:
        keeper.server.psql("DROP DATABASE orphaned WITH (FORCE)")
