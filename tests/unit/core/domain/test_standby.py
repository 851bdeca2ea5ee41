# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import timedelta

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import standby
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ServerError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import ReplicationFacts
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.job import combination_problems
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import StandbyOptions

HOUR = timedelta(hours=1)
LONE_PRIMARY = ReplicationFacts(False, "one", ())
PRIMARY = ReplicationFacts(False, "one", ("two", "three"))
BLIND_PRIMARY = ReplicationFacts(False, "one", None)
STANDBY = ReplicationFacts(True, "two", ())
NAMELESS = ReplicationFacts(True, "", None)


@pytest.mark.parametrize(
    ("run_on", "name", "here"),
    [
        ("any", None, (LONE_PRIMARY, PRIMARY, BLIND_PRIMARY, STANDBY, NAMELESS)),
        ("primary", None, (LONE_PRIMARY, PRIMARY, BLIND_PRIMARY)),
        ("standby", None, (STANDBY, NAMELESS)),
        ("standby", "two", (STANDBY,)),
        ("standby", "three", ()),
        ("prefer_standby", None, (LONE_PRIMARY, STANDBY, NAMELESS)),
        ("prefer_standby", "two", (LONE_PRIMARY, STANDBY)),
        ("prefer_standby", "four", (LONE_PRIMARY, PRIMARY)),
    ],
)
def test_a_run_is_for_exactly_these_servers(run_on: str, name: str | None, here: tuple[ReplicationFacts, ...]) -> None:
    options = StandbyOptions(run_on=run_on, standby_name=name)
    for facts in (LONE_PRIMARY, PRIMARY, BLIND_PRIMARY, STANDBY, NAMELESS):
        if facts is BLIND_PRIMARY and run_on == "prefer_standby":
            continue
        assert (standby.why_elsewhere(facts, options, "keeper") == "") is (facts in here), facts


@pytest.mark.parametrize(
    ("facts", "options", "said"),
    [
        (STANDBY, StandbyOptions(run_on="primary"), "this server is a standby, and run_on is primary"),
        (PRIMARY, StandbyOptions(run_on="standby"), "this server is a primary, and run_on is standby"),
        (
            STANDBY,
            StandbyOptions(run_on="standby", standby_name="three"),
            "this standby has the cluster_name 'two', and standby_name is 'three'",
        ),
        (
            NAMELESS,
            StandbyOptions(run_on="prefer_standby", standby_name="three"),
            "this standby has no cluster_name, and standby_name is 'three'",
        ),
        (
            PRIMARY,
            StandbyOptions(run_on="prefer_standby"),
            "this server is a primary, run_on is prefer_standby, and a standby streams from it (two, three)",
        ),
        (
            PRIMARY,
            StandbyOptions(run_on="prefer_standby", standby_name="three"),
            "this server is a primary, run_on is prefer_standby, and a standby streams from it (three)",
        ),
    ],
)
def test_it_says_why_a_run_is_for_another_server(facts: ReplicationFacts, options: StandbyOptions, said: str) -> None:
    assert standby.why_elsewhere(facts, options, "keeper") == said


@pytest.mark.parametrize("name", [None, "two"])
def test_what_the_role_may_not_see_is_never_guessed(name: str | None) -> None:
    options = StandbyOptions(run_on="prefer_standby", standby_name=name)
    with pytest.raises(ServerError, match='GRANT pg_read_all_stats TO "the keeper"'):
        standby.why_elsewhere(BLIND_PRIMARY, options, "the keeper")


@pytest.mark.parametrize("lag", [timedelta(0), timedelta(seconds=-3), HOUR])
def test_a_standby_within_the_limit_is_dumped(lag: timedelta) -> None:
    assert standby.lag_problem(lag, HOUR) == ""


def test_a_standby_that_is_too_far_behind_or_cannot_tell_is_not() -> None:
    assert "is 1h 1s behind its primary, more than 1h (`max_lag`)" in standby.lag_problem(
        HOUR + timedelta(seconds=1), HOUR
    )
    assert "it is not known how far" in standby.lag_problem(None, HOUR)


def test_the_missing_right_comes_with_the_statement_that_grants_it() -> None:
    said = standby.rights_problem("the keeper", "postgres")
    grant = 'GRANT EXECUTE ON FUNCTION pg_wal_replay_pause(), pg_wal_replay_resume() TO "the keeper"'
    assert grant in said
    assert "in database 'postgres'" in said


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ({"standby_name": "two"}, False),
        ({"standby_name": "two", "run_on": "primary"}, False),
        ({"standby_name": "two", "run_on": "standby"}, True),
        ({"standby_name": "two", "run_on": "prefer_standby"}, True),
        ({"run_on": "primary"}, True),
    ],
)
def test_a_standbys_name_is_only_for_runs_that_look_for_standbys(raw: dict[str, str], meant: bool) -> None:
    assert (combination_problems(raw) == []) is meant
