# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clocks that are wrong, environments that would change a dump, readers that go away."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.keeper import Keeper, assert_untouched, finish, manifests, snapshot

pytestmark = pytest.mark.needs_programs("faketime")


def at(moment: str) -> tuple[str, ...]:
    """Given a time as faketime reads it, return the prefix of a command that believes in it."""
    return ("faketime", moment)


def ids(keeper: Keeper) -> list[str]:
    """Given a repository, return the ids of the backups in the order in which they were taken."""
    taken = sorted((path.stat().st_mtime_ns, path.name) for path in manifests(keeper.repository))
    return [name for _unused, name in taken]


# --- the clock ---


def test_a_clock_that_was_set_back_changes_neither_order_nor_what_is_kept(keeper: Keeper) -> None:
    assert keeper.backup("postgres").code == 0
    before = snapshot(keeper.repository)
    done = keeper.backup("postgres", prefix=at("2 days ago"))
    assert done.code == 0
    assert "1 backups are dated in the future" in done.err
    assert "check the clock" in done.err
    assert keeper.backup("postgres").code == 0
    assert ids(keeper) == sorted(ids(keeper))
    assert_untouched(keeper.repository, before, new=2, server=keeper.server)
    pruned = keeper.run("prune", "--keep-last=1", prefix=at("2 days ago"))
    assert (pruned.code, pruned.out.count("dated in the future")) == (0, 3)
    assert_untouched(keeper.repository, before, new=2)


def test_a_clock_that_was_ten_years_ahead_once_does_no_lasting_harm(keeper: Keeper) -> None:
    assert [keeper.backup("postgres").code for _unused in range(2)] == [0, 0]
    assert keeper.backup("postgres", prefix=at("+10 years")).code == 0
    future = max(path.name for path in manifests(keeper.repository))
    done = keeper.backup("postgres")
    assert done.code == 0
    assert f"the latest main/postgres/{future}" in done.err
    this_year = str(datetime.now(timezone.utc).year)
    assert sum(this_year in path.name for path in manifests(keeper.repository)) == 3
    listed = keeper.run("list")
    assert "in the future" in listed.out
    assert keeper.run("prune", "--keep-last=1", prefix=at("+9 seconds")).code == 0  # later than every name given here
    left = sorted(path.name for path in manifests(keeper.repository))
    assert (len(left), left[-1]) == (2, future)
    assert_untouched(keeper.repository, {}, new=2, server=keeper.server)


def test_a_clock_that_is_ten_years_ahead_never_takes_the_last_backups(keeper: Keeper) -> None:
    assert [keeper.backup("postgres").code for _unused in range(3)] == [0, 0, 0]
    done = keeper.run("prune", "--keep-days=30", "--keep-minimum=2", prefix=at("+10 years"))
    assert done.code == 0
    assert len(manifests(keeper.repository)) == 2
    assert_untouched(keeper.repository, {}, new=2, server=keeper.server)


def test_names_do_not_know_of_summer_time(keeper: Keeper) -> None:
    zone = {"TZ": "Europe/Berlin"}
    for moment in ("2024-10-27 02:30:00", "2024-10-27 02:30:00"):  # shown twice that night
        assert keeper.backup("postgres", prefix=at(moment), env=zone).code == 0
    utc = {"TZ": "UTC"}
    assert keeper.backup("postgres", prefix=at("2024-10-27 01:30:00"), env=utc).code == 0
    assert ids(keeper) == sorted(ids(keeper))
    assert len(set(ids(keeper))) == 3
    hours = {re.sub(r".*_(\d\d)-\d\d-\d\d$", r"\1", name) for name in ids(keeper)}
    assert hours <= {"00", "01"}  # UTC, whichever of the two half past twos was meant


def test_something_that_has_the_name_of_the_next_backup_is_in_nobodys_way(keeper: Keeper) -> None:
    assert keeper.backup("postgres").code == 0
    now = datetime.now(timezone.utc)
    strangers = [
        keeper.repository / "main/postgres" / f"postgres_{now + timedelta(seconds=ahead):%Y-%m-%d_%H-%M-%S}"
        for ahead in range(2, 60)
    ]
    for path in strangers:
        path.mkdir()
    before = snapshot(keeper.repository)
    assert keeper.backup("postgres", prefix=at("+10 seconds")).code == 0
    assert_untouched(keeper.repository, before, new=1)
    assert all(path.is_dir() and not list(path.iterdir()) for path in strangers)


