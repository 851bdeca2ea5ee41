# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import files
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import RepositoryError, SpaceError

MEGABYTE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


# --- a file that is written and read back at the same time ---


@pytest.mark.parametrize("sizes", [(), (1,), (5, 7), (MEGABYTE,) * 3, (40 * MEGABYTE, 1), (MEGABYTE,) * 70])
def test_a_sink_returns_the_checksum_of_what_the_disk_has(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    sink = files.Sink(str(tmp_path / "file"), 0)
    expected = hashlib.sha256()
    for number, size in enumerate(sizes):
        data = bytes([number % 256]) * size
        sink.write(data)
        expected.update(data)
    assert sink.close() == expected.hexdigest()
    assert sink.size == sum(sizes) == (tmp_path / "file").stat().st_size
    assert files.hash_file(str(tmp_path / "file")) == (sum(sizes), expected.hexdigest())
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["altered", "cut", "grown over"])
def test_a_write_that_was_lost_on_the_way_is_noticed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file"
    sink = files.Sink(str(path), 0)
    sink.write(b"x" * MEGABYTE)
    with path.open("r+b") as behind_its_back:
        if damage == "cut":
            behind_its_back.truncate(MEGABYTE - 1)
        else:
            behind_its_back.seek(0 if damage == "altered" else MEGABYTE - 1)
            behind_its_back.write(b"y")
    with pytest.raises(RepositoryError, match="file does not read back as it was written: check the disk"):
        sink.close()


def test_a_sink_makes_a_new_file_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "nowhere").symlink_to(tmp_path / "not there")
    for name in ("there", "link", "nowhere"):
        with pytest.raises(FileExistsError):
            files.Sink(str(tmp_path / name), 0)
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "not there").exists()


def test_an_abandoned_sink_takes_nothing_more(tmp_path: Path) -> None:
    sink = files.Sink(str(tmp_path / "file"), 0)
    sink.write(b"x")
    sink.abandon()
    sink.abandon()
    with pytest.raises((RepositoryError, OSError)):
        sink.write(b"y")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_the_reserve_is_watched_while_writing(tmp_path: Path) -> None:
    free, _unused = files.free_space(str(tmp_path))
    sink = files.Sink(str(tmp_path / "file"), reserve=2 * free)
    sink.write(b"x" * 20 * MEGABYTE)  # it looks from time to time
    with pytest.raises(SpaceError, match="`reserve`"):
        sink.write(b"x" * 20 * MEGABYTE)
    sink.abandon()
    assert sink.size <= 40 * MEGABYTE


@pytest.mark.needs_root
def test_a_full_disk_ends_the_writing(small_disk: Path) -> None:
    sink = files.Sink(str(small_disk / "file"), 0)
    with pytest.raises(OSError, match="No space left") as caught:
        sink.write(b"x" * 3 * MEGABYTE)
    sink.abandon()
    assert caught.value.errno == errno.ENOSPC
    said = files.describe(caught.value, "writing the backup of shop")
    assert isinstance(said, SpaceError)
    assert str(said).startswith("no space left while writing the backup of shop: free some space")


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.EDQUOT, SpaceError, "no space left while x"),
        (errno.EFBIG, SpaceError, "file size limit reached while x: raise the limit"),
        (errno.EROFS, RepositoryError, "not permitted while x (Read-only file system): check owner, mode and mount"),
        (errno.EACCES, RepositoryError, "not permitted while x (Permission denied)"),
        (errno.EIO, RepositoryError, "Input/output error while x"),
    ],
)
def test_an_error_of_the_file_system_says_what_to_do(number: int, kind: type[Exception], said: str) -> None:
    error = files.describe(OSError(number, os.strerror(number)), "x")
    assert isinstance(error, kind)
    assert str(error).startswith(said)


# --- small files ---


