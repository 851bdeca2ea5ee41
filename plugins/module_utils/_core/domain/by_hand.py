# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Jobs that people wrote by hand beside those of Ansible: what would change behind their back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .job import policy_of
from .model import DumpOptions, Location, Selection, build
from .schema import REMARKS
from .selection import covers

Options = Mapping[str, Any]


def defaults_problems(before: Options, after: Options, by_hand: Mapping[str, Options]) -> Iterator[str]:
    """Given the defaults of before, those of afterwards and jobs written by hand, by name, yield a sentence for each job
    for which options would have another value, because only the defaults of before say it.
    """
    for name, job in by_hand.items():
        lost = sorted(
            key
            for key, value in before.items()
            if key not in REMARKS and key not in job and value is not None and after.get(key) != value
        )
        if lost:
            yield (
                f"the job {name}, which was written by hand, takes {', '.join(lost)} from defaults.json, which was written by"
                f" hand too and would give way: say the same in the new defaults, or in the job"
            )


def retention_problems(by_hand: Mapping[str, Options], others: Mapping[str, Options]) -> Iterator[str]:
    """Given complete jobs by name, those written by hand and others, yield a sentence for each pair of which one would
    delete backups that the other keeps.
    """
    for name, job in by_hand.items():
        for other_name, other in others.items():
            if build(Location, job) == build(Location, other) and _overlap(job, other):
                one, two = vars(policy_of(job)), vars(policy_of(other))
                differing = sorted(key for key in one if (one[key] or None) != (two[key] or None))
                if differing:
                    yield (
                        f"the jobs {name}, which was written by hand, and {other_name} have repository, instance and"
                        f" databases in common, and one would delete what the other keeps: they differ in"
                        f" {', '.join(differing)}: give both the same rules, or {other_name} another repository or instance"
                    )


def _overlap(one: Options, two: Options) -> bool:
    """Given two jobs of one instance, return whether both may have a database, or the globals."""
    if build(DumpOptions, one).globals and build(DumpOptions, two).globals:
        return True
    selections = (build(Selection, one), build(Selection, two))
    listed = next((item.databases for item in selections if item.databases and not item.include), None)
    return listed is None or any(all(covers(item, name) for item in selections) for name in listed)
