# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verification: what is good in every form, what is damaged in every way, and what becomes of the result."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import catalog
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.prune import prune
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import Verified, verify

from tests.integration.samples import Engine, make_sample, manifest, tree
from tests.keeper import Keeper
from tests.postgres import Server


@pytest.fixture(scope="module")
def database(debian_server: Server) -> str:
    """The sample, of which nothing here changes anything."""
    return make_sample(debian_server, "verified")


def verified(engine: Engine, check: bool = False, **more: Any) -> Verified:
    return verify({"repository": str(engine.repository), **more}, check, engine.clock)


def archive(item: Backup) -> Path:
    """Given a backup, return its first file."""
    return Path(item.path, manifest(item)["files"][0]["path"])


def reread(item: Backup) -> Backup:
    found = catalog.read_backup(item.path, item.id)
    assert isinstance(found, Backup)
    return found


def sign_again(item: Backup) -> None:
    """Given a backup whose archive was changed, write a manifest that believes it: what only reading can find."""
    document = manifest(item)
    for entry in document["files"]:
        data = Path(item.path, entry["path"]).read_bytes()
        entry["size"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    document["size"] = sum(entry["size"] for entry in document["files"])
    Path(item.path, "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize("compression", ["none", "gzip:1", "zstd:1"])
@pytest.mark.parametrize("form", ["custom", "directory", "plain", "tar"])
def test_a_backup_of_every_form_is_good(engine: Engine, database: str, form: str, compression: str) -> None:
    if form == "directory" and compression.startswith("zstd"):
        compression = "gzip:3"  # pg_dump 15 has no zstd inside
    taken = engine.take_one(database, format=form, compression=compression)
    result = verified(engine)
    assert [item.verdict for item in result.verifications] == ["good"], result.message
    assert (result.changed, result.failed, result.exit_code, result.left) == (True, False, 0, 0)
    state = reread(taken).state
    assert (state.verified_level, set(state.levels), state.failure) == ("archive", {"checksum", "archive"}, None)


def test_to_have_verified_nothing_is_no_success(engine: Engine, database: str) -> None:
    engine.take(database)
    done = verified(engine, databases=[database, "no_such", "@globals"])
    assert (done.failed, done.exit_code) == (True, 4)
    assert done.message == "there is no backup of 'no_such'; there is no backup of '@globals'"
    assert verified(engine, databases=[database], verified=False).exit_code == 0, "a filter may leave nothing"
    assert verified(engine, check=True, databases=["no_such"]).exit_code == 1
    nothing = verified(engine, instance="another")
    assert (nothing.exit_code, nothing.message) == (1, "there are no backups: check `repository` and `instance`")


def test_the_globals_are_verified_too(engine: Engine, database: str) -> None:
    engine.take(database, globals=True)
    assert [(item.backup.title, item.verdict) for item in verified(engine).verifications] == [
        (database, "good"),
        ("@globals", "good"),
    ]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (Path.unlink, "missing", "is missing"),
        (cut, "truncated", "instead of"),
        (grow, "altered", "instead of"),
        (flip, "altered", "its SHA-256 is not the manifest's"),
    ],
)
def test_damage_is_told_apart_kept_and_cured(
    engine: Engine, database: str, damage: Callable[[Path], None], kind: str, words: str
) -> None:
    taken = engine.take_one(database)
    good = archive(taken).read_bytes()
    verified(engine)
    damage(archive(taken))
    result = verified(engine, level="checksum")
    (item,) = result.verifications
    assert (item.verdict, result.failed, result.exit_code) == (kind, True, 1)
    assert words in item.problem
    assert archive(taken).name in item.problem
    after = reread(taken)
    assert (after.complete, after.state.verified) == (False, None)
    assert after.state.failure
    assert (after.state.failure.kind, after.state.failure.level) == (kind, "checksum")

    archive(taken).write_bytes(good)
    assert "failed its verification" in reread(taken).problem, "nobody has looked again yet"
    assert verified(engine, level="checksum").exit_code == 0
    assert reread(taken).complete


