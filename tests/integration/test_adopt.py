# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dumps that other tools made become backups like any other: found by name or content, read to the end, never guessed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.adopt import adopt
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing

from tests.integration.samples import Engine, contents, manifest, restore, tree
from tests.keeper import Keeper
from tests.postgres import Server

NewDatabase = Callable[..., str]
PACKERS = {"": (), ".gz": ("gzip", "-c"), ".zst": ("zstd", "-qc"), ".lz4": ("lz4", "-qc")}


@pytest.fixture(scope="module")
def dumps(debian_server: Server, samples: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One dump of the sample in each format, and of the globals, as pg_dump and pg_dumpall write them."""
    directory = tmp_path_factory.mktemp("dumps")
    target = debian_server.conninfo("sample")
    found = {}
    for name, option in (("custom", "-Fc"), ("plain", "-Fp"), ("tar", "-Ft"), ("directory", "-Fd")):
        found[name] = directory / name
        debian_server.run("pg_dump", option, "-f", str(found[name]), "-d", target)
    for name, option in (("globals", "--globals-only"), ("cluster", "--no-comments")):
        found[name] = directory / name
        debian_server.run("pg_dumpall", option, "-f", str(found[name]), "-d", debian_server.conninfo())
    return found


def run(engine: Engine, *paths: Path, check: bool = False, **more: Any) -> Any:
    """Given dumps and options, adopt them."""
    raw = {"repository": str(engine.repository), "reserve": "0", **more}
    return adopt(raw, [str(path) for path in paths], check, engine.clock)


def place(dump: Path, path: Path, suffix: str = "") -> Path:
    """Given a dump, put it, compressed as the suffix says, under another name; return that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if dump.is_dir():
        shutil.copytree(dump, path)
    elif PACKERS[suffix]:
        path.write_bytes(subprocess.run([*PACKERS[suffix], dump], capture_output=True, check=True).stdout)
    else:
        shutil.copyfile(dump, path)
    return path


# --- forms and names ---


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(
    ("form", "ending"), [("custom", ".dump"), ("plain", ".sql"), ("tar", ".tar"), ("directory", ".dir")]
)
def test_a_dump_of_any_form_becomes_a_backup_that_restores_to_the_same(
    debian_server: Server,
    engine: Engine,
    dumps: dict[str, Path],
    fresh_database: NewDatabase,
    tmp_path: Path,
    form: str,
    ending: str,
    suffix: str,
) -> None:
    if form == "directory" and suffix:
        suffix = ""
    dump = place(dumps[form], tmp_path / f"sample_2024-02-29_23-59-58{ending}{suffix}", suffix)
    result = run(engine, dump)
    assert (result.exit_code, result.message) == (0, "")
    taken = result.outcomes[0].backup
    assert (taken.id, taken.format, taken.partial) == ("main/sample/sample_2024-02-29_23-59-58", form, False)
    document = manifest(taken)
    assert document["adopted"] == {"from": str(dump)}
    assert document["server_version"].startswith("15.")
    assert document["tool_version"].startswith("15.")
    inside = "gzip" if form in ("custom", "directory") else "none"
    assert taken.compression == ({".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}.get(suffix) or inside)
    assert dump.exists()
    (listed,) = listing({"repository": str(engine.repository), "checksum": True}, False, engine.clock).backups
    assert listed == taken
    target = fresh_database(debian_server)
    restore(debian_server, taken, target)
    assert contents(debian_server, target) == contents(debian_server, "sample")


@pytest.mark.parametrize(
    ("name", "form", "time"),
    [
        ("sample_2025-11-05_14-30-00.dump", "custom", "2025-11-05T14:30:00Z"),
        ("sample_2025-11-05T14:30:00+02:00.dump", "custom", "2025-11-05T12:30:00Z"),
        ("sample_2025-11-05T14:30:00Z.d", "directory", "2025-11-05T14:30:00Z"),
        ("sample_2025-11-05_14h30m.Wednesday.sql", "plain", "2025-11-05T14:30:00Z"),
        ("sample_week.45.2025-11-05_14h30m.sql", "plain", "2025-11-05T14:30:00Z"),
        ("sample_2025-11-05_14h30m.November.sample.sql", "plain", "2025-11-05T14:30:00Z"),
        ("sample_2025-11-05_14-30-00.backup", "custom", "2025-11-05T14:30:00Z"),
    ],
)
def test_the_names_of_other_tools_are_understood(
    engine: Engine, dumps: dict[str, Path], tmp_path: Path, name: str, form: str, time: str
) -> None:
    place(dumps[form], tmp_path / "found" / "deep" / name)
    (tmp_path / "found" / "notes.txt").write_text("nothing")
    result = run(engine, tmp_path / "found")
    assert result.exit_code == 0, result.message
    (item,) = result.outcomes
    assert (item.database, manifest(item.backup)["created"]) == ("sample", time)


@pytest.mark.parametrize(
    ("zone", "name", "time"),
    [
        ("Europe/Berlin", "sample_2025-07-01_12-00-00.dump", "2025-07-01T10:00:00Z"),
        ("Europe/Berlin", "sample_2025-12-01_12-00-00.dump", "2025-12-01T11:00:00Z"),
        ("Asia/Kolkata", "sample_2025-12-01_00-00-00.dump", "2025-11-30T18:30:00Z"),
        ("Europe/Berlin", "sample_2025-07-01T12:00:00Z.dump", "2025-07-01T12:00:00Z"),
        ("UTC", "sample_2025-07-01_12-00-00.dump", "2025-07-01T12:00:00Z"),
    ],
)
def test_times_in_names_are_of_the_time_zone_that_is_given(
    engine: Engine, dumps: dict[str, Path], tmp_path: Path, zone: str, name: str, time: str
) -> None:
    (item,) = run(engine, place(dumps["custom"], tmp_path / name), timezone=zone).outcomes
    assert manifest(item.backup)["created"] == time


def test_what_a_name_does_not_say_can_be_given(engine: Engine, dumps: dict[str, Path], tmp_path: Path) -> None:
    dump = place(dumps["plain"], tmp_path / "monday.sql")
    assert "its name does not say when it was taken: give --time" in run(engine, dump).message
    said = run(engine, dump, time="2025-01-02T03:04:05Z").message
    assert "neither the archive nor its name says which database it is of: give --database" in said
    result = run(
        engine, dump, time="2025-01-02T03:04:05Z", database="shop", label="old", pin="for ever", instance="attic"
    )
    taken = result.outcomes[0].backup
    assert (taken.id, taken.label, taken.state.pin.reason) == (
        "attic/shop/shop_2025-01-02_03-04-05", "old", "for ever",
    )  # fmt: skip
    custom = place(dumps["custom"], tmp_path / "tuesday")
    assert run(engine, custom, time="2025-01-02").outcomes[0].database == "sample"


def test_the_content_decides_and_not_the_name(engine: Engine, dumps: dict[str, Path], tmp_path: Path) -> None:
    packed = place(dumps["custom"], tmp_path / "other_2025-01-01_00-00-00.sql", ".gz")
    (item,) = run(engine, packed).outcomes
    assert (item.database, item.backup.format, item.backup.compression) == ("sample", "custom", "gzip")
    (file,) = (entry["path"] for entry in manifest(item.backup)["files"])
    assert file == "sample_2025-01-01_00-00-00.dump.gz"


# --- globals ---


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_globals_are_adopted_as_such(engine: Engine, dumps: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    dump = place(dumps["globals"], tmp_path / f"pg_globals_2025-01-01_00-00-00.sql{suffix}", suffix)
    (item,) = run(engine, dump).outcomes
    assert (item.database, item.backup.kind) == ("@globals", "globals")
    assert item.backup.id == "main/@globals/globals_2025-01-01_00-00-00"


@pytest.mark.parametrize("suffix", ["", ".zst"])
@pytest.mark.parametrize("check", [True, False])
def test_a_dump_of_a_whole_cluster_is_refused(
    engine: Engine, dumps: dict[str, Path], tmp_path: Path, suffix: str, check: bool
) -> None:
    dump = place(dumps["cluster"], tmp_path / "dumps" / f"all_2025-01-01_00-00-00.sql{suffix}", suffix)
    assert b"\\connect" in dumps["cluster"].read_bytes()
    before = tree(tmp_path / "dumps")
    result = run(engine, dump, check=check)
    assert result.exit_code == 1
    assert "holds whole databases besides the roles" in result.message
    assert tree(tmp_path / "dumps") == before
    assert list(engine.repository.rglob("*.sql*")) == []


# --- many, again, and moved ---


def test_a_check_says_what_the_run_then_does_and_changes_nothing(
    engine: Engine, dumps: dict[str, Path], tmp_path: Path
) -> None:
    directory = tmp_path / "dumps"
    place(dumps["custom"], directory / "sample_2025-01-01_00-00-00.dump")
    place(dumps["plain"], directory / "sample_2025-01-01_00-00-00.sql")
    place(dumps["tar"], directory / "sample_2025-01-02_00-00-00.tar")
    (directory / "sample_2025-01-03_00-00-00.sql").write_text("SELECT 1;\n")
    run(engine, place(dumps["custom"], directory / "sample_2025-01-04_00-00-00.dump"))
    before = tree(tmp_path)
    planned = run(engine, directory, check=True)
    assert tree(tmp_path) == before
    done = run(engine, directory)
    expected = ["planned", "failed", "planned", "failed", "fresh"]
    assert [item.status for item in planned.outcomes] == expected
    assert [item.status for item in done.outcomes] == [{"planned": "done"}.get(item, item) for item in expected]
    assert [item.database for item in planned.outcomes] == [item.database for item in done.outcomes]
    assert planned.exit_code == done.exit_code == 4
    again = run(engine, directory)
    assert [item.status for item in again.outcomes] == ["fresh", "failed", "fresh", "failed", "fresh"]
    assert not again.changed


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_moved_dump_is_gone_only_when_its_backup_is_complete(
    engine: Engine, dumps: dict[str, Path], tmp_path: Path, form: str
) -> None:
    dump = place(dumps[form], tmp_path / "dumps" / "sample_2025-01-01_00-00-00.dump")
    assert run(engine, dump, move=True, check=True).outcomes[0].status == "planned"
    assert dump.exists()
    assert run(engine, dump, move=True).outcomes[0].backup.complete
    assert list((tmp_path / "dumps").iterdir()) == []


# --- what is no dump, or not all of one ---


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("form", ["custom", "plain", "tar"])
@pytest.mark.parametrize("part", ["half", "the last bytes"])
def test_a_truncated_dump_is_refused_and_stays_where_it_is(
    engine: Engine, dumps: dict[str, Path], tmp_path: Path, form: str, suffix: str, part: str
) -> None:
    whole = dumps[form].read_bytes()
    # A tar ends with a kilobyte of nothing, SQL with a key for psql behind the line that says that it is complete.
    end = len(whole) // 2 if part == "half" else {"tar": -2000, "plain": -250, "custom": -1}[form]
    cut = tmp_path / "cut"
    cut.write_bytes(whole[:end])
    dump = place(cut, tmp_path / "dumps" / f"sample_2025-01-01_00-00-00.sql{suffix}", suffix)
    before = tree(tmp_path / "dumps")
    result = run(engine, dump, move=True)
    assert result.exit_code == 1, result.outcomes
    assert str(dump) in result.message
    assert tree(tmp_path / "dumps") == before
    assert [path.name for path in engine.repository.rglob("*") if path.is_file()] == [".lock"]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".lz4"])
def test_a_compressed_file_that_is_cut_is_refused(
    engine: Engine, dumps: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    dump = place(dumps["plain"], tmp_path / f"sample_2025-01-01_00-00-00.sql{suffix}", suffix)
    dump.write_bytes(dump.read_bytes()[:-5])
    result = run(engine, dump)
    assert result.exit_code == 1
    assert "the archive cannot be read back" in result.message or "the dump has no end" in result.message
    assert list(engine.repository.rglob("*.sql*")) == []


def test_a_directory_that_lacks_a_file_is_refused(engine: Engine, dumps: dict[str, Path], tmp_path: Path) -> None:
    dump = place(dumps["directory"], tmp_path / "sample_2025-01-01_00-00-00.dir")
    next(dump.glob("[0-9]*.dat.gz")).unlink()
    result = run(engine, dump, move=True)
    assert "the archive cannot be read back" in result.message
    assert (dump / "toc.dat").exists()
    assert list(engine.repository.rglob("*.dir")) == []


def test_what_is_no_dump_is_said_and_nothing_changes(engine: Engine, tmp_path: Path) -> None:
    directory = tmp_path / "dumps"
    directory.mkdir()
    text, empty, link = (directory / f"sample_2025-01-0{day}_00-00-00.dump" for day in (1, 2, 3))
    text.write_text("not a dump")
    empty.touch()
    link.symlink_to(text)
    before = tree(directory)
    said = run(engine, text, empty, link, directory / "gone", move=True)
    assert [item.status for item in said.outcomes] == ["failed"] * 4
    assert said.message.count("is not a dump of pg_dump or pg_dumpall") == 2
    assert "cannot be read: No such file or directory" in said.message
    assert tree(directory) == before


def test_the_command_adopts_in_bulk_and_lists_what_it_did(
    keeper: Keeper, dumps: dict[str, Path], tmp_path: Path
) -> None:
    for day in (1, 2):
        place(dumps["custom"], tmp_path / "dumps" / f"sample_2025-01-0{day}_00-00-00.dump")
    planned = keeper.run("adopt", str(tmp_path / "dumps"), "--dry-run")
    assert (planned.code, planned.out.count("planned, would adopt")) == (0, 2)
    done = keeper.run("adopt", str(tmp_path / "dumps"), "--reserve=0")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("sample: done, ") == 2
    assert [item["created"] for item in keeper.listed()] == ["2025-01-02T00:00:00Z", "2025-01-01T00:00:00Z"]
    again = keeper.run("adopt", str(tmp_path / "dumps"), "--json")
    assert [item["status"] for item in again.json["databases"]] == ["fresh", "fresh"]
    around = keeper.run("adopt", str(tmp_path), "--json")  # the repository itself is in there
    assert [item["status"] for item in around.json["databases"]] == ["fresh", "fresh"]
    nothing = keeper.run("adopt", "/nowhere", "--database=x", "--time=2025-01-01")
    assert (nothing.code, "cannot be read: No such file" in nothing.err) == (1, True)
