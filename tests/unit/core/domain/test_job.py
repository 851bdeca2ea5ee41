# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import job
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    JOB_POLICY,
    Location,
    Policy,
    RunOptions,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.schema import JOB_CLASSES


def test_a_job_without_a_rule_keeps_ten_backups_for_thirty_days() -> None:
    assert job.policy_of({"repository": "/srv"}) == JOB_POLICY
    assert (JOB_POLICY.keep_last, JOB_POLICY.keep_days) == (10, 30)


def test_a_job_without_a_rule_keeps_its_own_other_policy_options() -> None:
    policy = job.policy_of({"timezone": "Europe/Berlin", "keep_minimum": 3, "keep_last": None, "limit_mode": "both"})
    assert policy == Policy(keep_last=10, keep_days=30, timezone="Europe/Berlin", keep_minimum=3, limit_mode="both")


def test_one_rule_is_enough_to_have_only_that_rule() -> None:
    assert job.policy_of({"keep_weekly": 4}) == Policy(keep_weekly=4)


def test_a_rule_that_is_switched_off_does_not_bring_back_the_rules_of_a_silent_job() -> None:
    assert job.policy_of({"keep_last": 0}) == Policy(keep_last=0)


def test_a_policy_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="keep_minimum is 0: must be 1 or more"):
        job.policy_of({"keep_minimum": 0})


@pytest.mark.parametrize("raw", [{}, {"repository": ""}, {"repository": None}])
def test_what_is_required_and_not_there_is_named_with_its_meaning(raw: dict[str, Any]) -> None:
    (sentence,) = job.missing_problems(raw, JOB_CLASSES)
    assert sentence.startswith("repository is not set: Directory of the repository.")


def test_nothing_is_missing_from_a_job_with_a_repository() -> None:
    assert job.missing_problems({"repository": "/srv"}, JOB_CLASSES) == []


def test_values_of_every_class_are_tried() -> None:
    raw = {"repository": "/srv", "instance": "two words", "pin_until": "2025-02-30", "label": "ok"}
    instance, pin_until = job.value_problems(raw, (Location, RunOptions))
    assert instance.startswith("instance is 'two words': must match")
    assert pin_until == "pin_until: '2025-02-30' is not a time that exists"


GOOD: list[dict[str, Any]] = [
    {},
    {"jobs": 4, "format": "directory"},
    {"jobs": 1, "format": "plain"},
    {"pin": "why", "pin_until": "2026-01-01"},
    {"include": ["shop.*"], "exclude": ["test_.*"]},
    {"databases": ["shop"], "exclude": ["shop"], "include": []},
    {"service": "db1", "service_file": "/etc/pg_service.conf"},
    {"login_host": "db1", "ssl_mode": "verify-full"},
    {"service": "db1", "ssl_mode": "verify-full"},
    {"ssl_mode": "prefer"},
    {"login_host": "", "login_unix_socket": "/run/postgresql"},
    {"tables": ["public.orders"], "exclude_tables": ["public.log"]},
    {"login_password": "a:b\\c"},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"jobs": 4}, "jobs is 4 but format is custom: parallel jobs need format directory"),
    ({"jobs": 2, "format": "tar"}, "jobs is 2 but format is tar: parallel jobs need format directory"),
    ({"pin_until": "2026-01-01"}, "pin_until is set without pin: say in pin why the backups of this run must be kept"),
    (
        {"databases": ["a"], "include": ["b"]},
        "databases and include are both set: name the databases, or describe them, not both",
    ),
    ({"service_file": "/f"}, "service_file is set without service: name the section to use, or leave service_file out"),
    (
        {"include": ["shop("]},
        "include has 'shop(', which is not a regular expression: missing ), unterminated subpattern at position 4",
    ),
    ({"exclude": ["ok", "*"]}, "exclude has '*', which is not a regular expression: nothing to repeat at position 0"),
    (
        {"tables": ["t"], "schemas": ["s"]},
        "tables and schemas are both set: pg_dump ignores schemas where tables are named; write schema.table",
    ),
    (
        {"tables": ["t"], "exclude_schemas": ["s"]},
        "tables and exclude_schemas are both set: pg_dump ignores schemas where tables are named; write schema.table",
    ),
    (
        {"login_host": "db1", "login_unix_socket": "/run"},
        "login_unix_socket and login_host are both set: a connection uses only one of them",
    ),
    ({"compression": "gzip:12"}, "compression is 'gzip:12': gzip has the levels 1 to 9"),
    (
        {"tables": ["a.b.c.d"]},
        """tables has the pattern 'a.b.c.d' with too many dots: put a name with a dot in it in "double quotes\"""",
    ),
]


@pytest.mark.parametrize("raw", GOOD)
def test_what_can_be_meant_is_no_problem(raw: dict[str, Any]) -> None:
    assert job.combination_problems(raw) == []


@pytest.mark.parametrize(("raw", "sentence"), BAD)
def test_what_cannot_be_meant_is_explained(raw: dict[str, Any], sentence: str) -> None:
    assert job.combination_problems(raw) == [sentence]


@pytest.mark.parametrize("host", ["", "/run/postgresql"])
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_tls_over_a_socket_is_refused_because_libpq_would_go_on_without(host: str, mode: str) -> None:
    (sentence,) = job.combination_problems({"login_host": host, "ssl_mode": mode})
    assert sentence.startswith(f"ssl_mode is {mode} but there is no TLS over a Unix socket")


def test_a_password_with_a_newline_is_refused_and_not_shown() -> None:
    (sentence,) = job.combination_problems({"login_password": "hunter2\n"})
    assert "newline" in sentence
    assert "hunter2" not in sentence


def test_every_problem_is_found_at_once() -> None:
    raw = {"jobs": 2, "pin_until": "2026-01-01", "include": ["(", "["]}
    with pytest.raises(ConfigurationError) as caught:
        job.check_combinations(raw)
    assert str(caught.value) == "; ".join(job.combination_problems(raw))
    assert len(job.combination_problems(raw)) == 4


def test_good_combinations_pass() -> None:
    for raw in GOOD:
        job.check_combinations(raw)
