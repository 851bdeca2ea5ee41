# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What every kind of target can do, and which of them does it.

A target keeps what a repository keeps, without states: FOLDER/NAME, where FOLDER is a backup's id. Nothing here decides
what is copied, in which order, or what a copy is worth: services/sync.py does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .archive import File
from .files import hash_file


@dataclass(frozen=True)
class Checked:
    """What a look at a copy found: by which method (sha256, checksum, md5, sample ...), and what is wrong, or ""."""

    method: str
    problem: str = ""


def home_problem(source: str, files: Sequence[File]) -> str:
    """Given a directory of this host and what its files have to be, return what is wrong with the first, or ""."""
    for file in files:
        if hash_file(os.path.join(source, file.path))[1] != file.sha256:
            return altered_at_home(file)
    return ""


def altered_at_home(file: File) -> str:
    """Given a file that has another content at home, return the sentence."""
    return f"{file.path} at home was altered: its SHA-256 is not the manifest's"


class Remote(Protocol):
    """A target that is in use. What fails is raised as PgkeepError, with what to do about it."""

    def files(self, below: str = "") -> dict[str, int]:
        """Given a folder ("" for all), return every file in it: its path in the target, and its size in bytes.

        What is not there yet has none. What a transfer that was cut has left under a temporary name is not a file.
        """

    def put(self, source: str, folder: str, names: Sequence[str]) -> None:
        """Given a directory of this host, a folder and files of the directory, copy these into the folder, durably.

        A file that is there already under its name stays as it is, whatever is in it: `check` tells.
        """

    def check(self, source: str, folder: str, files: Sequence[File]) -> Checked:
        """Given a directory of this host, a folder and what its files have to be, look at those in the folder. Where they
        are only compared with those of this host, these have to be so as well.
        """

    def get(self, folder: str, names: Sequence[str], into: str) -> None:
        """Given a folder, files in it and an existing directory of this host, copy the files there (mode 0600), with the
        folders in their names.
        """

    def get_manifests(self, folders: Sequence[str], into: str) -> None:
        """Given folders and an existing directory of this host, copy the manifest of each to INTO/FOLDER."""

    def delete(self, folder: str, names: Sequence[str]) -> None:
        """Given a folder and all its files, delete them, the manifest first: without it there is no copy. Raise
        LockedCopyError where the target holds on to it.
        """
