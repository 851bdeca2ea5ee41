# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Backing up, pruning, verifying and restoring for who may name a job of the host: what was not said is then the job's to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapters import config
from ..adapters.process import Cancellation
from ..domain.model import FromJob, build, options_of
from ..domain.outcomes import BackupResult
from . import backup as backups
from . import prune as prunes
from . import restore as restores
from . import sync as copies
from . import verify as verifications
from .job import prune_job, restore_options, sync_job, verify_job
from .preparation import Clock
from .prune import Pruned
from .restore import Restored
from .sync import Synced
from .target_prune import prune_target
from .verify import Verified

Raw = Mapping[str, Any]
_OWN = [name for name in options_of(FromJob) if name != "repository"]


def _read(raw: Raw) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Given options as a user wrote them, return the job that they name, if any, and what they say besides; raise
    ConfigurationError.
    """
    options = build(FromJob, raw)
    said = {name: value for name, value in raw.items() if name not in _OWN and value is not None}
    return (config.load_job(options.config_dir, options.job) if options.job else None), said


def backup(raw: Raw, check: bool, clock: Clock, cancellation: Cancellation | None = None) -> BackupResult:
    """Given options as a user wrote them, take the backups that they and their job ask for; raise PgkeepError."""
    job, said = _read(raw)
    options = {**(job or {}), **said}
    if job and said.get("databases"):
        options.pop("include", None)  # the job's; names are more exact
    return backups.backup(options, check, clock, cancellation)


def prune(raw: Raw, check: bool, clock: Clock, cancellation: Cancellation | None = None) -> Pruned:
    """Given options as a user wrote them, prune what they say, or the databases of their job; raise PgkeepError."""
    job, said = _read(raw)
    if said.get("target"):
        place = {"config_dir": build(FromJob, raw).config_dir, "repository": (job or {}).get("repository")}
        return prune_target({**place, **said}, check, clock, cancellation)
    if job is None:
        return prunes.prune(said, check, clock, cancellation)
    return prune_job(job, said, check, clock, cancellation)


def sync(raw: Raw, check: bool, clock: Clock, cancellation: Cancellation | None = None) -> Synced:
    """Given options as a user wrote them, bring copies of what they say, or of the databases of their job, to targets;
    raise PgkeepError.
    """
    job, said = _read(raw)
    said["config_dir"] = build(FromJob, raw).config_dir
    if job is None:
        return copies.sync(said, check, clock, cancellation)
    return sync_job(job, said, check, clock, cancellation)


def verify(raw: Raw, check: bool, clock: Clock, cancellation: Cancellation | None = None) -> Verified:
    """Given options as a user wrote them, verify what they say, or the databases of their job; raise PgkeepError."""
    job, said = _read(raw)
    if job is None:
        return verifications.verify(said, check, clock, cancellation)
    return verify_job(job, said, check, clock, cancellation)


def restore(raw: Raw, check: bool, clock: Clock, cancellation: Cancellation | None = None) -> Restored:
    """Given options as a user wrote them, restore the backup that they say, or one of their job's; raise PgkeepError."""
    job, said = _read(raw)
    options = {**(said if job is None else restore_options(job, said)), "config_dir": build(FromJob, raw).config_dir}
    return restores.restore(options, check, clock, cancellation)
