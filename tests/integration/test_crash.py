# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A job is killed, or the disk fails it, at its Nth operation on the repository, for every N.

After each fault the invariants of a repository are looked at from outside, then the job runs again and must just work.
By default one of several alike operations stands for all; PGKEEP_EVERY_FAULT=1 takes every one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.keeper import (
    ROOT,
    Done,
    Keeper,
    Snapshot,
    assert_good,
    assert_no_process,
    assert_untouched,
    bytes_in_progress,
    command_line,
    finish,
    leftovers,
    processes_in,
    snapshot,
    until,
    write_job,
)
from tests.postgres import Server

PARTS = 2  # of each matrix, so that a failure shows early and two processors can share
_HARMLESS = ("open", "read", "close")  # for the disk-full matrix: a full disk does not fail them


@dataclass(frozen=True)
class Job:
    """A job that backs up one small database and keeps one backup, and a repository with two older ones."""

    keeper: Keeper
    config: str
    original: Path
    form: str
    operations: tuple[str, ...]  # "open .inprogress-1/manifest.json" and so on, in their order

    def fresh(self) -> Snapshot:
        """Put the repository back to its beginning; return what is in it."""
        shutil.rmtree(self.keeper.repository, ignore_errors=True)
        shutil.copytree(self.original, self.keeper.repository)
        return snapshot(self.keeper.repository)

    def run(self, fault: str = "none", number: int = 0) -> Done:
        log = self.keeper.repository.parent / "operations"
        injector = (sys.executable, "-I", ROOT / "tests/faulty.py", fault, str(number), self.keeper.repository, log)
        return self.keeper.run("run", self.config, "night", prefix=injector)


def make_job(keeper: Keeper, directory: Path, form: str, **options: object) -> Job:
    keeper.server.psql("DROP TABLE IF EXISTS crash; CREATE TABLE crash AS SELECT i FROM generate_series(1, 2000) i")
    place = {"login_unix_socket": str(keeper.server.socket_dir), "login_port": keeper.server.port}
    common = {
        "repository": str(keeper.repository),
        "bin_dir": str(keeper.server.bindir),
        "reserve": "0",
        "globals": False,
    }
    config = write_job(directory / "etc", "night", databases=["postgres"], keep_last=1, **place, **common, **options)
    more = [f"--{name}={value}" for name, value in options.items()]
    assert [keeper.backup("postgres", *more).code for _unused in range(2)] == [0, 0]
    original = directory / "original"
    keeper.repository.rename(original)
    job = Job(keeper, config, original, form, ())
    job.fresh()
    assert job.run().code == 0
    lines = (directory / "operations").read_text().splitlines()
    return Job(keeper, config, original, form, tuple(" ".join(line.split(" ")[1:]) for line in lines))


