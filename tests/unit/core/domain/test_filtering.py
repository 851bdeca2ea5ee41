# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Pin
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.filtering import folder_wanted, matches
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Filter, Scope, build

from .histories import NOW, a_backup, moment

MARKED = a_backup("2025-11-05 12:00", label="x", pin=Pin("why", moment("2025-11-06")), levels={"archive": NOW})
PLAIN = a_backup("2025-11-04", database="other", instance="second")
DAMAGED = a_backup("2025-11-03", problem="cut")
GLOBALS = a_backup("2025-11-02", kind="globals")
EVERYTHING = (MARKED, PLAIN, DAMAGED, GLOBALS)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, EVERYTHING),
        ({"instance": "second"}, (PLAIN,)),
        ({"databases": ["shop"]}, (MARKED, DAMAGED)),
        ({"databases": ["shop", "@globals"]}, (MARKED, DAMAGED, GLOBALS)),
        ({"label": "x"}, (MARKED,)),
        ({"label": "y"}, ()),
        ({"before": "2025-11-04"}, (DAMAGED, GLOBALS)),
        ({"after": "2025-11-04"}, (MARKED, PLAIN)),
        ({"after": "2025-11-03", "before": "2025-11-04"}, (DAMAGED,)),
        ({"complete": True}, (MARKED, PLAIN, GLOBALS)),
        ({"complete": False}, (DAMAGED,)),
        ({"verified": True}, (MARKED,)),
        ({"verified": False}, (PLAIN, DAMAGED, GLOBALS)),
        ({"pinned": True}, (MARKED,)),
        ({"pinned": False}, (PLAIN, DAMAGED, GLOBALS)),
        ({"label": "x", "pinned": False}, ()),
    ],
)
def test_a_filter_lets_through_what_it_says(raw: dict[str, Any], expected: tuple[Any, ...]) -> None:
    wanted = build(Filter, raw)
    assert tuple(backup for backup in EVERYTHING if matches(backup, wanted, NOW)) == expected
    for backup in expected:
        folder = backup.id.split("/")[1]
        assert folder_wanted(wanted, backup.instance, folder)


def test_a_pin_that_has_ended_is_none() -> None:
    assert not matches(MARKED, Filter(pinned=True), moment("2025-11-06"))


@pytest.mark.parametrize(
    ("names", "folder", "wanted"),
    [
        ((), "anything at all", True),
        (("shop",), "shop", True),
        (("shop",), "shop2", False),
        (("a/b",), "a%2Fb", True),
        (("@globals",), "@globals", True),
        (("@globals",), "%40globals", False),
    ],
)
def test_a_folder_is_read_only_where_it_can_hold_what_is_wanted(
    names: tuple[str, ...], folder: str, wanted: bool
) -> None:
    assert folder_wanted(Scope(databases=names), "main", folder) is wanted
    assert not folder_wanted(Scope(instance="other", databases=names), "main", folder)
