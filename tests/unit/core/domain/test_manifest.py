# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import manifest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import (
    UNTOUCHED,
    Copy,
    Failure,
    Pin,
    State,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ManifestError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import LEVELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
VALIDATOR = jsonschema.Draft202012Validator(manifest.json_schema())

GOOD: dict[str, Any] = {
    "manifest_version": 1,
    "id": "main/shop/shop_2025-11-05_14-30-00",
    "instance": "main",
    "kind": "database",
    "database": "shop",
    "created": "2025-11-05T14:30:00Z",
    "started": "2025-11-05T14:30:00.123456Z",
    "finished": "2025-11-05T14:30:04.500000Z",
    "duration": 4.376,
    "format": "custom",
    "compression": "zstd:1",
    "compressed_by": "zstd",
    "encryption": None,
    "size": 30,
    "files": [
        {"path": "shop_2025-11-05_14-30-00.dir/toc.dat", "size": 10, "sha256": "0" * 64},
        {"path": "shop_2025-11-05_14-30-00.dir/1.dat", "size": 20, "sha256": "0123456789abcdef" * 4},
    ],
    "content_sha256": "f" * 64,
    "archive_version": "1.14",
    "partial": False,
    "left_out": [],
    "warnings": ["x"],
    "label": None,
    "options": "custom zstd:1",
    "command": ["pg_dump", "-Fc"],
    "server_version": "15.18",
    "system_identifier": "7",
    "tool_version": "15.18",
    "database_size": 1000,
    "properties": {"owner": "postgres"},
    "standby": False,
    "host": "db1",
    "collection_version": "0.1.0",
    "adopted": None,
}


def changed(**changes: Any) -> bytes:
    """Return the bytes of the good manifest with other values; `...` takes a key out."""
    document = {**GOOD, **changes}
    return manifest.serialize({name: value for name, value in document.items() if value is not ...})


def refusal(data: bytes) -> str:
    """Return why a manifest cannot be believed."""
    with pytest.raises(ManifestError) as caught:
        manifest.backup_of(manifest.parse(data), "/srv")
    return str(caught.value)


def test_what_is_written_is_what_is_read() -> None:
    assert manifest.parse(manifest.serialize(GOOD)) == GOOD
    assert VALIDATOR.is_valid(GOOD)
    assert GOOD.keys() == {key.name for key in manifest.KEYS}


def test_a_manifest_is_readable_ascii_in_its_own_order() -> None:
    text = changed(database="数据库\udcff").decode("ascii")
    assert text.startswith('{\n "manifest_version": 1,\n "id": ')
    assert manifest.parse(text.encode())["database"] == "数据库\udcff"


def test_a_manifest_becomes_the_backup_that_it_describes() -> None:
    state = State(pin=Pin("why"))
    backup = manifest.backup_of(manifest.parse(changed()), "/srv/x", state, "")
    assert (backup.id, backup.size, backup.path, backup.state) == (GOOD["id"], 30, "/srv/x", state)
    assert (backup.created, backup.duration) == (NOW, timedelta(seconds=4.376))
    assert backup.finished == NOW + timedelta(seconds=4.5)
    assert backup.complete


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"standby"}))
def test_every_key_is_required(name: str) -> None:
    assert name in refusal(changed(**{name: ...}))


def test_a_manifest_from_before_standbys_were_noted_is_believed() -> None:
    before = manifest.parse(changed(standby=...))
    assert "standby" not in before
    assert VALIDATOR.is_valid(before)


