# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.argspec import argument_spec, values
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import model
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import Configuration
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.schema import JOB_CLASSES, TARGET_CLASSES

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


CONFIGURATION = argument_spec(Configuration)


@pytest.mark.parametrize("place", ["defaults", "jobs"])
def test_what_goes_into_a_file_is_every_option_of_a_job_and_nothing_that_nobody_said(place: str) -> None:
    inner = {name: item for name, item in CONFIGURATION[place]["options"].items() if name != "name"}
    assert inner.keys() == {name for cls in JOB_CLASSES for name in model.options_of(cls)}
    assert [name for name, item in inner.items() if "default" in item or "required" in item] == []
    assert [name for name, item in inner.items() if item["type"] == "path"] == [], "Ansible would replace ~ and $HOME"
    assert inner["checks"]["options"]["query"] == {"type": "str", "required": True}
    assert inner["checks"]["options"]["expected"] == {"type": "str"}
    assert [name for name, item in inner.items() if item.get("no_log")] == ["login_password"]


def test_a_target_is_written_as_it_was_said_and_has_no_secret() -> None:
    inner = dict(CONFIGURATION["targets"]["options"])
    assert inner.pop("name") == {"type": "str", "required": True}
    assert inner.keys() == {name for cls in TARGET_CLASSES for name in model.options_of(cls)}
    assert [name for name, item in inner.items() if "default" in item or "required" in item] == []
    assert [name for name, item in inner.items() if item["type"] == "path"] == []
    assert [name for name, item in inner.items() if item.get("no_log")] == []


def test_a_job_needs_a_name_and_a_line_of_a_password_file_a_password_which_is_a_secret() -> None:
    assert CONFIGURATION["jobs"]["options"]["name"] == {"type": "str", "required": True}
    passwords = CONFIGURATION["passwords"]
    assert (passwords["no_log"], passwords["elements"]) == (False, "dict")
    assert passwords["options"]["password"] == {"type": "str", "required": True, "no_log": True}
    assert passwords["options"]["host"] == {"type": "str", "default": "*"}
