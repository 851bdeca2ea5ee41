# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import inspect
import re
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import model
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.quantities import parse_time

CLASSES = [
    cls
    for _unused, cls in inspect.getmembers(model, inspect.isclass)
    if cls.__module__ == model.__name__ and dataclasses.is_dataclass(cls) and cls is not model.Option
]
KINDS = {"str", "int", "bool", "list", "path", "duration", "size", "time", "password", "checks"}


def options() -> list[Any]:
    return [
        pytest.param(cls, name, option, id=f"{cls.__name__}.{name}")
        for cls in CLASSES
        for name, option in model.options_of(cls).items()
    ]


# --- the options themselves ---


@pytest.mark.parametrize(("cls", "name", "option"), options())
def test_every_option_has_a_known_kind_and_is_explained_in_whole_sentences(
    cls: type, name: str, option: model.Option
) -> None:
    assert option.kind in KINDS
    assert re.fullmatch(r"[A-Z`].*\.", option.help, re.DOTALL), f"{cls.__name__}.{name}"
    assert "  " not in option.help


@pytest.mark.parametrize(("cls", "name", "option"), options())
def test_every_default_is_allowed_and_is_what_leaving_the_option_out_gives(
    cls: type, name: str, option: model.Option
) -> None:
    required = {
        key: other.choices[0] if other.choices else f"/{key}"
        for key, other in model.options_of(cls).items()
        if other.required
    }
    if option.required:
        assert option.default is None
        return
    left_out = getattr(model.build(cls, required), name)
    assert left_out == getattr(model.build(cls, {**required, name: option.default}), name)


def test_an_option_that_several_classes_share_is_the_same_but_for_databases() -> None:
    seen: dict[str, model.Option] = {}
    for cls in CLASSES:
        for name, option in model.options_of(cls).items():
            # A scope's are filters; a restore takes as many jobs as there are processors, and always a checksum; the path
            # of a target is not one of this host.
            own = {"databases", "instance", "label", "before", "after", "verified", "jobs", "checksum", "path"}
            if name not in own:
                known = seen.setdefault(name, option)
                assert (known.kind, known.default) == (option.kind, option.default), name


