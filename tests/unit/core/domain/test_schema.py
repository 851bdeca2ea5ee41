# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import manifest, schema
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import build, options_of
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

JOB = schema.job_schema()
PROBLEMS = [
    ({"formt": "custom"}, "formt is not known: did you mean format?"),
    ({"nothing_like_it": 1}, "nothing_like_it is not known"),
    ({"jobs": "4"}, 'jobs is "4": must be of type integer'),
    ({"jobs": True}, "jobs is true: must be of type integer"),
    ({"jobs": 1.5}, "jobs is 1.5: must be of type integer"),
    ({"jobs": 0}, "jobs is 0: must be 1 or more"),
    ({"globals": "yes"}, 'globals is "yes": must be of type boolean'),
    ({"include": "shop"}, 'include is "shop": must be of type array'),
    ({"include": ["shop", 7]}, "include[1] is 7: must be of type string"),
    ({"keep_last": "3"}, 'keep_last is "3": must be of type integer or null'),
    ({"repository": "backups"}, 'repository is "backups": must match ^(/.*)?$, for example /var/lib/pgkeep'),
    ({"label": "two words"}, 'label is "two words": must match ^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$'),
    ({"instance": "main\n"}, 'instance is "main\\n": must match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$'),
    ({"pin": "a\0b"}, 'pin is "a\\u0000b": must not contain a NUL character or half of a surrogate pair'),
    ({"pin": "\ud800"}, 'pin is "\\ud800": must not contain a NUL character or half of a surrogate pair'),
    ([], "is a list: must be of type object"),
    ("job", 'is "job": must be of type object'),
]


def sentences(document: Any, described: dict[str, Any] | None = None) -> list[str]:
    return [str(problem) for problem in schema.problems(document, described or JOB)]


@pytest.mark.parametrize(("document", "sentence"), PROBLEMS)
def test_a_problem_names_the_key_the_value_and_what_is_allowed(document: Any, sentence: str) -> None:
    assert sentences(document) == [sentence]


def test_a_word_that_is_not_a_choice_is_answered_with_the_choices_and_the_nearest() -> None:
    expected = 'format is "cusotm": must be one of custom, directory, plain, tar: did you mean custom?'
    assert sentences({"format": "cusotm"}) == [expected]


def test_a_duration_is_explained_by_examples() -> None:
    (sentence,) = sentences({"max_age": "2 hours"})
    assert sentence.startswith('max_age is "2 hours": must match ^')
    assert sentence.endswith(", for example 90s, 20h, 1d12h")


def test_every_problem_is_reported_in_the_order_of_the_document() -> None:
    keys = [problem.key for problem in schema.problems({"wait": 5, "x": 1, "jobs": 0, "tables": [1, "a", 2]}, JOB)]
    assert keys == ["wait", "x", "jobs", "tables[0]", "tables[2]"]


@pytest.mark.parametrize(
    "document",
    [
        {"login_password": 12345678},
        {"login_pasword": "12345678"},
        [{"login_password": "12345678"}],
        {"login_password": "12345678\0"},
    ],
)
def test_no_message_contains_a_password(document: Any) -> None:
    (sentence,) = sentences(document)
    assert "12345678" not in sentence


def test_a_long_value_is_cut() -> None:
    (sentence,) = sentences({"format": "x" * 10_000})
    assert len(sentence) < 200


def test_remarks_are_allowed() -> None:
    assert sentences({"comment": "nightly", "$schema": "../job.schema.json"}) == []


def test_every_default_is_valid_by_its_own_schema() -> None:
    defaults = {name: item["default"] for name, item in JOB["properties"].items() if "default" in item}
    assert "compression" in defaults
    assert sentences(defaults) == []


def test_null_means_not_said_where_there_is_no_default() -> None:
    assert sentences({"keep_last": None, "max_age": None, "label": None}) == []
    assert sentences({"jobs": None}) == ["jobs is null: must be of type integer"]


def test_every_option_of_a_job_is_described_and_only_the_password_is_write_only() -> None:
    names = {name for cls in schema.JOB_CLASSES for name in options_of(cls)}
    assert names == JOB["properties"].keys() - schema.REMARKS.keys()
    assert [name for name, item in JOB["properties"].items() if "writeOnly" in item] == ["login_password"]


@pytest.mark.parametrize("document", [JOB, manifest.json_schema()], ids=["job", "manifest"])
def test_schemas_are_json_schemas(document: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(document)
    assert json.loads(json.dumps(document)) == document


EVERYTHING: dict[str, Any] = {
    "type": "object",
    "required": ["version"],
    "properties": {
        "version": {"const": 1},
        "name": {"type": ["string", "null"], "minLength": 1},
        "parts": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["size"], "properties": {"size": {"type": "number", "minimum": 0}}},
        },
        "settings": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({}, "version is missing"),
        ({"version": 2}, "version is 2: must be 1"),
        ({"version": 1, "name": ""}, 'name is "": must have 1 or more characters'),
        ({"version": 1, "parts": []}, "parts is a list: must have 1 or more items"),
        ({"version": 1, "parts": [{"size": 1}, {"size": -0.5}]}, "parts[1].size is -0.5: must be 0 or more"),
        ({"version": 1, "parts": [{}]}, "parts[0].size is missing"),
        ({"version": 1, "settings": {"a": 1}}, "settings.a is 1: must be of type string"),
    ],
)
def test_the_rest_of_the_subset_is_checked_at_any_depth(document: Any, sentence: str) -> None:
    assert sentences(document, EVERYTHING) == [sentence]
    assert not Draft202012Validator(EVERYTHING).is_valid(document)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.text("ab1 /\n-", max_size=5),
    st.lists(st.sampled_from(["a", 1]), max_size=2),
    st.sampled_from(["20h", "0", "zstd:3", "auto", "custom", "500MB", "10%", "2025-11-05", "main", "/srv"]),
)
DOCUMENTS = st.dictionaries(st.sampled_from([*JOB["properties"], "formt"]), VALUES, max_size=6)


@given(DOCUMENTS)
def test_the_verdict_is_that_of_the_reference_implementation(document: dict[str, Any]) -> None:
    # Python's `$`, which jsonschema uses, also matches before a newline at the end; the standard's does not.
    trimmed = {key: value.rstrip("\n") if isinstance(value, str) else value for key, value in document.items()}
    assert (not sentences(trimmed)) == Draft202012Validator(JOB).is_valid(trimmed)


@given(DOCUMENTS)
def test_what_the_schema_allows_the_model_can_build(document: dict[str, Any]) -> None:
    document = {"repository": "/srv/backups", **document}
    if not sentences(document) and document["repository"]:
        for cls in schema.JOB_CLASSES:
            build(cls, document)