@pytest.mark.parametrize(
    ("form", "compression"),
    [("custom", "none"), ("custom", "zstd:1"), ("plain", "none"), ("plain", "gzip:1"), ("tar", "none")],
)
def test_an_archive_whose_end_is_missing_is_unreadable_even_where_the_manifest_believes_it(
    engine: Engine, database: str, form: str, compression: str
) -> None:
    taken = engine.take_one(database, format=form, compression=compression)
    os.truncate(archive(taken), archive(taken).stat().st_size * 2 // 3)
    sign_again(taken)
    assert verified(engine, level="checksum").exit_code == 0
    (item,) = verified(engine).verifications
    assert item.verdict == "unreadable", item
    failure = reread(taken).state.failure
    assert failure
    assert failure.level == "archive"
    # What only the higher level found is not cured by the lower one.
    assert verified(engine, level="checksum").exit_code == 0
    assert not reread(taken).complete


def test_a_failed_backup_neither_counts_for_retention_nor_is_it_deleted(engine: Engine, database: str) -> None:
    engine.now = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
    older = engine.take_one(database)
    engine.now += timedelta(days=1)
    newer = engine.take_one(database)
    flip(archive(newer))
    verified(engine, level="checksum")
    pruned = prune({"repository": str(engine.repository), "keep_last": 1}, False, engine.clock)
    assert pruned.deleted == ()
    assert Path(older.path).is_dir()
    assert Path(newer.path).is_dir()


def test_a_backup_that_is_being_read_is_not_pruned(engine: Engine, database: str) -> None:
    engine.now = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
    older = engine.take_one(database)
    engine.now += timedelta(days=1)
    engine.take_one(database)
    raw = {"repository": str(engine.repository), "keep_last": 1}
    reader = os.open(older.path, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    pruned = prune(raw, False, engine.clock)
    assert (pruned.deleted, pruned.in_use) == ((), (older.id,))
    assert "is being restored or verified" in pruned.warnings[0]
    os.close(reader)
    assert prune(raw, False, engine.clock).deleted != ()


def test_the_work_is_spread_over_days(engine: Engine, database: str) -> None:
    engine.now = datetime(2025, 11, 1, tzinfo=timezone.utc)
    for _unused in range(4):
        engine.take_one(database)
        engine.now += timedelta(hours=1)
    seen: list[str] = []
    for _unused in range(2):
        engine.now += timedelta(days=1)
        planned = verified(engine, check=True, sample=2, max_age="30d", level="checksum")
        result = verified(engine, sample=2, max_age="30d", level="checksum")
        assert [item.backup.id for item in planned.verifications] == [item.backup.id for item in result.verifications]
        assert result.left == 2
        seen += [item.backup.id for item in result.verifications]
    assert len(set(seen)) == 4
    nothing = verified(engine, max_age="30d", level="checksum")
    assert (nothing.verifications, nothing.left, nothing.changed) == ((), 4, False)
    engine.now += timedelta(days=60)
    (next_one,) = verified(engine, sample=1, level="checksum").verifications
    assert next_one.backup.id in seen[:2]
    assert len(verified(engine, latest=True, level="checksum").verifications) == 1


def test_check_mode_reads_and_writes_nothing(engine: Engine, database: str) -> None:
    taken = engine.take_one(database)
    flip(archive(taken))
    before = tree(engine.repository)
    result = verified(engine, check=True)
    assert ([item.verdict for item in result.verifications], result.changed) == (["planned"], True)
    assert tree(engine.repository) == before


def test_without_the_tools_nothing_is_said_about_the_backup(engine: Engine, database: str, tmp_path: Path) -> None:
    taken = engine.take_one(database)
    (item,) = verified(engine, bin_dir=str(tmp_path)).verifications
    assert (item.verdict, item.recorded) == ("error", False)
    assert "bin_dir" in item.problem
    assert reread(taken).state.failure is None


def test_the_command_verifies_a_copy_and_list_shows_the_result(
    engine: Engine, database: str, tmp_path: Path, program: Path
) -> None:
    taken = engine.take_one(database)
    copy = tmp_path / "copy"
    shutil.copytree(engine.repository, copy)
    copy.chmod(0o700)
    keeper = Keeper(program, engine.server, copy)
    done = keeper.run("verify", "--bin-dir", str(engine.server.bindir))
    assert (done.code, done.err) == (0, ""), done
    assert f"{taken.id}: good (archive)" in done.out
    assert "verified (archive)" in keeper.run("list").out
    assert listing({"repository": str(engine.repository)}, False, engine.clock).backups[0].state.verified is None
    cut(copy / Path(archive(taken)).relative_to(engine.repository))
    done = keeper.run("verify", "--level", "checksum", database)
    assert done.code == 1
    assert done.err.startswith(f"pgkeep: error: {taken.id}: truncated: ")
    assert "DAMAGED" in keeper.run("list").out
