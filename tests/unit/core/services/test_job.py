# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.job import covered


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["@globals", "a/b", "shop", "shop_test"]),
        ({"globals": False}, ["a/b", "shop", "shop_test"]),
        ({"databases": ["shop", "gone"]}, ["@globals", "shop"]),
        ({"include": ["shop.*"], "exclude": [".*_test"]}, ["@globals", "shop"]),
        ({"exclude": ["shop.*"], "globals": False}, ["a/b"]),
        ({"instance": "other"}, ["@globals"]),
    ],
)
def test_a_job_prunes_the_databases_that_it_means_and_those_that_are_gone_from_the_server(
    tmp_path: Path, options: dict[str, Any], names: list[str]
) -> None:
    # The database called @globals is left out: its name means the globals, which may be another job's.
    for folder in ("shop", "shop_test", "a%2Fb", "@globals", "%40globals", "lost+found"):
        (tmp_path / "main" / folder).mkdir(parents=True)
    assert covered({"repository": str(tmp_path), **options}) == names
