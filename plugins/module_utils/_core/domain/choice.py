# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which backup is meant."""

from __future__ import annotations

from collections.abc import Sequence

from .backups import Backup
from .errors import ConfigurationError, RepositoryError
from .model import Choice
from .quantities import iso

_SHOWN = 5


def choose(backups: Sequence[Backup], choice: Choice) -> Backup:
    """Given the backups of a repository and what was said, return the one that is meant; raise ConfigurationError or
    RepositoryError with what there is instead.
    """
    if choice.backup != "latest":
        return _by_id(backups, choice)
    known = [item for item in backups if choice.instance in (None, item.instance)]
    place = f" of instance {choice.instance!r}" if choice.instance else ""
    if backups and not known:
        there = _some(sorted({item.instance for item in backups}))
        raise RepositoryError(f"there are no backups{place}: the repository has those of {there}")
    name = choice.database or _only([item.title for item in known], "database", "database")
    ours = [item for item in known if item.title == name]
    if not ours:
        there = _some(sorted({item.title for item in known}))
        raise RepositoryError(
            f"there is no backup of {name!r}{place}: the repository has those of {there or 'nothing'}"
        )
    instance = choice.instance or _only([item.instance for item in ours], "instance", f"backups of {name!r}, instance")
    ours = [item for item in ours if item.instance == instance]
    if len({item.kind for item in ours}) > 1:
        raise ConfigurationError(f"{name!r} are the globals and a database of that name: set `backup` to an id")
    usable = [item for item in ours if _fits(item, choice)]
    if not usable:
        raise RepositoryError(f"none of the {len(ours)} backups of {name!r} fits: {_why_not(ours, choice)}")
    return max(usable, key=lambda item: (item.created, item.id))


def nearest(clusters: Sequence[Backup], backup: Backup) -> Backup | None:
    """Given backups of globals and one of a database, return that of the same instance which was taken nearest to it."""
    ours = [item for item in clusters if item.kind == "globals" and item.complete and item.instance == backup.instance]
    return min(ours, key=lambda item: (abs(item.created - backup.created), item.id), default=None)


def _by_id(backups: Sequence[Backup], choice: Choice) -> Backup:
    found = [item for item in backups if choice.backup in (item.id, item.id.rpartition("/")[2])]
    found = [item for item in found if choice.instance in (None, item.instance)]
    found = [item for item in found if choice.database in (None, item.title)]
    if not found:
        raise RepositoryError(f"there is no backup {choice.backup!r}: use an id of `pgkeep list`, or `latest`")
    if len(found) > 1:
        raise ConfigurationError(
            f"{choice.backup!r} are several backups: give the whole id, such as {_some([item.id for item in found])}"
        )
    # Whoever names one that failed a verification may have no other. It is still looked at byte by byte.
    if not found[0].complete and not found[0].state.failure:
        raise RepositoryError(f"{found[0].id} is damaged: {found[0].problem}: choose another backup")
    return found[0]


def _fits(item: Backup, choice: Choice) -> bool:
    return (
        item.complete
        and (choice.partial or not item.partial)
        and (not choice.verified or item.state.verified is not None)
        and (choice.label is None or item.label == choice.label)
        and (choice.before is None or item.created < choice.before)
    )


def _why_not(backups: Sequence[Backup], choice: Choice) -> str:
    """Given backups of which none fits, return how many each condition leaves out."""
    reasons = (
        ("damaged", sum(not item.complete for item in backups)),
        ("partial (set `partial` to allow them)", sum(item.partial for item in backups if not choice.partial)),
        ("never verified", sum(item.state.verified is None for item in backups if choice.verified)),
        (f"without label {choice.label!r}", sum(item.label != choice.label for item in backups if choice.label)),
        (
            f"not before {iso(choice.before)}" if choice.before else "",
            sum(item.created >= choice.before for item in backups) if choice.before else 0,
        ),
    )
    return ", ".join(f"{number} {reason}" for reason, number in reasons if number)


def _only(names: Sequence[str], option: str, what: str) -> str:
    there = sorted(set(names))
    if len(there) == 1:
        return there[0]
    if not there:
        raise RepositoryError("there are no backups: check the repository's path")
    raise ConfigurationError(f"{what} is not set, and there are {_some(there)}: set `{option}`")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
