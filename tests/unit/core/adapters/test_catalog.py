# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import catalog
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import manifest, naming
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import (
    Backup,
    Copy,
    Foreign,
    Pin,
    State,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import RepositoryError

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
DATA = b"a dump"


def document(database: str | None = "shop", created: datetime = NOW, **changes: Any) -> dict[str, Any]:
    """Return the manifest of a backup with one file."""
    kind = "database" if database else "globals"
    stem = naming.stem(kind, database, created)
    moment = created.isoformat().replace("+00:00", "Z")
    values: dict[str, Any] = dict.fromkeys(key.name for key in manifest.KEYS)
    values.update(
        manifest_version=1, id=naming.backup_id("main", kind, database, created), instance="main", kind=kind,
        database=database, created=moment, started=moment, finished=moment, duration=1, format="custom",
        compression="none", size=len(DATA), partial=False, left_out=[], warnings=[], options="x", command=[], host="h",
        collection_version="0",
        files=[{"path": f"{stem}.dump", "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}],
    )  # fmt: skip
    return {**values, **changes}


def store(repository: Path, *more: str, **changes: Any) -> Path:
    """Write a backup into a repository; return its directory."""
    written = document(**changes)
    path = repository / written["id"]
    path.mkdir(parents=True)
    (path / "manifest.json").write_bytes(manifest.serialize(written))
    (path / written["files"][0]["path"]).write_bytes(DATA)
    return path


def only(repository: Path, **more: Any) -> Backup | Foreign:
    """Return the one thing that stands in a repository."""
    (found,) = catalog.scan(str(repository), **more)
    return found


def test_a_backup_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = store(tmp_path)
    found = only(tmp_path)
    assert found == manifest.backup_of(document(), str(path))
    assert found == only(tmp_path, problem_of=catalog.checksum_problem)


def test_backups_come_in_order_with_folders_and_instances(tmp_path: Path) -> None:
    for hour in (12, 10, 11):
        store(tmp_path, created=NOW.replace(hour=hour))
        store(tmp_path, database=None, created=NOW.replace(hour=hour))
    ids = [item.id for item in catalog.scan(str(tmp_path)) if isinstance(item, Backup)]
    assert ids == sorted(ids)
    assert len(ids) == 6
    wanted = list(catalog.scan(str(tmp_path), lambda instance, folder: (instance, folder) == ("main", "shop")))
    assert len(wanted) == 3
    assert list(catalog.scan_database(str(tmp_path / "main" / "nowhere"), "main/nowhere")) == []


def test_a_backup_with_its_state(tmp_path: Path) -> None:
    path = store(tmp_path)
    state = State(pin=Pin("why", NOW), levels={"restore": NOW}, copies=(Copy("vault", NOW, "sha256"),))
    (path / "state.json").write_bytes(manifest.serialize(manifest.state_document(state)))
    found = only(tmp_path)
    assert isinstance(found, Backup)
    assert found.state == state


# --- what is there and is not whole ---


def cut(path: Path) -> None:
    next(path.glob("*.dump")).write_bytes(DATA[:-1])


def take_away(path: Path) -> None:
    next(path.glob("*.dump")).unlink()


def link(path: Path) -> None:
    dump = next(path.glob("*.dump"))
    dump.rename(path / "elsewhere")
    dump.symlink_to(path / "elsewhere")


def directory(path: Path) -> None:
    take_away(path)
    (path / "shop_2025-11-05_14-30-00.dump").mkdir()


def write_state(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / "state.json").write_text(text)

    return write


def fifo(path: Path) -> None:
    os.mkfifo(path / "state.json")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "shop_2025-11-05_14-30-00.dump has 5 bytes instead of 6"),
        (take_away, "shop_2025-11-05_14-30-00.dump is missing"),
        (link, "shop_2025-11-05_14-30-00.dump is not a regular file"),
        (directory, "shop_2025-11-05_14-30-00.dump is not a regular file"),
        (write_state("nonsense"), "its state cannot be read (the state is not JSON): repair or remove state.json"),
        (write_state('{"state_version": 2}'), "its state cannot be read (the state has an unknown version"),
        (write_state('{"state_version": 1, "pin": {}}'), "its state cannot be read (the state is damaged)"),
        (fifo, "its state cannot be read (not a regular file)"),
    ],
)
def test_a_damaged_backup_is_one_with_the_reason_and_not_complete(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(store(tmp_path))
    found = only(tmp_path)
    assert isinstance(found, Backup)
    assert found.problem.startswith(said)
    assert not found.complete
    assert not isinstance(only(tmp_path, problem_of=catalog.checksum_problem), Foreign)


def test_an_altered_byte_is_found_where_checksums_are_asked_for(tmp_path: Path) -> None:
    next(store(tmp_path).glob("*.dump")).write_bytes(b"b dump")
    found = only(tmp_path)
    assert isinstance(found, Backup)
    assert found.complete
    checked = only(tmp_path, problem_of=catalog.checksum_problem)
    assert isinstance(checked, Backup)
    assert checked.problem == "shop_2025-11-05_14-30-00.dump was altered: its SHA-256 is not the manifest's"


def test_a_folder_of_the_archive_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    item = {"path": "x.dir/toc.dat", "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    path = tmp_path / "repository" / document()["id"]
    path.mkdir(parents=True)
    (path / "manifest.json").write_bytes(manifest.serialize(document(files=[item])))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "toc.dat").write_bytes(DATA)
    (path / "x.dir").symlink_to(tmp_path / "outside")
    found = only(tmp_path / "repository")
    assert isinstance(found, Backup)
    assert found.problem == "x.dir is a symbolic link"


# --- what is no backup ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "main/shop/shop_2025-11-05_14-30-01"}, "its manifest is that of 'main/shop/shop_2025-11-05_14-30-01'"),
        ({"id": "../../x"}, "its manifest is that of '../../x'"),
        ({"instance": "other"}, "was altered"),
        ({"database": "other"}, "was altered"),
        ({"kind": "globals", "database": None}, "was altered"),
        ({"created": "2031-11-05T14:30:00Z"}, "was altered"),
        ({"manifest_version": 2}, "has version 2"),
        ({"duration": "1"}, "the manifest's duration has the wrong type"),
    ],
)
def test_a_manifest_of_another_backup_makes_it_foreign(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = store(tmp_path)
    (path / "manifest.json").write_bytes(manifest.serialize({**document(), **changes}))
    found = only(tmp_path)
    assert isinstance(found, Foreign)
    assert said in found.reason


def make(name: str, kind: str) -> Callable[[Path], None]:
    def create(repository: Path) -> None:
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        {
            "file": path.touch,
            "directory": path.mkdir,
            "link": lambda: path.symlink_to("/etc"),
            "fifo": lambda: os.mkfifo(path),
        }[kind]()

    return create


STEM = "main/shop/shop_2025-11-05_14-30-00"


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        (make("stranger", "file"), "not a backup"),
        (make("stranger", "link"), "not a backup"),
        (make("main/stranger", "file"), "not a backup"),
        (make("main/shop", "link"), "not a backup"),
        (make("main/shop/notes.txt", "file"), "not a backup"),
        (make("main/shop/old", "directory"), "not a backup"),
        (make(STEM, "directory"), "it has no manifest"),
        (make(STEM, "file"), "not a backup"),
        (make(STEM, "link"), "a symbolic link"),
        (make(f"{STEM}/manifest.json", "file"), "the manifest is not JSON"),
        (make(f"{STEM}/manifest.json", "directory"), "its manifest cannot be read: not a regular file"),
        (make(f"{STEM}/manifest.json", "fifo"), "its manifest cannot be read: not a regular file"),
        (make(f"{STEM}/manifest.json", "link"), "its manifest cannot be read: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_backup_is_foreign_with_the_reason(
    tmp_path: Path, create: Callable[[Path], None], reason: str
) -> None:
    create(tmp_path)
    found = only(tmp_path)
    assert isinstance(found, Foreign)
    assert found.reason == reason


def test_our_own_locks_and_litter_are_neither_backups_nor_foreign(tmp_path: Path) -> None:
    for name in (".lock", ".inprogress-1", ".trash-2"):
        make(f"main/shop/{name}", "file" if name == ".lock" else "directory")(tmp_path)
    assert list(catalog.scan(str(tmp_path))) == []


def test_the_databases_of_an_instance_are_those_with_a_folder_that_pgkeep_makes(tmp_path: Path) -> None:
    for name in ("shop", "a%2Fb", "%40globals", "@globals", "lost+found", "%zz", "-x"):
        (tmp_path / "main" / name).mkdir(parents=True)
    (tmp_path / "main" / "file").touch()
    assert catalog.databases(str(tmp_path), "main") == ["@globals", "a/b", "shop"]
    assert catalog.databases(str(tmp_path), "other") == []


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="cannot be read: Not a directory"):
        list(catalog.scan_database(str(tmp_path / "file"), "x"))