# --- the environment ---

HOSTILE = {
    "PGOPTIONS": "-c search_path=nowhere -c default_transaction_read_only=off",
    "PGSERVICE": "nosuch",
    "PGSERVICEFILE": "/nonexistent",
    "PGHOST": "nowhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGDATABASE": "nosuch",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGPASSFILE": "/nonexistent",
    "PGSSLMODE": "verify-full",
    "PGCLIENTENCODING": "LATIN1",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "German",
    "PG_COLOR": "always",
    "LANG": "de_DE.UTF-8",
    "LC_ALL": "xx_XX.broken",
    "LANGUAGE": "de",
    "LD_PRELOAD": "",
    "TMPDIR": "/nonexistent",
    "IFS": "abc",
    "TZ": "Asia/Tokyo",
    "PYTHONHOME": "/nonexistent",
    "PYTHONSTARTUP": "/nonexistent",
    "HOME": None,
    "COLUMNS": "0",
}


def rows(keeper: Keeper) -> list[str]:
    """Given a repository with one plain backup more, return that backup's text without its random and dated lines."""
    newest = max(manifests(keeper.repository), key=lambda path: path.stat().st_mtime_ns)
    (file,) = newest.glob("*.sql")
    return [
        line for line in file.read_text().splitlines() if not re.match(r"\\(un)?restrict|-- (Started|Completed)", line)
    ]


@pytest.mark.parametrize("name", ["all at once", "nothing at all", "PYTHONPATH"])
def test_a_hostile_environment_changes_nothing(keeper: Keeper, tmp_path: Path, name: str) -> None:
    keeper.server.psql("CREATE TABLE IF NOT EXISTS äöü AS SELECT 'äöü €'::text AS t, timestamptz '2024-01-01Z' AS at")
    arguments = ("postgres", "--format=plain", "--compression=none")
    assert keeper.backup(*arguments).code == 0
    expected = rows(keeper)
    if name == "all at once":
        done = keeper.backup(*arguments, env=HOSTILE)
    elif name == "nothing at all":
        done = keeper.backup(*arguments, prefix=("env", "-i", "PATH=/usr/bin:/bin"))
    else:
        (tmp_path / "evil").mkdir()
        for module in ("json", "psycopg2", "sitecustomize"):
            (tmp_path / "evil" / f"{module}.py").write_text("raise SystemExit('taken over')")
        done = keeper.backup(*arguments, env={"PYTHONPATH": str(tmp_path / "evil")})
    assert (done.code, done.err) == (0, "")
    assert rows(keeper) == expected
    assert any("äöü €" in line for line in expected)


# --- those who read the output ---


def test_a_reader_that_goes_away_costs_no_backup(keeper: Keeper) -> None:
    keeper.server.psql("CREATE DATABASE unread")
    try:
        for target in ("/dev/full", "closed pipe"):
            count = len(manifests(keeper.repository))
            with Path(target if target == "/dev/full" else os.devnull).open("w") as output:
                command = [
                    keeper.program, "backup", f"--repository={keeper.repository}", *keeper.connection, "--reserve=0",
                    "--no-globals", "postgres", "unread",
                ]  # fmt: skip
                if target == "/dev/full":
                    process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True)
                else:
                    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                    assert process.stdout
                    process.stdout.close()
                assert process.stderr
                said = process.stderr.read()
                process.stderr.close()
                process.wait(60)
            assert "Traceback" not in said
            assert "Exception ignored" not in said
            assert len(manifests(keeper.repository)) == count + 2
            assert process.returncode == (1 if target == "/dev/full" else 0)
        assert_untouched(keeper.repository, {}, new=4)
    finally:
        keeper.server.psql("DROP DATABASE unread WITH (FORCE)")


@pytest.mark.parametrize("command", ["list", "stats", "prune"])
def test_a_list_into_a_pipe_that_was_closed_ends_quietly(keeper: Keeper, command: str) -> None:
    assert keeper.backup("postgres").code == 0
    process = keeper.start(command, *(["--keep-last=1"] if command == "prune" else []))
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    done = finish(process)
    assert (done.code, done.err) == (0, "")
