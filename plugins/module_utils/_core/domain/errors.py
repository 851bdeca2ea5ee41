# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""Every failure that a person can act on; each front translates the root class once."""

from __future__ import annotations

DONE, FAILED, USAGE, LOCKED, SOME_FAILED = 0, 1, 2, 3, 4


class PgkeepError(Exception):
    """A failure with what happened, and (after ": ") what to do next. Its exit code is the command's."""

    exit_code = FAILED


class ConfigurationError(PgkeepError):
    """An option, a configuration file or a command line that cannot be used."""

    exit_code = USAGE


class LockedError(PgkeepError):
    """Another run holds the lock of this database."""

    exit_code = LOCKED


class ServerError(PgkeepError):
    """The server refused, is not there, or went away."""


class ToolError(PgkeepError):
    """No usable client program, or one that ended badly."""


class DecryptionError(ToolError):
    """This host cannot decrypt a backup: no program, no identity, or another one. It says nothing about the backup."""


class LockedCopyError(ToolError):
    """A copy that its target holds on to: object lock, a retention period or a lifecycle rule."""


class RepositoryError(PgkeepError):
    """The repository cannot be used safely."""


class SpaceError(PgkeepError):
    """Not enough free space for the backup and the reserve."""


class ManifestError(PgkeepError):
    """A manifest that cannot be believed; the message is the reason alone."""


class Interrupted(PgkeepError):
    """The run was ended from outside. Given a signal number, the exit code is 128 + it, as a shell reports it."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
