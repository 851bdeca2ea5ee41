# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.job import (
    covered,
    for_drill,
    prune_options,
    verify_options,
)


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


def test_a_prune_of_a_job_is_about_the_instance_that_the_job_has_when_it_says_none() -> None:
    assert prune_options({"repository": "/r", "keep_daily": 3}, ["shop"]) == {
        "repository": "/r",
        "keep_daily": 3,
        "keep_last": None,
        "keep_days": None,
        "instance": "main",
        "databases": ["shop"],
    }
    without = prune_options({"repository": "/r", "instance": "other"}, ("shop",))
    assert (without["instance"], without["keep_last"], without["keep_days"]) == ("other", 10, 30)


def test_a_verification_takes_of_a_job_only_what_is_for_verifications() -> None:
    job = {
        "repository": "/r", "bin_dir": "/b", "work_dir": "/w", "databases": ["shop"], "label": "nightly",
        "max_age": "20h", "deadline": "1h", "keep_last": 3,
    }  # fmt: skip
    ours = {"repository": "/r", "bin_dir": "/b", "work_dir": "/w"}
    assert verify_options(job, {}) == {**ours, "instance": "main"}
    said = {"instance": "other", "databases": ["crm"], "work_dir": "/x", "level": "restore"}
    assert verify_options(job, said) == {**ours, **said}


def test_a_drill_takes_the_programs_of_a_job_only_where_there_is_a_server(tmp_path: Path) -> None:
    clients = {"bin_dir": str(tmp_path), "level": "restore"}
    assert for_drill(clients, {}) == {"level": "restore"}
    assert for_drill(clients, clients) == clients  # who says it hears that there is none
    assert for_drill({**clients, "level": "archive"}, {}) == {**clients, "level": "archive"}
    (tmp_path / "initdb").touch()
    assert for_drill(clients, {}) == clients
