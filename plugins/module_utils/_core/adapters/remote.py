# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What every kind of target can do, and which of them does it.

A target keeps what a repository keeps, without states: FOLDER/NAME, where FOLDER is a backup's id. Nothing here decides
what is copied, in which order, or what a copy is worth: services/sync.py does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .archive import File


@dataclass(frozen=True)
class Checked:
    """What a look at a copy found: by which method (sha256, checksum, md5, sample ...), and what is wrong, or ""."""

    method: str
    problem: str = ""


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
        """Given a directory of this host, a folder and what its files have to be, look at those in the folder."""

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