def test_a_new_file_is_private_whatever_the_umask_and_never_replaces_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    old = os.umask(0)
    try:
        files.write_new(str(path), b"{}")
    finally:
        os.umask(old)
    assert path.read_bytes() == b"{}"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        files.write_new(str(path), b"[]")
    assert path.read_bytes() == b"{}"


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    with path.open() as reader:
        files.replace(str(path), b"new", "unique")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.needs_root
def test_a_replacement_that_fails_leaves_the_old_file_alone(small_disk: Path) -> None:
    path = small_disk / "state.json"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        files.replace(str(path), b"x" * 3 * MEGABYTE, "unique")
    assert path.read_text() == "old"
    assert [item.name for item in small_disk.iterdir()] == ["state.json"]


def test_only_a_regular_file_of_bearable_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_small(str(path), 5) == b"12345"
    with pytest.raises(RepositoryError, match="larger than 4 bytes"):
        files.read_small(str(path), 4)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="symbolic links"):
        files.read_small(str(tmp_path / "link"), 5)
    for name in ("fifo", "."):
        with pytest.raises(RepositoryError, match="not a regular file"):
            files.read_small(str(tmp_path / name), 5)
    with pytest.raises(RepositoryError, match="fifo is not a regular file"):
        files.hash_file(str(tmp_path / "fifo"))


# --- directories ---


def test_a_directory_is_private_and_an_existing_one_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "new"
    files.make_directory(str(path))
    files.make_directory(str(path))
    assert path.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(path)
    for name in ("file", "link"):
        with pytest.raises(RepositoryError, match="is not a directory: move it out of the repository"):
            files.make_directory(str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        files.make_directory(str(tmp_path / "a" / "b"))


def test_publishing_never_replaces_anything(tmp_path: Path) -> None:
    source = tmp_path / ".inprogress-x"
    source.mkdir()
    (source / "file").write_text("new")
    (tmp_path / "empty").mkdir()  # which rename alone would replace
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "link"):
        with pytest.raises(RepositoryError, match="exists already: nothing was replaced"):
            files.publish(str(source), str(tmp_path / name))
    assert list((tmp_path / "empty").iterdir()) == []
    files.publish(str(source), str(tmp_path / "backup"))
    assert (tmp_path / "backup" / "file").read_text() == "new"
    assert not source.exists()


def test_the_files_of_a_tree_are_found_in_order_and_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("c")
    (tmp_path / "a").write_text("a")
    assert files.sync_tree(str(tmp_path)) == [str(tmp_path / "a"), str(tmp_path / "b" / "c")]
    (tmp_path / "b" / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        files.sync_tree(str(tmp_path))


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    (backup / "x.dir").mkdir(parents=True)
    (backup / "x.dir" / "toc.dat").touch()
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").touch()
    (backup / "link").symlink_to(outside)
    files.discard(str(backup), str(tmp_path / ".trash-backup"))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["precious"]
    assert (outside / "file").exists()


def test_a_sweep_takes_real_directories_of_ended_runs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    place = tmp_path / "place"
    place.mkdir()
    for name in (".inprogress-1", ".trash-2", "backup", ".other", "x.inprogress-"):
        (place / name).mkdir()
        (place / name / "file").touch()
    (place / ".inprogress-1" / "link").symlink_to(tmp_path / "outside")
    (place / ".inprogress-link").symlink_to(tmp_path / "outside")
    (place / ".trash-file").touch()
    swept = files.sweep(str(place), (".inprogress-", ".trash-"))
    assert sorted(swept) == [".inprogress-1", ".trash-2"]
    assert sorted(item.name for item in place.iterdir()) == [
        ".inprogress-link", ".other", ".trash-file", "backup", "x.inprogress-",
    ]  # fmt: skip
    assert (tmp_path / "outside" / "file").exists()


def test_free_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    free, total = files.free_space(str(tmp_path))
    assert 0 < free <= total
    assert total == shutil.disk_usage(tmp_path).total
