# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import evidence
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import RepositoryError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.naming import DRILLS_NAME
from hypothesis import given
from hypothesis import strategies as st

from tests.keeper import ROOT

GOOD = {"id": "main/shop/shop_2025-11-05_14-30-00", "at": "2025-11-06T00:00:00Z", "verdict": "good"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / DRILLS_NAME


def drill(number: int, **more: Any) -> dict[str, Any]:
    return {**GOOD, "number": number, **more}


def test_evidence_is_read_as_it_was_kept_the_newest_last(tmp_path: Path, file: Path) -> None:
    kept = [drill(1, problem="é\n\u2028\0"), drill(2, checks=[{"query": "SELECT 1"}])]
    for item in kept:
        evidence.keep(str(tmp_path), item)
    assert evidence.read(str(tmp_path)) == kept
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes().count(b"\n") == 2
    assert file.read_bytes().isascii()


def test_where_no_drill_was_there_is_no_evidence(tmp_path: Path) -> None:
    assert evidence.read(str(tmp_path)) == []
    assert evidence.read(str(tmp_path / "nothing")) == []


@given(st.lists(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text()))))
def test_whatever_is_kept_comes_back(tmp_path_factory: pytest.TempPathFactory, some: list[dict[str, Any]]) -> None:
    folder = str(tmp_path_factory.mktemp("folder"))
    kept = [{**item, **GOOD} for item in some]
    for item in kept:
        evidence.keep(folder, item)
    assert evidence.read(folder) == kept


@pytest.mark.parametrize("torn", range(1, 12))
def test_a_line_that_a_killed_writer_tore_takes_no_other_along(tmp_path: Path, file: Path, torn: int) -> None:
    evidence.keep(str(tmp_path), drill(1))
    evidence.keep(str(tmp_path), drill(2))
    os.truncate(file, file.stat().st_size - torn)
    evidence.keep(str(tmp_path), drill(3))
    # Where the end of the line alone is missing, all of it was written.
    assert evidence.read(str(tmp_path)) == [drill(1), *([drill(2)] if torn == 1 else []), drill(3)]


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"1", b"null", b'"x"', b"{}", b"\0", b"\xff\xfe", b"{" * 100_000, b"[" * 100_000, b"1" * 5000,
        b'{"id": 1, "at": "x", "verdict": "good"}', b'{"id": "x", "at": "x"}', b'{"id": "x", "at": null, "verdict": ""}',
    ],
    ids=lambda line: repr(line[:20]),
)  # fmt: skip
def test_what_is_no_evidence_is_passed_over(tmp_path: Path, file: Path, line: bytes) -> None:
    evidence.keep(str(tmp_path), drill(1))
    with file.open("ab") as stream:
        stream.write(line + b"\n")
    evidence.keep(str(tmp_path), drill(2))
    assert evidence.read(str(tmp_path)) == [drill(1), drill(2)]


def test_of_a_file_of_years_the_end_is_read(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        evidence.keep(str(tmp_path), drill(number))
    for tail in range(1, file.stat().st_size + 10):
        monkeypatch.setattr(evidence, "_TAIL", tail)
        numbers = [item["number"] for item in evidence.read(str(tmp_path))]
        assert numbers == list(range(10))[10 - len(numbers) :]
    assert len(numbers) == 10


def link(path: Path) -> None:
    path.symlink_to(path.parent / "victim")


def hard_link(path: Path) -> None:
    path.hardlink_to(path.parent / "victim")


@pytest.mark.parametrize("make", [link, hard_link, os.mkfifo, Path.mkdir])
def test_nothing_else_is_written_to_and_nobody_waits_for_it(
    tmp_path: Path, file: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "victim").write_text("precious")
    make(file)
    with pytest.raises((RepositoryError, OSError)):
        evidence.keep(str(tmp_path), drill(1))
    assert (tmp_path / "victim").read_text() == "precious"
    assert evidence.read(str(tmp_path)) == []


def test_a_broken_link_makes_no_file_elsewhere(tmp_path: Path, file: Path) -> None:
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        evidence.keep(str(tmp_path), drill(1))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.needs_root
def test_where_nothing_can_be_written_that_is_an_error_and_reading_goes_on(tmp_path: Path) -> None:
    evidence.keep(str(tmp_path), drill(1))
    subprocess.run(["mount", "--bind", "-o", "ro", tmp_path, tmp_path], check=True)
    try:
        with pytest.raises(OSError, match="Read-only"):
            evidence.keep(str(tmp_path), drill(2))
        assert evidence.read(str(tmp_path)) == [drill(1)]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


WRITER = """
import sys
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import evidence
sys.stdin.read(1)
for number in range(200):
    evidence.keep(sys.argv[1], {"id": sys.argv[2], "at": "x", "verdict": "good", "number": number, "more": "x" * 5000})
"""


def test_several_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache/collections")}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name], stdin=subprocess.PIPE, env=environment)
        for name in "abcd"
    ]
    for writer in writers:
        writer.communicate(b"x")
        assert writer.returncode == 0
    found = [json.loads(line) for line in (tmp_path / DRILLS_NAME).read_bytes().splitlines()]
    for name in "abcd":
        assert [item["number"] for item in found if item["id"] == name] == list(range(200))
