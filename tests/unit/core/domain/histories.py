# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups and policies to test with: single ones by hand, and whole histories for hypothesis."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import naming
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Copy, Pin, State
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import RULES, Policy
from hypothesis import strategies as st

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)


def moment(text: str) -> datetime:
    """Given "2025-11-05" or "2025-11-05 14:30", return that time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def a_backup(created: datetime | str = NOW, **changes: Any) -> Backup:
    """Return a complete full backup of main/shop, but for what is said; a pin and such go into its state, copies as the
    names of their targets.
    """
    created = moment(created) if isinstance(created, str) else created
    state = {key: changes.pop(key) for key in ("pin", "copies", "levels", "failure") if key in changes}
    state["copies"] = tuple(Copy(target, NOW, "sha256") for target in state.get("copies", ()))
    instance = changes.get("instance", "main")
    kind = changes.get("kind", "database")
    database = changes.setdefault("database", "shop" if kind == "database" else None)
    backup_id = changes.pop("id", None) or naming.backup_id(instance, kind, database, created)
    values: dict[str, Any] = {
        "id": backup_id,
        "instance": instance,
        "kind": kind,
        "created": created,
        "finished": created + timedelta(seconds=4),
        "duration": timedelta(seconds=4),
        "size": 1000,
        "database_size": None,
        "format": "custom",
        "compression": "zstd:1",
        "encryption": None,
        "partial": False,
        "label": None,
        "server_version": "15.18",
        "options": "0",
        "path": f"/repository/{backup_id}",
        "state": State(**state),
        "problem": "",
    }
    return Backup(**{**values, **changes})


# --- hypothesis ---

# Around these, periods are not what they seem: both changes of summer time in Berlin, its change in St. John's at one
# minute past midnight, Samoa's missing day, leap days, ISO weeks 53 and 1, year ends.
_ANCHORS = [
    moment(text)
    for text in (
        "2024-10-27 01:00", "2025-03-30 01:00", "2009-11-01 02:31", "2011-12-30 10:00", "2024-02-29 12:00",
        "2000-02-29", "2100-02-28 23:59", "2020-12-31 23:00", "2021-01-03 23:59", "2024-12-30", "2025-11-05 14:30",
    )
]  # fmt: skip
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe", "Asia/Kathmandu"]

_distances = st.one_of(
    st.integers(-5 * 60, 5 * 60).map(lambda minutes: timedelta(minutes=minutes)),
    st.integers(-40, 40).map(lambda days: timedelta(days=days)),
    st.integers(-40 * 86400, 40 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(-4 * 366, 366).map(lambda days: timedelta(days=days)),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Backup], datetime]:
    """Draw backups of several databases and instances, in any order, and the time of the prune.

    Some are partial, damaged, pinned or of the future, and time runs backwards as well as forwards.
    """
    now = draw(st.sampled_from(_ANCHORS)) + draw(_distances)
    pins = st.one_of(
        st.none(),
        st.none(),
        st.just(Pin("kept by hand")),
        _distances.map(lambda distance: Pin("till then", now + distance)),
    )
    backups = st.builds(
        lambda subject, before, partial, problem, pin, copies: a_backup(
            now - before, **subject, partial=partial, problem=problem, pin=pin, copies=copies
        ),
        st.sampled_from(
            [
                {},
                {},
                {"database": "shop2"},
                {"database": "@globals"},
                {"kind": "globals"},
                {"instance": "other"},
            ]
        ),
        st.one_of(_distances, _distances.map(abs), st.just(timedelta())),
        st.sampled_from([False, False, False, True]),
        st.sampled_from(["", "", "", "", "shop.dump is missing"]),
        pins,
        st.sampled_from([(), ("nas",), ("nas", "s3"), ("nas", "nas")]),
    )
    return draw(st.lists(backups, max_size=40, unique_by=lambda backup: backup.id)), now


_counts = st.one_of(st.none(), st.integers(0, 5))


def policies(brakes: bool = False) -> st.SearchStrategy[Policy]:
    """Return a strategy for policies with at least one rule, and without brakes unless they are asked for."""
    more = (
        {"max_deletions": st.one_of(st.none(), st.integers(1, 4)), "require_copies": st.integers(0, 2)}
        if brakes
        else {}
    )
    return st.builds(
        Policy,
        **{rule: st.one_of(st.none(), st.integers(0, 60)) if rule == "keep_days" else _counts for rule in RULES},
        limit_mode=st.sampled_from(["either", "both"]),
        keep_minimum=st.integers(1, 4),
        timezone=st.sampled_from(ZONES),
        **more,
    ).filter(lambda policy: policy.has_rules)
