# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.argspec import argument_spec, values
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import model

EVERYTHING = (
    model.Connection,
    model.Location,
    model.Selection,
    model.DumpOptions,
    model.RunOptions,
    model.Policy,
)
SPEC = argument_spec(*EVERYTHING)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("login_host", {"type": "str", "default": ""}),
        ("login_port", {"type": "int", "default": 5432}),
        ("login_password", {"type": "str", "no_log": True}),
        ("passfile", {"type": "path", "no_log": False}),
        ("ssl_key", {"type": "path", "no_log": False}),
        ("ssl_mode", {"type": "str", "default": "prefer", "choices": list(model.SSL_MODES)}),
        ("repository", {"type": "path", "required": True}),
        ("databases", {"type": "list", "elements": "str", "default": []}),
        ("globals", {"type": "bool", "default": True}),
        ("max_age", {"type": "str"}),
        ("wait", {"type": "str", "default": "0"}),
        ("pin_until", {"type": "str"}),
        ("keep_last", {"type": "int"}),
    ],
)
def test_an_option_of_the_model_becomes_an_argument(name: str, expected: dict[str, object]) -> None:
    assert SPEC[name] == expected


def test_the_password_is_the_only_secret() -> None:
    assert [name for name, item in SPEC.items() if item.get("no_log")] == ["login_password"]


def test_what_ansible_makes_of_the_least_a_user_can_write_is_what_the_model_has_as_defaults() -> None:
    result = ArgumentSpecValidator(SPEC).validate({"repository": "/srv"})
    assert result.error_messages == []
    for cls in EVERYTHING:
        given = {"repository": "/srv"} if issubclass(cls, model.Repository) else {}
        assert model.build(cls, values(result.validated_parameters)) == cls(**given)


def test_what_was_not_said_is_left_out() -> None:
    assert values({"a": None, "b": False, "c": [], "d": "", "e": 0}) == {"b": False, "c": [], "d": "", "e": 0}
