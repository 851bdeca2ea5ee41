# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import configuration
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import DIFFERS, HIDDEN, MARK
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.schema import TARGET_CLASSES
from hypothesis import given
from hypothesis import strategies as st

PLACE = "/etc/pgkeep"
SECRET = "s3cret:\\marker"
ANY = {"host": "*", "port": "*", "database": "*", "user": "*"}


def passfile(*entries: dict[str, str]) -> str:
    return configuration.render_passfile(PLACE, [{**ANY, **entry} for entry in entries])


# --- texts ---


def test_a_file_has_the_mark_first_and_then_the_options_in_the_models_order() -> None:
    text = configuration.render({"keep_last": 3, "databases": ["shöp"], "repository": "/srv", "login_host": "db"})
    assert text == (
        '{\n  "comment": "Managed by Ansible: changes here are lost.",\n  "login_host": "db",\n  "repository": "/srv",\n'
        '  "databases": [\n    "shöp"\n  ],\n  "keep_last": 3\n}\n'
    )
    assert configuration.is_managed(text, PLACE)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"comment": "mine"}', "[" * 100_000, "*:*:*:*:x\n"])
def test_what_has_no_mark_is_not_ours(text: str) -> None:
    assert not configuration.is_managed(text, PLACE)


def test_a_password_file_of_another_configuration_is_not_ours() -> None:
    assert configuration.is_managed(passfile({"password": "x"}), PLACE)
    assert not configuration.is_managed(passfile({"password": "x"}), "/opt/pgkeep")


def test_what_nobody_said_is_left_out_at_every_depth() -> None:
    said = {"name": "a", "wait": None, "tables": [], "checks": [{"query": "SELECT 1", "database": None}]}
    assert configuration.said([said]) == [{"name": "a", "tables": [], "checks": [{"query": "SELECT 1"}]}]


def libpq_fields(line: str) -> list[str]:
    """Given a line of a password file, return its fields as libpq's documentation says that it reads them."""
    fields, escaped = [""], False
    for character in line:
        if escaped or character not in "\\:":
            fields[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            fields.append("")
    return fields


printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1)


@given(st.fixed_dictionaries({"host": printable, "database": printable, "user": printable, "password": printable}))
def test_libpq_reads_every_field_back(entry: dict[str, str]) -> None:
    mark, line, end = passfile({**entry, "port": "5432"}).split("\n")
    assert mark.startswith("# Managed by Ansible")
    assert libpq_fields(line) == [entry["host"], "5432", entry["database"], entry["user"], entry["password"]]
    assert end == ""


# --- what was asked for ---


@pytest.mark.parametrize(
    ("jobs", "passwords", "problems"),
    [
        (["a", "b-2_C"], [{"password": SECRET}], []),
        (
            ["../x"],
            [],
            ["jobs: '../x' is not the name of a job: letters, digits, _ and - are allowed, and no - at the beginning"],
        ),
        (
            ["-x"],
            [],
            ["jobs: '-x' is not the name of a job: letters, digits, _ and - are allowed, and no - at the beginning"],
        ),
        (
            ["a\n"],
            [],
            ["jobs: 'a\\n' is not the name of a job: letters, digits, _ and - are allowed, and no - at the beginning"],
        ),
        (["a", "b", "a"], [], ["jobs: 'a' stands there twice: remove one"]),
        ([], [{"password": ""}], ["passwords[0]: password is empty: say the password of the role"]),
        ([], [{"password": "x", "user": ""}], ["passwords[0]: user is empty: say * for any"]),
        ([], [{"password": "x", "port": "pg"}], ["passwords[0]: port must be a number or *"]),
        (
            [],
            [{"password": "x"}, {"password": "x", "host": "#db"}],
            ["passwords[1]: host begins with #, which would make the line a comment: change it"],
        ),
        (
            [],
            [{"password": "x", "user": "a"}, {"password": "y", "user": "a"}],
            ["passwords: there are two for *:*:*:a: libpq would only use the first"],
        ),
    ],
)
def test_what_is_wrong_with_names_and_passwords(jobs: list[str], passwords: list[Any], problems: list[str]) -> None:
    entries = [{**ANY, **entry} for entry in passwords]
    assert configuration.request_problems([{"name": name} for name in jobs], entries) == problems


def test_what_is_wrong_with_the_names_of_targets() -> None:
    found = configuration.request_problems([], [], [{"name": name} for name in ("vault", "../x", "vault")])
    assert found == [
        "targets: '../x' is not the name of a target: letters, digits, _ and - are allowed, and no - at the beginning",
        "targets: 'vault' stands there twice: remove one",
    ]


