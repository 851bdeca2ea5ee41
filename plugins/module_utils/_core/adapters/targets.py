# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which code speaks to which type of target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..domain.errors import ConfigurationError
from ..domain.model import Target
from ..domain.targets import target_problems
from . import target_rclone
from .process import Cancellation
from .remote import Remote

# Not when they are needed: a module that has given up root could not read its own code any more.
from .target_directory import Directory
from .target_rsync import Rsync


@contextmanager
def connect(name: str, target: Target, cancellation: Cancellation) -> Iterator[Remote]:
    """Given a target's name, the target and what asks the work to end, yield it ready for use; raise PgkeepError."""
    problems = target_problems(vars(target))
    if problems:
        raise ConfigurationError(f"target {name}: {'; '.join(problems)}")
    if target.type == "directory":
        directory = Directory(target, cancellation)
        directory.connect()
        yield directory
        return
    if target.type == "rsync":
        yield Rsync(target, cancellation)
        return
    with target_rclone.connected(target, cancellation) as remote:
        yield remote