@pytest.fixture(scope="module", params=["custom", "directory", "external"])
def job(request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job for each way in which archives come about: one process, files of pg_dump's own, a compressor behind it."""
    server: Server = request.getfixturevalue(
        "lone_debian_server" if request.param == "external" else "lone_zstd_server"
    )
    directory = tmp_path_factory.mktemp("crash")
    keeper = Keeper(program, server, directory / "repository")
    more = {"format": "directory", "jobs": 2} if request.param == "directory" else {}
    return make_job(keeper, directory, request.param, **more)


def points(job: Job, skip: tuple[str, ...] = (), *, last: bool = False) -> list[int]:
    """Given a job, return the numbers of the operations to try: of those alike the first, and perhaps the last."""
    alike: dict[tuple[str, str], list[int]] = {}
    for number, line in enumerate(job.operations, 1):
        name, place = line.split(" ", 1)
        if name not in skip and (job.form == "custom" or "/.inprogress-" in place):  # the rest is the same for all
            # Random and dated names are one; what is read again and again of the older backups is one as well.
            end = place.rpartition("/")[2]
            alike.setdefault((name, re.sub(r"[-_][0-9a-f-]+", "*", end)), []).append(number)
    if os.environ.get("PGKEEP_EVERY_FAULT") == "1":
        return sorted(number for numbers in alike.values() for number in numbers)
    return sorted({number for numbers in alike.values() for number in (numbers[0], numbers[-1 if last else 0])})


def problems_after(job: Job, before: Snapshot, done: Done) -> list[str]:
    """Given what a faulty run did to the repository, return which invariants it broke."""
    repository, found = job.keeper.repository, []
    folder = repository / "main" / "postgres"
    listed = sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []
    for path in listed:  # I1: what has a backup's name is one
        try:
            assert_good(path, job.keeper.server)
        except (AssertionError, OSError, ValueError) as error:
            found.append(f"{path.name} is listed and not good: {error}")
    old = {path.parent if path.parent.suffix != ".dir" else path.parent.parent for path in before}
    new = set(listed) - old
    after = snapshot(repository)
    harmed = {path for path, state in before.items() if after.get(path) != state}
    if harmed and not new:  # I2, I4: nothing goes before there is something better
        found.append(f"{sorted(harmed)} changed although there is no new backup")
    if any(path.exists() for path in harmed):
        found.append(f"{sorted(harmed)} changed and is still there")
    unexplained = [one.name for one in old & set(listed) if f"{one.name} stays: " not in done.err]
    if done.code == 0 and (len(new) != 1 or unexplained):  # I3
        found.append(f"exit 0 with {listed}")
    if done.code > 0 and not done.err.startswith("pgkeep: error: "):
        found.append(f"it failed without a message: {done}")
    if done.code > 0 and "bug in pgkeep" in done.err:
        found.append(f"it failed with {done.err}")
    return found


def problems_of_next_run(job: Job, before: Snapshot) -> list[str]:
    """Given a job and what was there before a faulty run, run it again (I5: without help); return what goes wrong."""
    again = job.run()
    found = [f"next run: {text}" for text in problems_after(job, before, again)]
    if again.code:
        found.append(f"the next run fails: {again}")
    if leftovers(job.keeper.repository):
        found.append(f"the next run leaves {leftovers(job.keeper.repository)}")
    return found


def sweep(job: Job, fault: str, numbers: list[int], expected: set[int]) -> list[str]:
    """Given a fault and at which operations to try it, return everything that went wrong, with what tells how."""
    found = []
    for number in numbers:
        before = job.fresh()
        done = job.run(fault, number)
        wrong = problems_after(job, before, done)
        if done.code not in expected:
            wrong.append(f"exit code {done.code}: {done}")
        if done.code < 0 or leftovers(job.keeper.repository):
            wrong += problems_of_next_run(job, before)
        found += [f"{fault} at {number}, {job.operations[number - 1]}: {text}" for text in wrong]
    assert_no_process(job.keeper.repository)
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_any_operation_loses_nothing_and_the_next_run_just_works(job: Job, part: int) -> None:
    assert "\n".join(sweep(job, "kill", points(job, last=job.form == "custom")[part::PARTS], {-signal.SIGKILL})) == ""


@pytest.mark.parametrize("part", range(PARTS))
def test_an_error_of_the_disk_at_any_operation_loses_nothing_and_is_told(job: Job, part: int) -> None:
    # 0: an error on a descriptor that was only read is nobody's loss
    assert "\n".join(sweep(job, "once:EIO", points(job)[part::PARTS], {0, 1, 4})) == ""


@pytest.mark.parametrize("part", range(PARTS))
def test_a_disk_that_is_full_from_any_operation_on_loses_nothing_and_is_told(job: Job, part: int) -> None:
    assert "\n".join(sweep(job, "on:ENOSPC", points(job, _HARMLESS)[part::PARTS], {1, 4})) == ""


WRITTEN = {"custom": (".dump", "manifest.json"), "external": (".dump.zst",), "directory": ("manifest.json",)}


def test_a_write_that_is_lost_without_an_error_is_found_before_the_backup_counts(job: Job) -> None:
    for file in WRITTEN[job.form]:
        before = job.fresh()
        done = job.run(f"lie:{file}")
        assert done.code == 1
        assert "does not read back as it was written: check the disk" in done.err
        assert problems_after(job, before, done) == []
        assert snapshot(job.keeper.repository) == before


@pytest.fixture(scope="module", params=["custom", "directory", "external"])
def large(request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    """A database that takes a while, and a backup of it with one small and then one large table."""
    server: Server = request.getfixturevalue(
        "lone_debian_server" if request.param == "external" else "lone_zstd_server"
    )
    server.psql("CREATE DATABASE crash_large")
    text = "md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text)"
    server.psql(f"CREATE TABLE big AS SELECT i, {text} FROM generate_series(1, 400000) i", "crash_large")
    keeper = Keeper(program, server, tmp_path_factory.mktemp("killed") / "repository")
    keeper.connection += ("crash_large", *(["--format=directory", "--jobs=2"] if request.param == "directory" else []))
    assert keeper.backup().code == 0
    yield keeper
    server.psql("DROP DATABASE crash_large WITH (FORCE)")


def test_a_runner_killed_during_a_dump_leaves_no_writer_that_the_next_run_has_to_wait_for(large: Keeper) -> None:
    before = snapshot(large.repository)
    running = large.start("backup", "--no-globals")
    until(lambda: bytes_in_progress(large.repository) > 1000, "rows are written")
    # Frozen, so that a worker that outlives its leader is certainly there when the next run comes.
    for pid in processes_in(large.repository):
        if "pg_dump" in command_line(pid):
            os.kill(pid, signal.SIGSTOP)
    running.kill()
    assert finish(running).code == -signal.SIGKILL
    assert [path for path, state in before.items() if snapshot(large.repository).get(path) != state] == []
    assert len(large.listed()) == len({path.parent for path in before if path.name == "manifest.json"})
    again = large.backup()
    assert (again.code, again.err) == (0, "")
    assert_untouched(large.repository, before, new=1, server=large.server)