@pytest.mark.parametrize("name", GOOD)
def test_every_key_has_its_type(name: str) -> None:
    types = next(key.types for key in manifest.KEYS if key.name == name)
    for value in ("text", 5, 5.5, True, None, [], {}):
        if type(value) not in types:
            assert name in refusal(changed(**{name: value}))
            assert not VALIDATOR.is_valid({**GOOD, name: value}), (name, value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"manifest_version": 2}, "has version 2, this pgkeep knows 1: update pgkeep"),
        ({"manifest_version": 0}, "no manifest_version"),
        ({"manifest_version": True}, "no manifest_version"),
        ({"kind": "table"}, "kind and database"),
        ({"kind": "globals"}, "kind and database"),
        ({"database": None}, "kind and database"),
        ({"format": "zip"}, "format"),
        ({"duration": -1}, "duration"),
        ({"duration": 10**400}, "duration"),
        ({"size": 31}, "size is not the sum"),
        ({"size": -1}, "size"),
        ({"size": 2**70}, "size"),
        ({"database_size": -1}, "database_size"),
        ({"database_size": 10**400}, "database_size"),
        ({"files": []}, "size is not the sum"),
        ({"created": "yesterday"}, "created is not a time"),
        ({"created": "2025-11-05T14:30:00"}, None),
        ({"created": "2025-02-30T14:30:00Z"}, "created is not a time"),
        ({"created": "2025-W45-3T14:30:0Z"}, "created is not a time"),
        ({"finished": "2025-11-05T14:30+00Z"}, "finished is not a time"),
        ({"finished": "x" * 20}, "finished is not a time"),
        ({"finished": ""}, "finished is not a time"),
    ],
)
def test_a_value_that_cannot_be_believed_is_named(changes: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert manifest.backup_of(manifest.parse(changed(**changes)), "/srv").created == NOW
    else:
        assert said in refusal(changed(**changes))


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "./a", "a\0b", "a/.", "a/.."]
)
def test_a_path_that_leaves_the_backups_directory_is_refused(path: str) -> None:
    files = [{"path": path, "size": 30, "sha256": "0" * 64}]
    assert "leaves the backup's directory" in refusal(changed(files=files))
    assert not manifest.inside(path)


@pytest.mark.parametrize(
    "item",
    [
        None, "x", [], {}, {"path": "a", "size": 30}, {"path": "a", "size": 30, "sha256": "0" * 64, "more": 1},
        {"path": 5, "size": 30, "sha256": "0" * 64}, {"path": "a", "size": "30", "sha256": "0" * 64},
        {"path": "a", "size": True, "sha256": "0" * 64}, {"path": "a", "size": 30, "sha256": "0" * 63},
        {"path": "a", "size": 30, "sha256": "G" * 64}, {"path": "a", "size": 30, "sha256": None},
        {"path": ["a"], "size": 30, "sha256": "0" * 64},
    ],
)  # fmt: skip
def test_a_file_entry_is_path_size_and_checksum_and_nothing_else(item: Any) -> None:
    assert "files" in refusal(changed(files=[item]))
    assert not VALIDATOR.is_valid({**GOOD, "files": [item]})


def test_no_file_stands_there_twice() -> None:
    item = {"path": "a", "size": 15, "sha256": "0" * 64}
    assert "twice" in refusal(changed(files=[item, item]))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"{" * 100_000, b"[" * 1_000_000, b'{"a":' * 50_000,
        b"\0" * 1000, b'{"manifest_version": 1' + b"0" * 5000 + b"}", b"{}", b'{"manifest_version": NaN}',
    ],
    ids=lambda value: repr(value[:20]),
)  # fmt: skip
def test_what_is_no_manifest_is_said_to_be_none(data: bytes) -> None:
    refusal(data)


