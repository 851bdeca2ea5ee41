# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks without space, without inodes, with limits: whichever page is the one too many, there is no half a backup."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.keeper import Done, Keeper, assert_untouched, manifests, snapshot

PAGE = 4096


@contextmanager
def disk(place: Path, *options: str) -> Iterator[Path]:
    """Given a directory to make and mount options, mount an empty file system there as long as the block runs."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(["mode=0700", *options]), "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def used_pages(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 // PAGE for path in directory.rglob("*") if path.is_file())


@pytest.fixture(scope="module", autouse=True)
def data(lone_debian_server: object, lone_zstd_server: object) -> None:
    for server in (lone_debian_server, lone_zstd_server):
        server.psql("CREATE TABLE full_disk AS SELECT i, md5(i::text) FROM generate_series(1, 1500) i")  # type: ignore[attr-defined]


KINDS = {
    "custom": (),
    "external": ("--compression=zstd:1",),
    "directory": ("--format=directory",),
    "packed plain": ("--format=plain", "--compression=gzip"),
}


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_whichever_page_is_missing_there_is_a_whole_backup_or_none(
    keeper: Keeper, debian_keeper: Keeper, tmp_path: Path, kind: str
) -> None:
    keeper = debian_keeper if kind == "external" else keeper
    with disk(tmp_path / "large", "size=100m") as place:
        keeper.repository = place / "repository"
        assert keeper.backup("postgres", *KINDS[kind]).code == 0
        needed = used_pages(place)
    codes = []
    for pages in (1, 2, *range(needed - 3, needed + 3)):
        with disk(tmp_path / str(pages), f"size={pages * PAGE}") as place:
            keeper.repository = place / "repository"
            done = keeper.backup("postgres", *KINDS[kind])
            codes.append(done.code)
            if done.code:
                one_message(done, "postgres: ", "space", "free some")
            assert_untouched(keeper.repository, {}, new=0 if done.code else 1, server=keeper.server)
    assert codes[:2] == [1, 1]
    assert codes[-1] == 0


@pytest.mark.needs_root
def test_globals_on_a_full_disk_are_not_empty_globals(keeper: Keeper, tmp_path: Path) -> None:
    for pages in (1, 2, 3, 4):
        with disk(tmp_path / str(pages), f"size={pages * PAGE}") as place:
            keeper.repository = place / "repository"
            done = keeper.run("backup", "postgres")
            assert done.code in (1, 4)
            assert len(manifests(keeper.repository)) == (done.code == 4)
            assert_untouched(keeper.repository, {}, new=int(done.code == 4))


@pytest.mark.needs_root
def test_a_disk_without_inodes_is_named_as_the_reason(keeper: Keeper, tmp_path: Path) -> None:
    codes = []
    for number in range(2, 10):
        with disk(tmp_path / str(number), "size=10m", f"nr_inodes={number}") as place:
            keeper.repository = place / "repository"
            done = keeper.backup("postgres")
            codes.append(done.code)
            if done.code:
                one_message(done, "no space left", "free some space")
            assert_untouched(keeper.repository, {}, new=0 if done.code else 1)
    assert (codes[0], codes[-1]) == (1, 0)


@pytest.mark.needs_programs("prlimit")
@pytest.mark.parametrize("kind", ["custom", "external", "packed plain"])
def test_a_file_size_limit_is_named_as_the_reason(keeper: Keeper, debian_keeper: Keeper, kind: str) -> None:
    keeper = debian_keeper if kind == "external" else keeper
    done = keeper.backup("postgres", *KINDS[kind], prefix=("prlimit", "--fsize=8192"))
    assert done.code == 1
    one_message(done, "postgres: file size limit reached", "ulimit -f")
    assert_untouched(keeper.repository, {})


@pytest.mark.needs_programs("prlimit")
def test_no_file_descriptors_left_is_a_failure_and_no_crash(keeper: Keeper) -> None:
    assert keeper.backup("postgres").code == 0
    before = snapshot(keeper.repository)
    codes = set()
    for number in (10, 12, 14, 16, 18, 20, 24, 28):
        done = keeper.backup("postgres", prefix=("prlimit", f"--nofile={number}"))
        codes.add(done.code)
        if done.code == 0:
            break
        one_message(done)
        assert_untouched(keeper.repository, before)
    assert codes == {0, 1}


@pytest.mark.needs_root
@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_dump_that_would_use_up_the_reserve_is_ended_while_it_is_written(
    keeper: Keeper, tmp_path: Path, fresh_database: Callable[..., str], form: str
) -> None:
    name = fresh_database(keeper.server)
    text = "md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text)"
    keeper.server.psql(f"CREATE TABLE big AS SELECT i, {text} FROM generate_series(1, 600000) i", name)
    with disk(tmp_path / "disk", "size=80m") as place:
        keeper.repository = place / "repository"
        done = keeper.backup(name, "--reserve=60MB", f"--format={form}", "--compression=none")
        assert done.code == 1
        one_message(done, f"{name}: the space that `reserve` keeps free would be used up")
        assert_untouched(keeper.repository, {})


# --- refused before anything is written ---


@pytest.mark.needs_root
def test_the_reserve_and_the_need_are_looked_at_before_the_dump(keeper: Keeper, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=8m") as place:
        keeper.repository = place / "repository"
        reserved = keeper.backup("postgres", "--reserve=9MB")
        assert reserved.code == 1
        one_message(reserved, "postgres: only 8.4 MB are free and 9.0 MB stay in reserve", "lower `reserve`")
        assert keeper.backup("postgres", "--reserve=100%").code == 1
        assert keeper.backup("postgres", "--reserve=50%", "--compression=none").code == 0
        before = snapshot(keeper.repository)
        (place / "ballast").write_bytes(bytes(8 * 1024 * 1024 - used_pages(place) * PAGE - 6 * PAGE))
        for more in ((), ("--dry-run",)):
            needed = keeper.backup("postgres", "--compression=none", *more)
            assert needed.code == 1
            one_message(needed, "are needed (from earlier backups)", "free some space")
        assert_untouched(keeper.repository, before)


def one_message(done: Done, *parts: str) -> None:
    """Given what a command did, assert that it said one error, and each of the parts in it."""
    (line,) = done.err.splitlines()
    assert line.startswith("pgkeep: error: ")
    assert "bug in pgkeep" not in line
    for part in parts:
        assert part in line
