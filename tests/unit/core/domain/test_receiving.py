# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.archive import File
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import receiving
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError, ToolError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.receiving import Answer
from hypothesis import given
from hypothesis import strategies as st

SENT = "rsync --server -OtpRe.LsfxCIvu --timeout=120 --bwlimit=10000 --ignore-existing . db1/"


@pytest.mark.parametrize(
    "command",
    [
        SENT, "pgkeep list", "pgkeep hash", "rsync --server -vtpRe31.14iLsfxCIvu --ignore-existing . ./",
        "rsync --server -OtpRe.iLsfxC --timeout=20 --ignore-existing --fsync . ./",
    ],
)  # fmt: skip
def test_what_is_done(command: str) -> None:
    assert receiving.refusal(command) == ""


@pytest.mark.parametrize(
    "command",
    [
        "", "true", "sh", "pgkeep list x", "pgkeep hash\n", " " + SENT, SENT + " x", SENT.replace("db1/", "../db2"),
        SENT.replace("db1/", "a$(id)"), SENT.replace("db1/", "a;id"), SENT.replace("db1/", ""), SENT.replace(" . ", " "),
        SENT.replace("--timeout=120", "--inplace"), SENT.replace("--timeout=120", "--append"),
        SENT.replace("--timeout=120", "--partial"), SENT.replace("--timeout=120", "--partial-dir=/tmp"),
        SENT.replace("--timeout=120", "--delete"), SENT.replace("--timeout=120", "--sender"),
        SENT.replace("--timeout=120", "--log-file=x"), SENT.replace("--timeout=120", "--temp-dir=x"),
        SENT.replace("-Otp", "-bOtp"), SENT.replace("-Otp", "-lOtp"), SENT.replace("-Otp", "-DOtp"),
        SENT.replace("-Otp", "-KOtp"), SENT.replace("-Otp", "-sOtp"), SENT.replace("-Otp", "-HOtp"),
        SENT.replace("--server", "--server --sender"), SENT.replace("--server", "--daemon"), SENT.replace("rsync", "/tmp/rsync"),
    ],
)  # fmt: skip
def test_what_is_refused(command: str) -> None:
    refusal = receiving.refusal(command)
    assert refusal
    assert "\n" not in refusal


@given(st.text())
def test_anything_else_is_refused(command: str) -> None:
    assert (receiving.refusal(command) == "") == (command in ("pgkeep list", "pgkeep hash"))


@pytest.mark.parametrize("path", ["a", "main/shop/shop_1/x.dump", "main/@globals/x", "a b/c%20", "é"])
def test_paths(path: str) -> None:
    assert receiving.acceptable(path)


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "./a", ".lock", "a/.x.a1B2c3", "a\0b", 1, None, "a" * 5000]
)
def test_paths_that_are_none(path: object) -> None:
    assert not receiving.acceptable(path)


@pytest.mark.parametrize("name", [".shop.dump.a1B2c3", ".1%2E.dat.gz.ABCDEF", ".manifest.json.000000", ".@x.abcdef"])
def test_names_of_what_is_not_finished(name: str) -> None:
    assert receiving.is_left_over(name)


@pytest.mark.parametrize(
    "name", ["shop.dump", "shop.dump.a1B2c3", ".lock", ".sync-vault", "..a1B2c3", ".x.a1B2c", ".x.a1B2c3d", ".x.a1-2c3"]
)
def test_names_of_something_else(name: str) -> None:
    assert not receiving.is_left_over(name)


def test_listing_below_the_path_of_the_target() -> None:
    text = json.dumps({"db1/main/x": 5, "db1/.x": 6, "db10/main/y": 7, "other": 8, "db1/bad": "9"})
    assert receiving.parse_list(text, "db1") == {"main/x": 5}
    assert receiving.parse_list(text, "./db1//") == {"main/x": 5}
    assert receiving.parse_list(text, "") == {"db1/main/x": 5, "db10/main/y": 7, "other": 8}


@pytest.mark.parametrize("text", ["", "[]", "1", "Welcome", "{"])
def test_answer_that_is_none(text: str) -> None:
    with pytest.raises(ToolError, match="does not answer as"):
        receiving.parse_list(text, "")


@pytest.mark.parametrize("line", ["1", "[]", "{}", "null x", '{"path": "a", "size": "many"}'])
def test_checksum_that_is_none(line: str) -> None:
    with pytest.raises(ToolError, match="does not answer as"):
        receiving.parse_hashes(line)


def test_checksums_are_compared() -> None:
    files = {f"db1/{name}": File(name, 5, "5" * 64) for name in "abcdef"}
    answers = receiving.parse_hashes(
        '\n{"path": "db1/a", "size": 5, "sha256": "'
        + "5" * 64
        + '"}\n\n{"path": "db1/b", "size": 0, "problem": "missing"}\n'
        '{"path": "db1/c", "size": 4, "sha256": "5"}\n{"path": "db1/d", "size": 5, "sha256": "6"}\n'
    )
    assert answers["db1/a"] == Answer(5, "5" * 64)
    found = [receiving.problem({path: file}, answers) for path, file in files.items()]
    assert found == [
        "",
        "b is missing",
        "c has 4 bytes instead of 5",
        "d was altered: its SHA-256 is not the manifest's",
        "e: the far side says nothing of it",
        "f: the far side says nothing of it",
    ]
    assert receiving.problem(files, answers) == "b is missing"


def test_request() -> None:
    assert receiving.parse_request(b'["a", "b"]') == ["a", "b"]
    with pytest.raises(ConfigurationError):
        receiving.parse_request(b'"a"')