# --- by their properties ---

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**18, 10**400)
    | st.floats()
    | st.text()
    | st.sampled_from(["2025-11-05T14:30:00Z", "globals", "plain", "../x", "\ud800", "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """The good manifest with some keys changed, added or taken out, also inside files."""
    document = copy.deepcopy(GOOD)
    for name in draw(st.lists(st.sampled_from([*GOOD, "more"]), min_size=1, max_size=3, unique=True)):
        if draw(st.booleans()):
            document[name] = draw(JSON)
        else:
            document.pop(name, None)
    if isinstance(document.get("files"), list) and draw(st.booleans()):
        item = draw(st.dictionaries(st.sampled_from(["path", "size", "sha256", "more"]), JSON, max_size=4))
        document["files"] = [item, *document["files"]][: draw(st.integers(0, 3))]
    return document


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(mutations())
def test_a_document_is_a_backup_or_refused_with_a_reason_and_never_anything_else(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    try:
        parsed = manifest.parse(data)
        backup = manifest.backup_of(parsed, "/srv")
    except ManifestError:
        return
    assert VALIDATOR.is_valid(json.loads(data))
    assert backup.size == sum(item["size"] for item in parsed["files"])
    assert all(manifest.inside(item["path"]) for item in parsed["files"])


@given(mutations())
def test_what_the_schema_refuses_is_refused(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    if not VALIDATOR.is_valid(json.loads(data)):
        with pytest.raises(ManifestError):
            manifest.parse(data)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_with_a_reason(data: bytes) -> None:
    for read in (manifest.parse, manifest.parse_state):
        with pytest.raises(ManifestError):
            read(data)


# --- state ---

TIMES = st.datetimes(timezones=st.just(timezone.utc), min_value=datetime(1970, 1, 1))  # noqa: DTZ001
STATES = st.builds(
    State,
    pin=st.none()
    | st.builds(
        Pin,
        reason=st.text(),
        until=st.none() | TIMES,
    ),
    levels=st.dictionaries(st.sampled_from(LEVELS), TIMES),
    failure=st.none() | st.builds(Failure, at=TIMES, level=st.sampled_from(LEVELS), kind=st.text(), problem=st.text()),
    copies=st.lists(st.builds(Copy, st.text(), TIMES, st.text()), max_size=3).map(tuple),
)


@given(STATES)
def test_a_state_is_read_as_it_was_written(state: State) -> None:
    assert manifest.parse_state(manifest.serialize(manifest.state_document(state))) == state


def test_nothing_said_is_the_state_of_a_new_backup() -> None:
    assert manifest.parse_state(b'{"state_version": 1}') == UNTOUCHED


@given(st.dictionaries(st.sampled_from(["state_version", "pin", "levels", "failure", "copies"]), JSON))
def test_a_state_is_a_state_or_refused_with_a_reason(document: dict[str, Any]) -> None:
    for version in ({}, {"state_version": 1}):
        try:
            state = manifest.parse_state(json.dumps({**document, **version}).encode())
        except ManifestError:
            continue
        assert state.verified_level is None or isinstance(state.verified_level, str)
        assert isinstance(document.get("copies", []), list)
        assert (state.pin is None) is (document.get("pin") is None)


@pytest.mark.parametrize(
    "document",
    [
        {"state_version": 2}, {"state_version": "1"}, {}, {"state_version": 1, "pin": {}},
        {"state_version": 1, "pin": "why"}, {"state_version": 1, "pin": {"reason": "x", "until": "soon"}},
        {"state_version": 1, "pin": {"reason": "x", "until": 5}}, {"state_version": 1, "levels": "soon"},
        {"state_version": 1, "levels": {"archive": 5}}, {"state_version": 1, "levels": 5}, {"state_version": 1, "copies": 5},
        {"state_version": 1, "copies": "vault"}, {"state_version": 1, "copies": ["vault"]},
        {"state_version": 1, "copies": [{"target": "vault"}]},
        {"state_version": 1, "levels": {"what": "2025-11-05T14:30:00Z"}}, {"state_version": 1, "failure": {}},
        {"state_version": 1, "failure": {"at": "2025-11-05T14:30:00Z", "level": 1, "kind": "x", "problem": "x"}},
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_believed_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        manifest.parse_state(json.dumps(document).encode())


def test_the_published_schema_is_this_one() -> None:
    published = Path(__file__).parents[4] / "docs"
    found = [json.loads(path.read_text()) for path in published.rglob("*manifest*.json")]
    assert found == [manifest.json_schema()]
