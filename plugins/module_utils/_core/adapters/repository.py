# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Access to a repository: the right user, the right owner and mode, and nothing that could lead elsewhere."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ..domain.errors import RepositoryError
from ..domain.naming import directory
from .files import describe, make_directory


def become_owner(path: str) -> None:
    """Given a repository, drop from root to its owner (for good), so that nothing it holds can be used against root.

    Without root, or where root owns it, nothing changes. Peer authentication then sees the owner as well.
    """
    place = _of_another(path)
    if not place:
        return
    try:
        entry = pwd.getpwuid(place.st_uid)
        os.initgroups(entry.pw_name, entry.pw_gid)
        group = entry.pw_gid
        os.environ["HOME"] = entry.pw_dir
    except KeyError:  # an owner without an account: only its number is known
        os.setgroups([])
        group = place.st_gid
    os.setresgid(group, group, group)
    os.setresuid(place.st_uid, place.st_uid, place.st_uid)


@contextmanager
def as_owner(path: str) -> Iterator[None]:
    """Given a repository that is only read, do what is inside as its owner, as `become_owner` does, and be root again
    afterwards. No other thread may be at work.
    """
    place = _of_another(path)
    if not place:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        os.setgroups([])
        os.setegid(place.st_gid)
        os.seteuid(place.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def gives_up_root(path: str) -> bool:
    """Given a repository, return whether working on it drops from root to its owner."""
    return _of_another(path) is not None


def _of_another(path: str) -> os.stat_result | None:
    """Given a repository, return its status when we are root and somebody else owns it."""
    try:
        status = os.stat(path)
    except OSError:
        return None  # `enter` says what is wrong
    return status if os.geteuid() == 0 != status.st_uid and stat.S_ISDIR(status.st_mode) else None


def _check_place(path: str) -> None:
    parent = os.path.dirname(path)
    try:
        status = os.stat(parent)
    except OSError as error:
        raise RepositoryError(
            f"{parent}: {error.strerror}: create the directory that shall hold the repository"
        ) from None
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise RepositoryError(
            f"everybody may write to {parent}, so anybody could replace the repository in it: chmod o-w {parent}"
        )


def _check_owner(path: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise RepositoryError(
            f"the repository {path} is a symbolic link: set `repository` to what it points to, {os.path.realpath(path)}"
        )
    if not stat.S_ISDIR(status.st_mode):
        raise RepositoryError(f"the repository {path} is not a directory: set `repository` to a directory")
    if status.st_uid != os.geteuid():
        raise RepositoryError(
            f"the repository {path} belongs to user {_user(status.st_uid)}, this runs as {_user(os.geteuid())}: run it"
            " as the owner or as root, or change the owner"
        )
    if status.st_mode & 0o077:
        raise RepositoryError(
            f"the repository {path} has mode {stat.S_IMODE(status.st_mode):04o}, others can get at the backups:"
            f" chmod 0700 {path}"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def enter(path: str, create: bool) -> bool:
    """Given a repository that will be written to, make sure that this is safe; return whether it exists.

    With `create` it is made (0700) where it is missing, otherwise a missing one is reported as False. Raise
    RepositoryError with the command that helps.
    """
    os.umask(0o077)
    if not os.path.isabs(path):
        raise RepositoryError(f"the repository {path} is not an absolute path: write it from / on")
    path = os.path.normpath(path)
    become_owner(path)
    _check_place(path)
    try:
        if create and not os.path.lexists(path):
            make_directory(path)
        status = os.lstat(path)
    except FileNotFoundError:
        if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            raise RepositoryError(
                f"{os.path.dirname(path)} is not writable for {_user(os.geteuid())}: create {path} for it"
            ) from None
        return False
    except OSError as error:
        raise describe(error, f"creating the repository {path}") from None
    _check_owner(path, status)
    if not os.access(path, os.W_OK | os.X_OK):
        raise RepositoryError(f"the repository {path} is not writable: is its file system mounted read-only?")
    return True


def open_for_reading(path: str) -> str:
    """Given a repository, or a copy of one, that will only be read, return its normal path; raise RepositoryError."""
    become_owner(path)
    path = os.path.normpath(path)
    try:
        if not os.path.isdir(path):
            raise RepositoryError(f"the repository {path} is not a directory: check `repository`")
        os.listdir(path)
    except OSError as error:
        raise RepositoryError(f"the repository {path} cannot be read: {error.strerror}") from None
    return path


def database_directory(repository: str, instance: str, kind: str, database: str | None, create: bool) -> str:
    """Given a database of an instance, return its directory in the repository, made if asked; raise RepositoryError."""
    path = repository
    for name in (instance, directory(kind, database)):
        path = os.path.join(path, name)
        if create:
            try:
                make_directory(path)
            except OSError as error:
                raise describe(error, f"creating {path}") from None
        elif os.path.islink(path):
            raise RepositoryError(f"{path} is a symbolic link: move it out of the repository")
    return path


def owner(path: str) -> str:
    """Given a repository, return the user that it belongs to; raise RepositoryError."""
    try:
        return _user(os.stat(path).st_uid)
    except OSError as error:
        raise RepositoryError(f"the repository {path} cannot be read: {error.strerror}") from None
