# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories that cannot be used safely: refused with the command that helps, and nothing in or beside them changes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.samples import tree
from tests.keeper import Done, Keeper, assert_untouched, manifests, snapshot

AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user of this machine can reach, unlike pytest's."""
    directory = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """Given a directory to make and mount options, mount an empty file system there as long as the block runs."""
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(["mode=0700", *options]), "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def refused(done: Done, *parts: str) -> None:
    """Given what a command did, assert that it failed with one message that has each of the parts."""
    assert done.code == 1, done
    (line,) = done.err.splitlines()
    assert line.startswith("pgkeep: error: ")
    for part in parts:
        assert part in line


def make_symlink(path: Path) -> None:
    (path.parent / "real").mkdir(mode=0o700)
    path.symlink_to(path.parent / "real")


def make_missing_parent(path: Path) -> None:
    path.parent.rmdir()


def make_open_parent(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.parent.chmod(0o777)


BAD: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "symbolic link": (make_symlink, ("is a symbolic link", "set `repository` to what it points to", "/real")),
    "file": (lambda path: path.write_text("mine"), ("is not a directory",)),
    "device": (lambda path: path.symlink_to("/dev/null"), ("is a symbolic link",)),
    "dangling link": (lambda path: path.symlink_to("/nonexistent"), ("is a symbolic link",)),
    "readable by the group": (lambda path: path.mkdir(mode=0o750), ("has mode 0750", "chmod 0700")),
    "readable by the world": (lambda path: path.mkdir(mode=0o705), ("has mode 0705", "chmod 0700")),
    "no parent": (make_missing_parent, ("No such file or directory", "create the directory")),
    "parent open to everybody": (make_open_parent, ("everybody may write to", "chmod o-w")),
}