@pytest.mark.parametrize("field", ["host", "database", "user", "password"])
@pytest.mark.parametrize("end", ["\n", "\r", "\0", "\udcff"])
def test_what_a_password_file_cannot_hold_is_refused_without_the_password(field: str, end: str) -> None:
    (problem,) = configuration.request_problems([], [{**ANY, "password": SECRET, field: SECRET + end}])
    assert problem.startswith(f"passwords[0]: {field} contains a line break")
    assert "s3cret" not in problem


# --- a job between two defaults ---


def test_a_job_is_the_same_with_the_defaults_of_before_and_of_afterwards() -> None:
    before = {"comment": "x", "repository": "/old", "compression": "zstd:3", "keep_last": 5, "wait": "1m"}
    after = {"repository": "/new", "keep_days": 9}
    job = configuration.bridged(before, after, {"wait": "2m", "instance": "main"})
    assert {**before, **job} == {"comment": "x", **after, **job}
    assert job == {
        "repository": "/new", "compression": "auto", "keep_last": None, "wait": "2m", "keep_days": 9, "instance": "main",
    }  # fmt: skip


# --- what is shown ---


def test_a_password_is_a_word_and_another_one_where_it_was_different() -> None:
    old, new = (configuration.render({"login_password": secret, "wait": "1m"}) for secret in (SECRET, "other-s3cret"))
    assert json.loads(configuration.shown(new, PLACE)) == {"comment": MARK, "login_password": HIDDEN, "wait": "1m"}
    assert configuration.shown(new, PLACE, new) == configuration.shown(new, PLACE)
    assert json.loads(configuration.shown(new, PLACE, old))["login_password"] == DIFFERS


def test_a_key_that_is_not_known_may_be_a_password() -> None:
    text = json.dumps({"login_pasword": SECRET, "wait": "1m"})
    assert json.loads(configuration.shown(text, PLACE)) == {"login_pasword": HIDDEN, "wait": "1m"}


def test_a_target_is_shown_unless_it_may_have_a_secret_in_the_wrong_place() -> None:
    good = {"type": "rclone", "remote": "s3", "config_file": "/etc/rclone.conf", "path": "backups/db1"}
    text = configuration.render({**good, "flags": ["--s3-storage-class=STANDARD_IA"]}, TARGET_CLASSES)
    assert configuration.shown(text, PLACE) == text
    assert list(json.loads(text)) == ["comment", "type", "path", "remote", "config_file", "flags"]
    assert configuration.is_managed(text, PLACE)
    for bad in (
        {"flags": [f"--s3-secret-access-key={SECRET}"]},
        {"flags": SECRET},
        {"secret_access_key": SECRET},
        {"remote": f":s3,secret_access_key={SECRET}:"},
    ):
        assert "s3cret" not in configuration.shown(json.dumps({**good, **bad}), PLACE)


def test_lines_of_a_password_file_show_what_they_are_for() -> None:
    old = passfile({"host": "a:1", "password": SECRET}, {"user": "u", "password": SECRET})
    new = passfile({"host": "a:1", "password": SECRET}, {"user": "u", "password": "other-s3cret"})
    assert configuration.shown(new, PLACE, old).splitlines()[1:] == [f"a\\:1:*:*:*:{HIDDEN}", f"*:*:*:u:{DIFFERS}"]
    assert configuration.shown(new, PLACE).splitlines()[1:] == [f"a\\:1:*:*:*:{HIDDEN}", f"*:*:*:u:{HIDDEN}"]


@pytest.mark.parametrize(
    "text",
    [
        f"# db:*:*:*:{SECRET}\n*:*:*:*:{SECRET}\n",
        f"postgres://u:{SECRET}@h:5432/d:x",
        f'{{"login_password": "{SECRET}",}}',
    ],
)
def test_what_was_written_by_hand_and_cannot_be_read_is_not_shown(text: str) -> None:
    assert configuration.shown(text, PLACE) == "(written by hand, and not shown)\n"
    assert configuration.shown(passfile({"password": "x"}), PLACE, text).endswith(f"*:*:*:*:{HIDDEN}\n")


def test_a_managed_password_file_that_was_changed_by_hand_gives_nothing_away() -> None:
    text = passfile({"password": SECRET}) + f"# {SECRET}\n{SECRET}\na:b:c:d:{SECRET}:{SECRET}\n"
    assert "s3cret" not in configuration.shown(text, PLACE)
