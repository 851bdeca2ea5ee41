# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import DONE, FAILED, RepositoryError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.job import (
    covered,
    for_drill,
    prune_options,
    verify_job,
    verify_options,
)

from ..domain.histories import NOW


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


@pytest.mark.parametrize("level", ["archive", "restore"])
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("options", [{}, {"globals": False}, {"databases": ["shop"]}], ids=["all", "none", "named"])
def test_a_job_whose_backups_another_server_takes_has_nothing_to_verify_and_says_so(
    tmp_path: Path, options: dict[str, Any], check: bool, level: str
) -> None:
    job = {"repository": str(tmp_path), "work_dir": str(tmp_path), "run_on": "standby", **options}
    found = verify_job(job, {"level": level}, check, lambda: NOW)
    assert found.for_another_server == (
        f"{tmp_path} has no backup of this job's databases in instance main: with run_on standby another server takes them"
    )
    assert (found.exit_code, found.failed, found.changed, found.message) == (DONE, False, False, "")
    assert found.to_json()["for_another_server"] == found.for_another_server


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, {}),
        ({"run_on": "any", "globals": False}, {}),
        ({"run_on": "standby"}, {"databases": ["shop"]}),  # what is named is meant
    ],
)
def test_a_job_that_should_have_backups_here_and_has_none_is_a_failure(
    tmp_path: Path, options: dict[str, Any], said: dict[str, Any]
) -> None:
    found = verify_job({"repository": str(tmp_path), **options}, said, False, lambda: NOW)
    assert (found.exit_code, found.failed, found.for_another_server) == (FAILED, True, "")


def test_a_repository_that_is_not_there_is_a_failure_whoever_takes_the_backups(tmp_path: Path) -> None:
    # The first run makes it, on every server of a pair.
    with pytest.raises(RepositoryError, match="is not a directory"):
        verify_job({"repository": str(tmp_path / "none"), "run_on": "standby"}, {}, False, lambda: NOW)