@pytest.mark.parametrize("make", [make for make, _unused in BAD.values()], ids=list(BAD))
def test_a_repository_that_is_not_safe_is_refused_with_what_helps(
    keeper: Keeper, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    place = tmp_path / "parent" / "repository"
    place.parent.mkdir()
    make(place)
    keeper.repository = place
    parts = next(parts for other, parts in BAD.values() if other is make)
    before = tree(tmp_path)
    refused(keeper.backup(), *parts)
    refused(keeper.backup("--dry-run"), *parts)
    assert tree(tmp_path) == before


def test_a_relative_path_is_refused(keeper: Keeper) -> None:
    keeper.repository = Path("backups")
    refused(keeper.backup(), "backups is not an absolute path")


def test_a_parent_with_the_sticky_bit_is_fine(keeper: Keeper, tmp_path: Path) -> None:
    place = tmp_path / "parent" / "repository"
    place.parent.mkdir()
    place.parent.chmod(0o1777)
    keeper.repository = place
    assert keeper.backup().code == 0
    assert_untouched(place, {}, new=1)


@pytest.mark.needs_root
def test_a_repository_of_another_user_is_refused_but_root_becomes_its_owner(keeper: Keeper, public: Path) -> None:
    keeper.repository = public / "repository"
    keeper.repository.mkdir(mode=0o700)
    before = tree(public)
    refused(
        keeper.backup(prefix=AS_NOBODY), "belongs to user root, this runs as nobody", "run it as the owner or as root"
    )
    refused(keeper.run("list", prefix=AS_NOBODY), "cannot be read: Permission denied")
    assert tree(public) == before
    shutil.chown(keeper.repository, "nobody", "nogroup")
    assert keeper.backup().code == 0
    assert {path.owner() for path in keeper.repository.rglob("*")} == {"nobody"}
    assert keeper.backup(prefix=AS_NOBODY).code == 0
    assert_untouched(keeper.repository, {}, new=2, server=keeper.server)


@pytest.mark.needs_root
def test_a_repository_that_its_owner_may_not_write_to_is_refused(keeper: Keeper, public: Path) -> None:
    keeper.repository = public / "repository"
    refused(
        keeper.backup(prefix=AS_NOBODY),
        f"not permitted while creating the repository {keeper.repository}",
        "Permission",
    )
    refused(keeper.backup("--dry-run", prefix=AS_NOBODY), f"{public} is not writable for nobody", "create")
    keeper.repository.mkdir(mode=0o500)
    shutil.chown(keeper.repository, "nobody", "nogroup")
    refused(keeper.backup(prefix=AS_NOBODY), f"{keeper.repository} is not writable")


@pytest.mark.needs_root
def test_a_read_only_file_system_is_said_to_be_one_and_can_be_listed(keeper: Keeper, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        keeper.repository = disk / "repository"
        assert [keeper.backup().code, keeper.backup().code] == [0, 0]
        before = snapshot(keeper.repository)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        refused(keeper.backup(), "is not writable: is its file system mounted read-only?")
        pruned = keeper.run("prune", "--keep-last=1")
        refused(pruned, "mounted read-only?")
        assert keeper.run("prune", "--keep-last=1", "--dry-run").code == 0
        assert len(keeper.listed()) == 2
        assert_untouched(keeper.repository, before)


@pytest.mark.needs_root
@pytest.mark.needs_programs("chattr")
def test_an_append_only_directory_costs_nothing_but_the_new_backup(keeper: Keeper, tmp_path: Path) -> None:
    assert keeper.backup().code == 0
    before = snapshot(keeper.repository)
    folder = keeper.repository / "main" / "postgres"
    if subprocess.run(["chattr", "+a", folder], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no append-only attribute")
    try:
        refused(keeper.backup(), "postgres: not permitted while", "check owner, mode and mount options")
    finally:
        subprocess.run(["chattr", "-a", folder], check=True)
    assert keeper.backup().code == 0
    assert_untouched(keeper.repository, before, new=1)


# --- what lies inside ---


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory that a careless program would follow a link to."""
    directory = tmp_path / "precious"
    directory.mkdir()
    (directory / "only copy").write_text("precious")
    (directory / ".inprogress-1").mkdir()
    (directory / ".inprogress-1" / "too").write_text("precious")
    return directory


@pytest.mark.parametrize("level", ["main", "main/postgres"])
def test_a_linked_folder_is_never_followed(keeper: Keeper, precious: Path, level: str) -> None:
    keeper.repository.mkdir(mode=0o700)
    place = keeper.repository / level
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.symlink_to(precious)
    before = tree(precious)
    refused(keeper.backup(), f"postgres: {place} is not a directory", "move it out of the repository")
    assert keeper.run("prune", "--keep-last=1").code == 0
    assert keeper.listed() == []
    assert tree(precious) == before


@pytest.mark.parametrize("name", [".inprogress-x", ".trash-x"])
def test_a_link_with_the_name_of_our_own_litter_is_never_followed(keeper: Keeper, precious: Path, name: str) -> None:
    assert [keeper.backup().code, keeper.backup().code] == [0, 0]
    link = keeper.repository / "main/postgres" / name
    link.symlink_to(precious)
    inside = keeper.repository / "main/postgres/.inprogress-real"
    inside.mkdir()
    (inside / "link").symlink_to(precious)
    before = tree(precious)
    assert keeper.backup().code == 0
    assert keeper.run("prune", "--keep-last=1").code == 0
    assert not inside.exists()
    assert link.is_symlink()
    assert tree(precious) == before
    assert len(manifests(keeper.repository)) == 1


def link_lock(lock: Path, precious: Path) -> None:
    lock.symlink_to(precious / "only copy")


def hard_link_lock(lock: Path, precious: Path) -> None:
    lock.hardlink_to(precious / "only copy")


LOCKS = {
    "symbolic link": link_lock,
    "hard link": hard_link_lock,
    "fifo": lambda lock, _unused: os.mkfifo(lock),
    "directory": lambda lock, _unused: lock.mkdir(),
}


@pytest.mark.parametrize("make", LOCKS.values(), ids=list(LOCKS))
def test_a_lock_file_that_is_none_is_refused_and_nothing_is_written_to_it(
    keeper: Keeper, precious: Path, make: Callable[[Path, Path], object]
) -> None:
    assert [keeper.backup().code, keeper.backup().code] == [0, 0]
    before = snapshot(keeper.repository)
    lock = keeper.repository / "main/postgres/.lock"
    lock.unlink()
    make(lock, precious)
    untouched = tree(precious)
    for done in (keeper.backup(), keeper.run("prune", "--keep-last=1"), keeper.backup("--dry-run")):
        assert done.code == 1
        assert f"{lock} is not a file of pgkeep: move it out of the repository" in done.err
    assert tree(precious) == untouched
    if lock.is_dir() and not lock.is_symlink():
        lock.rmdir()
    else:
        lock.unlink()
    assert_untouched(keeper.repository, before)


def test_files_are_private_whatever_the_umask(keeper: Keeper) -> None:
    for form in ("custom", "directory", "plain"):
        done = keeper.backup(f"--format={form}", prefix=("sh", "-c", 'umask 000; exec "$@"', "sh"))
        assert done.code == 0
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in keeper.repository.rglob("*")}
    assert modes == {(True, 0o700), (False, 0o600)}
