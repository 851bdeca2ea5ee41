# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The files of a configuration as they are on the host, and putting others in their place, one atomic step for each."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..domain.errors import ConfigurationError
from . import config, files

_UNKNOWN = -1  # of a user that is not there yet


@dataclass(frozen=True)
class Access:
    """Who may do what with a file or a directory."""

    mode: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{_user_name(self.uid)}:{_group_name(self.gid)} {self.mode:04o}"


@dataclass(frozen=True)
class File:
    """A file, as it is or as it shall be."""

    text: str = field(repr=False)
    access: Access
    is_link: bool = False


@dataclass(frozen=True)
class Account:
    """The user that runs the jobs, and the group that may read the configuration."""

    name: str
    uid: int
    gid: int
    top: int  # who owns what that user shall not change


def account(owner: str, group: str | None, may_come: bool) -> tuple[Account, list[str]]:
    """Given names of a user and a group, return them and warnings; raise ConfigurationError.

    Only root can write for others. With `may_come` (check mode) who is not there yet is a warning, because a real run
    may create them first.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        _check_own(owner, group)
        return Account(owner, uid, gid, uid), []
    warnings: list[str] = []
    try:
        entry = pwd.getpwnam(owner)
        uid, gid = entry.pw_uid, entry.pw_gid
    except KeyError:
        _missing(f"owner is {owner!r}, but there is no such user", may_come, warnings)
        uid = gid = _UNKNOWN
    try:
        gid = grp.getgrnam(group).gr_gid if group else gid
    except KeyError:
        _missing(f"group is {group!r}, but there is no such group", may_come, warnings)
        gid = _UNKNOWN
    if _UNKNOWN not in (uid, gid) and uid != 0 and gid not in os.getgrouplist(owner, entry.pw_gid):
        raise ConfigurationError(
            f"group is {group!r}, but {owner!r} is not in it and could not read the configuration: add the user to the"
            " group, or leave group out"
        )
    return Account(owner, uid, gid, 0), warnings


def _check_own(owner: str, group: str | None) -> None:
    for option, given, own in (
        ("owner", owner, _user_name(os.geteuid())),
        ("group", group, _group_name(os.getegid())),
    ):
        if given not in (own, None):
            raise ConfigurationError(
                f"{option} is {given!r}, but this runs as {own!r}, who can write for nobody else: use become, or set"
                f" {option} to {own!r}"
            )


def _missing(sentence: str, may_come: bool, warnings: list[str]) -> None:
    if not may_come:
        raise ConfigurationError(f"{sentence}: create it first")
    warnings.append(f"{sentence} yet")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


@contextmanager
def rights_of(user: Account) -> Iterator[None]:
    """Given a user, do as root what follows with that user's rights alone: in the user's own directories everything may
    be a trap, a link to a place that only root can write to.
    """
    if os.geteuid() != 0 or user.uid <= 0:
        yield
        return
    groups = os.getgroups()
    try:
        os.initgroups(user.name, user.gid)
        os.setegid(user.gid)
        os.seteuid(user.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(groups)


# --- reading ---


def directory_access(path: str) -> Access | None:
    """Given a path, return who may do what in the directory there, None where there is none; raise ConfigurationError."""
    status = _status(path)
    if status and stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"{path} is a symbolic link: name the directory that it leads to, or move it away")
    if status and not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{path} is not a directory: move it away")
    return _access(status) if status else None


def entries(directory: str) -> list[str]:
    """Given a directory, return the names in it, sorted, none where it is not there; raise ConfigurationError."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be read: {error.strerror}") from None


def read_file(path: str) -> File | None:
    """Given a path, return the file there, None where there is none; raise ConfigurationError where it cannot be used."""
    if not _status(path):
        return None
    try:
        text, status = config.read(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}: repair it, or move it away") from None
    return File(text, _access(status), os.path.islink(path))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _access(status: os.stat_result) -> Access:
    return Access(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


# --- writing ---


def make_directory(path: str, access: Access) -> None:
    """Given a path whose parent exists, make the directory, or change who may do what in it; raise ConfigurationError."""
    try:
        try:
            os.mkdir(path, 0o700)
            files.sync_directory(os.path.dirname(path))
        except FileExistsError:
            pass
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _set(fd, access)
        finally:
            os.close(fd)
    except OSError as error:
        raise _failure(error, path, "made") from None


def write(path: str, file: File, unique: str) -> None:
    """Given a path, put the file there, whatever there is; raise ConfigurationError. `unique` names the temporary file
    beside it, which is hidden: a reader sees what was there before, and then all of the new.
    """
    temporary = os.path.join(os.path.dirname(path), files.NEW_PREFIX + unique)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            try:
                files.write_all(fd, file.text.encode())
                _set(fd, file.access)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        files.sync_directory(os.path.dirname(path))
    except OSError as error:
        raise _failure(error, path, "written") from None


def keep(path: str, copy: str) -> None:
    """Given a file and a free name beside it, give it that name as well, so that it stays when its own is taken; raise
    ConfigurationError.
    """
    try:
        os.link(path, copy, follow_symlinks=False)
    except OSError as error:
        raise _failure(error, copy, "written") from None


def remove(path: str) -> None:
    """Given a file, or an empty directory, remove it; raise ConfigurationError."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)
        files.sync_directory(os.path.dirname(path))
    except OSError as error:
        raise _failure(error, path, "removed") from None


def _set(fd: int, access: Access) -> None:
    os.fchown(fd, access.uid, access.gid)
    os.fchmod(fd, access.mode)  # last: a change of the owner takes bits away


def _failure(error: OSError, path: str, verb: str) -> ConfigurationError:
    cures = {
        errno.ENOENT: f"create {os.path.dirname(path)} first",
        errno.ENOSPC: "free some space",
        errno.ELOOP: "it is a symbolic link: move it away",
        errno.ENOTDIR: "something else has its name: move it away",
        errno.EROFS: "its file system is mounted read-only",
        errno.ENOTEMPTY: "look at what came into it meanwhile",
    }
    cure = cures.get(error.errno or 0, f"check owner and mode of {os.path.dirname(path)}")
    return ConfigurationError(f"{path} cannot be {verb} ({error.strerror}): {cure}, and run this again")