def test_a_check_is_a_query_alone_json_or_a_dictionary() -> None:
    written = ["SELECT 1", ' {"query": "SELECT 2", "expected": "2"}', {"query": "SELECT 3", "database": "shop"}]
    checks = model.build(model.DrillOptions, {"checks": written}).checks
    assert [(check.query, check.expected, check.database) for check in checks] == [
        ("SELECT 1", "t", None),
        ("SELECT 2", "2", None),
        ("SELECT 3", "t", "shop"),
    ]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("{", "is not JSON"),
        ('{"query": "SELECT 1", "expect": "1"}', "must have texts for query, expected and database, and nothing else"),
        ('{"query": "SELECT 1", "expected": 1}', "must have texts"),
        ("{}", "query is not set"),
        ({"expected": "1"}, "query is not set"),
    ],
)
def test_a_check_that_cannot_be_meant_is_refused(check: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        model.build(model.DrillOptions, {"checks": [check]})


def test_options_come_in_the_order_in_which_they_are_written() -> None:
    assert list(model.options_of(model.Location)) == ["repository", "instance"]


def test_rules_are_the_keep_options_but_for_the_minimum() -> None:
    names = [name for name in model.options_of(model.Policy) if name.startswith("keep_") and name != "keep_minimum"]
    assert list(model.RULES) == names
    assert not model.Policy().has_rules
    assert not model.build(model.Policy, dict.fromkeys(names, 0)).has_rules
    assert all(model.build(model.Policy, {name: 1}).has_rules for name in names)


def test_a_password_is_not_shown_by_the_values_that_hold_it() -> None:
    assert "hunter2" not in repr(model.build(model.Connection, {"login_password": "hunter2"}))


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.Policy().keep_last = 1  # type: ignore[misc]


# --- build ---


def test_what_a_user_writes_becomes_values() -> None:
    run = model.build(model.RunOptions, {"max_age": "20h", "pin": "x", "pin_until": "2026-01-01", "wait": "0"})
    assert run.max_age == timedelta(hours=20)
    assert run.pin_until == parse_time("2026-01-01")
    assert run.wait == timedelta()
    assert model.build(model.DumpOptions, {"tables": ["a", "b"]}).tables == ("a", "b")


def test_what_is_not_said_has_its_default() -> None:
    assert model.build(model.Connection, {}) == model.Connection()
    assert model.build(model.Connection, {"login_port": None}).login_port == 5432
    assert model.build(model.DumpOptions, {"lock_wait_timeout": None}).lock_wait_timeout == timedelta(minutes=5)


def test_zero_and_false_and_empty_are_said() -> None:
    assert model.build(model.Policy, {"keep_last": 0}).keep_last == 0
    assert model.build(model.DumpOptions, {"globals": False}).globals is False
    assert model.build(model.Connection, {"login_user": ""}).login_user == ""


def test_keys_of_other_classes_are_left_to_them() -> None:
    assert model.build(model.Policy, {"keep_last": 3, "login_port": 1}) == model.Policy(keep_last=3)


@pytest.mark.parametrize("missing", [{}, {"repository": None}, {"repository": ""}])
def test_a_required_option_must_be_said(missing: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^repository is not set: Directory of the repository"):
        model.build(model.Repository, missing)


@pytest.mark.parametrize(
    ("cls", "raw", "message"),
    [
        (model.DumpOptions, {"format": "zip"}, "format is 'zip': must be one of custom, directory, plain, tar"),
        (model.DumpOptions, {"jobs": 0}, "jobs is 0: must be 1 or more"),
        (model.Policy, {"keep_minimum": 0}, "keep_minimum is 0: must be 1 or more"),
        (model.Policy, {"keep_last": -1}, "keep_last is -1: must be 0 or more"),
        (model.Policy, {"max_deletions": 0}, "max_deletions is 0: must be 1 or more"),
        (model.Policy, {"limit_mode": "any"}, "limit_mode is 'any': must be one of either, both"),
        (model.RunOptions, {"label": "-x"}, "label is '-x': must match " + model.LABEL_PATTERN),
        (
            model.Location,
            {"repository": "/srv", "instance": "../x"},
            "instance is '../x': must match " + model.INSTANCE_PATTERN,
        ),
        (
            model.Location,
            {"repository": "/srv", "instance": "main\n"},
            r"instance is 'main\n': must match " + model.INSTANCE_PATTERN,
        ),
        (
            model.DumpOptions,
            {"compression": "zstd:"},
            "compression is 'zstd:': must match " + model.COMPRESSION_PATTERN,
        ),
        (
            model.RunOptions,
            {"max_age": "20"},
            "max_age: '20' is not a duration: write for example 90s, 20h or 1d12h (ms, s, m, h, d, w)",
        ),
        (
            model.RunOptions,
            {"pin_until": "soon"},
            "pin_until: 'soon' is not a time: write for example 2025-11-05 or 2025-11-05T14:30:00Z",
        ),
    ],
)
def test_a_message_names_the_option_the_value_and_what_is_allowed(cls: type, raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        model.build(cls, raw)
    assert str(caught.value) == message


@pytest.mark.parametrize(("cls", "name", "option"), [item for item in options() if item.values[2].kind == "password"])
def test_no_message_can_contain_a_password(cls: type, name: str, option: model.Option) -> None:
    assert (option.choices, option.pattern, option.minimum) == ((), "", None)
    assert getattr(model.build(cls, {name: "any text\n"}), name) == "any text\n"


@pytest.mark.parametrize("text", ["auto", "none", "gzip", "zstd:3", "lz4:12"])
def test_compression_is_a_method_with_or_without_a_level(text: str) -> None:
    assert model.build(model.DumpOptions, {"compression": text}).compression == text


@pytest.mark.parametrize("text", ["500MB", "2GiB", "10%", "0.5%", "0"])
def test_a_reserve_is_a_size_or_a_percentage(text: str) -> None:
    assert model.build(model.RunOptions, {"reserve": text}).reserve == text
