# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import repository
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import RepositoryError


def refusal(path: Path | str, create: bool = True) -> str:
    with pytest.raises(RepositoryError) as caught:
        repository.enter(str(path), create)
    return str(caught.value)


def test_a_new_repository_is_private(tmp_path: Path) -> None:
    path = tmp_path / "repository"
    assert repository.enter(str(path), create=False) is False
    assert not path.exists()
    assert repository.enter(str(path) + "/", create=True) is True
    assert path.stat().st_mode & 0o777 == 0o700
    assert repository.enter(str(path), create=False) is True
    (path / "file").touch()
    assert (path / "file").stat().st_mode & 0o777 == 0o600  # by umask, from now on


def test_what_is_not_safe_is_refused_with_what_helps(tmp_path: Path) -> None:
    assert "is not an absolute path" in refusal("relative/path")
    assert "create the directory that shall hold the repository" in refusal(tmp_path / "no" / "parent")
    (tmp_path / "file").touch()
    assert "is not a directory: set `repository` to a directory" in refusal(tmp_path / "file")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert f"is a symbolic link: set `repository` to what it points to, {tmp_path}/real" in refusal(tmp_path / "link")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    assert f"has mode 0755, others can get at the backups: chmod 0700 {tmp_path}/open" in refusal(tmp_path / "open")
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o777)
    assert f"chmod o-w {tmp_path}/public" in refusal(tmp_path / "public" / "repository")
    (tmp_path / "public").chmod(0o1777)
    assert repository.enter(str(tmp_path / "public" / "repository"), create=True)


@pytest.mark.needs_root
def test_root_is_given_up_only_for_a_repository_of_somebody_else(tmp_path: Path) -> None:
    for name, owner in (("ours", "root"), ("theirs", "nobody")):
        (tmp_path / name).mkdir()
        shutil.chown(tmp_path / name, owner)
    (tmp_path / "file").touch()
    shutil.chown(tmp_path / "file", "nobody")
    names = ("ours", "theirs", "file", "missing")
    assert [repository.gives_up_root(str(tmp_path / name)) for name in names] == [False, True, False, False]


def test_a_repository_is_read_wherever_it_is_and_whatever_its_mode(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir(mode=0o755)
    assert repository.open_for_reading(f"{tmp_path}/copy/") == f"{tmp_path}/copy"
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        with pytest.raises(RepositoryError, match="is not a directory: check `repository`"):
            repository.open_for_reading(f"{tmp_path}/{name}")


def test_the_directory_of_a_database_is_made_private_and_never_reached_through_a_link(tmp_path: Path) -> None:
    path = repository.database_directory(str(tmp_path), "main", "database", "a/b", create=False)
    assert path == f"{tmp_path}/main/a%2Fb"
    assert not (tmp_path / "main").exists()
    assert repository.database_directory(str(tmp_path), "main", "database", "a/b", create=True) == path
    assert {item.stat().st_mode & 0o777 for item in (tmp_path / "main", Path(path))} == {0o700}
    assert repository.database_directory(str(tmp_path), "main", "globals", None, create=True).endswith("/main/@globals")
    (tmp_path / "main" / "shop").symlink_to("/etc")
    (tmp_path / "other").symlink_to("/etc")
    for instance in ("main", "other"):
        for create in (True, False):
            with pytest.raises(RepositoryError, match="move it out of the repository"):
                repository.database_directory(str(tmp_path), instance, "database", "shop", create)
