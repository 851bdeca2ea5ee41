# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import rclone
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import (
    ConfigurationError,
    LockedCopyError,
    PgkeepError,
    SpaceError,
    ToolError,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Target
from hypothesis import given
from hypothesis import strategies as st

TARGET = Target(
    type="rclone", remote="store", path="bucket/db1", config_file="/etc/rclone.conf", timeout=timedelta(minutes=2),
    flags=("--s3-acl=private",),
)  # fmt: skip
CONFIG = """[store]
type = s3
access_key_id = AKIAEXAMPLEKEY
secret_access_key = VerySecret/Value+1
endpoint = https://s3.example.com

[other]
type = local
"""


def test_command_line() -> None:
    words = rclone.rclone_argv(replace(TARGET, bandwidth=2048), "lsjson", "store:bucket")
    assert words[:3] == ("rclone", "lsjson", "store:bucket")
    for said in (
        "--config=/etc/rclone.conf",
        "--retries=1",
        "--timeout=120s",
        "--bwlimit=2k",
        "--use-json-log",
        "--s3-acl=private",
    ):
        assert said in words
    assert "--immutable" in rclone.COPY_OPTIONS
    assert not [word for word in rclone.COPY_OPTIONS if "ignore" in word or "delete" in word]


def test_places() -> None:
    assert rclone.place(TARGET) == "store:bucket/db1"
    assert rclone.place(TARGET, "main/x") == "store:bucket/db1/main/x"
    assert rclone.place(replace(TARGET, path="bucket/"), "x") == "store:bucket/x"
    assert rclone.place(replace(TARGET, path="/"), "x") == "store:/x"
    assert rclone.bucket(TARGET) == "bucket"


def test_configuration() -> None:
    assert rclone.config_problem(CONFIG, TARGET) == ""
    assert "has no section [cloud], only these: store, other" in rclone.config_problem(
        CONFIG, replace(TARGET, remote="cloud")
    )
    assert "only these: none" in rclone.config_problem("", TARGET)
    assert "is encrypted" in rclone.config_problem(
        "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nxyz", TARGET
    )


def test_secrets_are_not_said() -> None:
    hidden = rclone.secrets(CONFIG)
    assert set(hidden) == {"VerySecret/Value+1", "AKIAEXAMPLEKEY"}
    said = 'AKIAEXAMPLEKEY: Put "https://s3.example.com/b/x?X-Amz-Signature=abc&X-Amz-Credential=AK": VerySecret/Value+1 no'
    shown = rclone.redacted(said, hidden)
    assert shown == '***: Put "https://s3.example.com/b/x?...": *** no'


def test_features() -> None:
    text = json.dumps({"Hashes": ["md5"], "Features": {"BucketBased": True, "Move": False}})
    assert rclone.parse_features(text) == (True, False, ("md5",))
    assert rclone.parse_features(json.dumps({"Hashes": None, "Features": {}})) == (False, False, ())
    for wrong in ("", "{}", "[]", "unknown command"):
        with pytest.raises(ToolError, match=r"1\.53 or newer"):
            rclone.parse_features(wrong)
    assert rclone.best_hash(("md5", "sha1", "whirlpool")) == "sha1"
    assert rclone.best_hash(("md5", "sha256")) == "sha256"
    assert rclone.best_hash(("quickxor",)) == ""


def test_listing() -> None:
    text = json.dumps(
        [
            {"Path": "main/x", "Size": 5, "IsDir": False},
            {"Path": ".inprogress/main/x", "Size": 5, "IsDir": False},
            {"Path": "main", "Size": -1, "IsDir": True},
        ]
    )
    assert list(rclone.parse_listing(text)) == ["main/x"]
    assert rclone.parse_listing("[\n]\n") == rclone.parse_listing("") == {}
    for wrong in ("[", "{}x", '[{"Name": "x"}]'):
        with pytest.raises(ToolError):
            rclone.parse_listing(wrong)


def test_sums() -> None:
    assert rclone.parse_sums("AB12  main/a b\n  missing\nnothing\n") == {"main/a b": "ab12", "missing": ""}


@given(st.integers(rclone.WHOLE + 1, 10**12), st.integers(0, 10**9))
def test_places_that_are_read_back(size: int, seed: int) -> None:
    found = rclone.places(size, lambda limit: seed % limit)
    assert found[0] == (0, rclone.PIECE)
    assert found[1] == (size - rclone.PIECE, rclone.PIECE)
    assert all(offset >= 0 and offset + count <= size for offset, count in found)


def test_places_of_a_small_file() -> None:
    assert rclone.places(10, lambda limit: limit - 1) == [(0, 10)]


def test_progress_is_read_from_the_statistics() -> None:
    line = '{"level":"warning","msg":"\\nTransferred:","stats":{"bytes":5238793,"checks":2,"deletedDirs":0}}'
    assert rclone.moved(line) == 5238795
    assert rclone.moved("anything") == rclone.moved("") == 0


def _log(message: str, level: str = "error", **more: str) -> str:
    return json.dumps({"level": level, "msg": message, **more})


def test_messages_are_those_of_errors_each_once() -> None:
    said = "\n".join(
        [
            _log("statistics", "warning"),
            _log("Failed to copy: x: \n\tstatus code: 403", object="a", objectType="*s3.Object"),
            _log("Failed to copy: x: \n\tstatus code: 403", object="a", objectType="*s3.Object"),
            "2026/11/25 09:18:17 Failed to copy: immutable file modified",
            "{broken",
        ]
    )
    assert rclone.messages(said) == [
        "a: Failed to copy: x: status code: 403", "Failed to copy: immutable file modified", "{broken",
    ]  # fmt: skip


def test_a_name_that_is_taken_is_no_failure() -> None:
    taken = _log("Source and destination exist but do not match: immutable file modified", object="x")
    more = _log("Can't retry any of the errors - not attempting retries")
    assert rclone.only_stays(f"{taken}\n{more}\n2026/11/25 09:18:17 Failed to copy: immutable file modified")
    assert not rclone.only_stays(f"{taken}\n{_log('connection refused')}")
    assert not rclone.only_stays("")


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            "SignatureDoesNotMatch: \n\tstatus code: 403",
            ConfigurationError,
            "refuses the credentials: correct them in /etc/rclone",
        ),
        ("InvalidAccessKeyId: status code: 403", ConfigurationError, "refuses the credentials"),
        ("ExpiredToken: The provided token has expired", ConfigurationError, "have expired: renew them"),
        ("RequestTimeTooSkewed: status code: 403", ConfigurationError, "set the clock"),
        ("x509: certificate signed by unknown authority", ConfigurationError, "--ca-cert=FILE"),
        (
            "x509: certificate has expired or is not yet valid: current time",
            ConfigurationError,
            "has expired or is not valid yet",
        ),
        ("x509: certificate is valid for a, not b", ConfigurationError, "cannot be reached over TLS"),
        ("http: server gave HTTP response to HTTPS client", ConfigurationError, "speaks no TLS"),
        ("NoSuchBucket: status code: 404", ConfigurationError, "the bucket bucket is not there: create it"),
        ("didn't find section in config file", ConfigurationError, "does not describe store"),
        ("Error: unknown flag: --x", ConfigurationError, "does not know one of the flags"),
        ("QuotaExceeded: status code: 403", SpaceError, "takes no more"),
        ("write /x: no space left on device", SpaceError, "takes no more"),
        ("AccessDenied: Access Denied because object protected by object lock.", LockedCopyError, "holds on to it"),
        ("Object is WORM protected and cannot be overwritten", LockedCopyError, "holds on to it"),
        ("BlobImmutableDueToPolicy: 409", LockedCopyError, "holds on to it"),
        ("Object 'x' is subject to bucket's retention policy", LockedCopyError, "holds on to it"),
        ("AccessDenied: \n\tstatus code: 403", ConfigurationError, "do not permit it"),
        ("dial tcp 127.0.0.1:1: connect: connection refused", ToolError, "store cannot be reached"),
        ("SlowDown: Please reduce your request rate. status code: 503", ToolError, "rclone failed (status 1)"),
    ],
)
def test_failures_say_what_to_do(said: str, kind: type[PgkeepError], message: str) -> None:
    error = rclone.failure(1, f"{_log(said)}\n2026/11/25 09:18:17 Failed to copy: {said}", TARGET, ("VerySecret",))
    assert error.__class__ is kind
    assert message in str(error)


def test_failure_without_words_and_by_a_signal() -> None:
    assert "it said nothing" in str(rclone.failure(1, "", TARGET, ()))
    assert "out of memory" in str(rclone.failure(-9, "", TARGET, ()))
    assert "TopSecret" not in str(rclone.failure(1, _log("bad TopSecret"), TARGET, ("TopSecret",)))
