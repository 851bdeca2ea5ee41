# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What others put into a repository, or did to it: never believed, never counted, never deleted, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.samples import tree
from tests.keeper import Done, Keeper, assert_good, manifests
from tests.postgres import Server


@pytest.fixture(scope="module")
def original(program: Path, lone_zstd_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    """A repository with three backups, which tests copy."""
    keeper = Keeper(program, lone_zstd_server, tmp_path_factory.mktemp("original") / "repository")
    assert [keeper.backup("--label=x").code for _unused in range(3)] == [0, 0, 0]
    return keeper


@pytest.fixture
def keeper(original: Keeper, tmp_path: Path) -> Keeper:
    """A repository of its own with three backups of the database postgres."""
    shutil.copytree(original.repository, tmp_path / "repository")
    return Keeper(original.program, original.server, tmp_path / "repository")


def middle(keeper: Keeper) -> Path:
    """Given the repository, return the directory of the second of the three backups."""
    return sorted(manifests(keeper.repository))[1]


def archive(directory: Path) -> Path:
    (found,) = directory.glob("*.dump")
    return found


def change(directory: Path, **keys: Any) -> None:
    """Given a backup's directory, write the keys into its manifest."""
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **keys}))


Damage = Callable[[Path], object]


def furnish(keeper: Keeper, damages: Iterable[Damage]) -> dict[Damage, Path]:
    """Given the repository and kinds of damage, add an old backup for each and damage it; return their directories."""
    made = {}
    for number, damage in enumerate(damages):
        name = f"postgres_2020-01-01_00-00-{number:02}"
        directory = shutil.copytree(middle(keeper), keeper.repository / "main" / "postgres" / name)
        archive(directory).rename(directory / f"{name}.dump")
        (item,) = json.loads((directory / "manifest.json").read_bytes())["files"]
        created = f"2020-01-01T00:00:{number:02}Z"
        change(directory, id=f"main/postgres/{name}", created=created, files=[{**item, "path": f"{name}.dump"}])
        made[damage] = directory
    assert len(keeper.listed("--complete")) == 3 + len(made)  # each of them is good until it is damaged
    for damage, directory in made.items():
        damage(directory)
    return made


def everything_else_works(keeper: Keeper, bad: Collection[Path]) -> Done:
    """Given a repository and what in it is not good, assert that the three others are listed, that a backup can be
    taken, and that a prune takes those but leaves the bad ones exactly as they are; return the first listing, as text.
    """
    before = {path: tree(path) for path in bad}
    shown = keeper.run("list")
    assert (shown.code, keeper.run("stats").code) == (0, 0)
    assert all(line.isprintable() for line in (shown.out + shown.err).splitlines())
    good = {item["path"] for item in keeper.listed("--complete")}
    assert len(good) == 3
    assert not good & set(map(str, bad))
    taken = keeper.backup()
    assert taken.code == 0, taken
    pruned = keeper.run("prune", "--keep-last=1")
    assert pruned.code == 0, pruned
    (left,) = [item["path"] for item in keeper.listed("--complete")]
    assert left not in good
    assert_good(Path(left))
    assert {path: tree(path) for path in bad} == before
    return shown


# --- the files of a backup ---


def truncate(directory: Path) -> None:
    os.truncate(archive(directory), archive(directory).stat().st_size - 1)


def empty(directory: Path) -> None:
    os.truncate(archive(directory), 0)


def extend(directory: Path) -> None:
    with archive(directory).open("ab") as file:
        file.write(b"\0")


def remove(directory: Path) -> None:
    archive(directory).unlink()


def replace_by_link(directory: Path) -> None:
    archive(directory).rename(directory.parent.parent / "elsewhere")
    archive_name = f"{directory.name}.dump"
    (directory / archive_name).symlink_to(directory.parent.parent / "elsewhere")


def replace_by_fifo(directory: Path) -> None:
    path = archive(directory)
    path.unlink()
    os.mkfifo(path)


def garble_state(directory: Path) -> None:
    (directory / "state.json").write_bytes(b"\0\xff garbage")


def future_state(directory: Path) -> None:
    (directory / "state.json").write_text('{"state_version": 99, "pin": null}')


def odd_state(directory: Path) -> None:
    (directory / "state.json").write_text('{"state_version": 1, "pin": {"reason": 5, "until": [1]}, "copies": 7}')


def fifo_state(directory: Path) -> None:
    os.mkfifo(directory / "state.json")


def move_out_through_a_link(directory: Path) -> None:
    """Make a directory archive of it, which lies elsewhere."""
    outside = directory.parent.parent / f"{directory.name}.dir"
    outside.mkdir()
    (item,) = json.loads((directory / "manifest.json").read_bytes())["files"]
    archive(directory).rename(outside / "toc.dat")
    (directory / "archive.dir").symlink_to(outside)
    change(directory, files=[{**item, "path": "archive.dir/toc.dat"}])


DAMAGE: dict[Damage, str] = {
    truncate: "bytes instead of",
    empty: "has 0 bytes instead of",
    extend: "bytes instead of",
    remove: "is missing",
    replace_by_link: "is not a regular file",
    replace_by_fifo: "is not a regular file",
    move_out_through_a_link: "archive.dir is a symbolic link",
    garble_state: "its state cannot be read (the state is not JSON)",
    future_state: "the state has an unknown version",
    odd_state: "the state is damaged",
    fifo_state: "not a regular file",
}


def test_damaged_backups_are_listed_as_damaged_and_never_pruned(keeper: Keeper) -> None:
    bad = furnish(keeper, DAMAGE)
    found = {item["path"]: item for item in keeper.listed()}
    wrong = {
        damage.__name__: found[str(path)]["problem"]
        for damage, path in bad.items()
        if found[str(path)]["status"] != "damaged" or DAMAGE[damage] not in found[str(path)]["problem"]
    }
    assert wrong == {}
    shown = everything_else_works(keeper, bad.values())
    assert shown.out.count("DAMAGED: ") == len(bad)
    for path in bad.values():
        assert f"main/postgres/{path.name} is damaged: {found[str(path)]['problem']}" in shown.err


def test_an_altered_byte_is_found_by_the_checksum_and_names_backup_and_file(keeper: Keeper) -> None:
    bad = middle(keeper)
    data = bytearray(archive(bad).read_bytes())
    data[len(data) // 2] ^= 1
    archive(bad).write_bytes(data)
    assert {item["status"] for item in keeper.listed()} == {"complete"}
    done = keeper.run("list", "--checksum")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert (
        line
        == f"pgkeep: error: main/postgres/{bad.name} is damaged: {bad.name}.dump was altered: its SHA-256 is not the manifest's"
    )
    assert [item["status"] for item in keeper.run("list", "--checksum", "--json").json["backups"]].count(
        "complete"
    ) == 2


# --- manifests ---


def not_json(directory: Path) -> None:
    (directory / "manifest.json").write_bytes(b"\xff\xfe{not json")


def cut_off(directory: Path) -> None:
    os.truncate(directory / "manifest.json", 100)


def nothing(directory: Path) -> None:
    os.truncate(directory / "manifest.json", 0)


def absent(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def huge(directory: Path) -> None:
    os.truncate(directory / "manifest.json", 100_000_000)


def nested(directory: Path) -> None:
    (directory / "manifest.json").write_text('{"a":' * 500_000)


def linked(directory: Path) -> None:
    path = directory / "manifest.json"
    path.rename(directory / "other.json")
    path.symlink_to("other.json")


def piped(directory: Path) -> None:
    (directory / "manifest.json").unlink()
    os.mkfifo(directory / "manifest.json")


def of_the_future(directory: Path) -> None:
    change(directory, manifest_version=2)


def of_another(directory: Path) -> None:
    other = max(directory.parent.glob("postgres_*/manifest.json"))
    shutil.copy(other, directory / "manifest.json")


def pointing(path: str) -> Callable[[Path], None]:
    def point(directory: Path) -> None:
        change(directory, files=[{"path": path, "size": 0, "sha256": "0" * 64}], size=0)

    point.__name__ = f"pointing to {path!r}"
    return point


def with_a_huge_size(directory: Path) -> None:
    change(directory, files=[{"path": "x", "size": 10**400, "sha256": "0" * 64}], size=10**400)


def with_a_huge_database_size(directory: Path) -> None:
    change(directory, database_size=10**400)


def with_endless_digits(directory: Path) -> None:
    text = (directory / "manifest.json").read_text()
    (directory / "manifest.json").write_text(text.replace('"database_size": ', '"database_size": ' + "9" * 10_000))


def without_a_time(directory: Path) -> None:
    change(directory, created="yesterday")


def beyond_time(directory: Path) -> None:
    change(directory, created="9999-12-31T23:59:59-14:00")


def of_another_database(directory: Path) -> None:
    change(directory, database="another")


def of_another_time(directory: Path) -> None:
    change(directory, created="2035-01-01T00:00:00Z")


def a_list(directory: Path) -> None:
    (directory / "manifest.json").write_text("[1, 2]")


def not_a_number(directory: Path) -> None:
    text = (directory / "manifest.json").read_text()
    (directory / "manifest.json").write_text(text.replace('"duration": ', '"duration": NaN, "was": '))


def terminal_codes(directory: Path) -> None:
    change(directory, id="main/postgres/\x1b[2J\x1b]0;owned\x07\n" + "y" * 1_000_000)


MANIFESTS: dict[Damage, str] = {
    not_json: "the manifest is not JSON",
    cut_off: "the manifest is not JSON",
    nothing: "the manifest is not JSON",
    absent: "it has no manifest",
    huge: "larger than",
    nested: "the manifest is not JSON",
    linked: "its manifest cannot be read",
    piped: "not a regular file",
    of_the_future: "the manifest has version 2, this pgkeep knows 1: update pgkeep",
    of_another: "its manifest is that of 'main/postgres/",
    with_a_huge_size: "the manifest's size",
    with_a_huge_database_size: "the manifest's database_size",
    with_endless_digits: "the manifest",
    without_a_time: "was altered",
    beyond_time: "was altered",
    of_another_database: "was altered",
    of_another_time: "was altered",
    a_list: "is not a JSON object",
    not_a_number: "duration",
    terminal_codes: "its manifest is that of 'main/postgres/\\x1b[2J",
    pointing("../../../../etc/passwd"): "leaves the backup's directory",
    pointing("/etc/passwd"): "leaves the backup's directory",
    pointing("a/../../b"): "leaves the backup's directory",
    pointing("."): "leaves the backup's directory",
    pointing(""): "leaves the backup's directory",
    pointing("nul\0"): "leaves the backup's directory",
}


def test_a_manifest_that_cannot_be_believed_makes_no_backup(keeper: Keeper) -> None:
    bad = furnish(keeper, MANIFESTS)
    shown = keeper.run("list", "--foreign", "--json")
    assert shown.code == 0
    reasons = {item["path"]: item["reason"] for item in shown.json["foreign"]}
    told = {damage.__name__: reasons.get(str(path), "it is listed as a backup") for damage, path in bad.items()}
    assert {name: reason for name, reason in told.items() if len(reason) > 1000} == {}
    expected = {damage.__name__: part for damage, part in MANIFESTS.items()}
    assert {name: reason for name, reason in told.items() if expected[name] not in reason} == {}
    text = everything_else_works(keeper, bad.values())
    assert f"{len(bad)} entries of the repository are not backups" in text.err


# --- what is not ours ---


def test_foreign_things_with_the_names_of_backups_are_reported_and_left_alone(keeper: Keeper) -> None:
    ours = set(keeper.repository.rglob("*"))
    folder = keeper.repository / "main" / "postgres"
    name = "postgres_2020-01-0{}_00-00-00"
    (folder / name.format(1)).write_text("a file")
    os.mkfifo(folder / name.format(2))
    (folder / name.format(3)).symlink_to(middle(keeper))
    (folder / name.format(4)).mkdir()
    (folder / name.format(5)).mkdir()
    (folder / name.format(5) / "manifest.json").mkdir()
    (folder / "postgres_2020-01-01.dump").write_text("another tool's")
    (keeper.repository / "lost+found").mkdir(mode=0)
    (keeper.repository / "README").write_text("mine")
    (keeper.repository / "main" / "not a database").mkdir()
    (keeper.repository / "main" / ".snapshot").mkdir()
    (keeper.repository / "main" / "notes.txt").write_text("mine")
    (folder / "bad\x1b[31m\n\udcff").write_text("odd name")
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path must be short
        try:
            made.bind("postgres_2020-01-06_00-00-00")
        finally:
            os.chdir(here)
    strangers = {path: _state(path) for path in keeper.repository.rglob("*") if path not in ours}

    listed = keeper.run("list", "--json", "--foreign").json
    assert len(listed["backups"]) == 3
    told = {item["path"] for item in listed["foreign"]}
    assert {str(folder / name.format(number)) for number in range(1, 7)} <= told
    text = keeper.run("list", "--foreign")
    assert all(item.isprintable() for line in text.out.splitlines() for item in line)

    taken = keeper.backup()
    assert (taken.code, taken.err) == (0, "")
    assert keeper.run("prune", "--keep-last=1").code == 0
    assert len(keeper.listed()) == 1
    assert {path: _state(path) for path in strangers} == strangers


def _state(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_mode, status.st_mtime_ns, status.st_ino


@pytest.mark.needs_root
def test_a_device_with_the_name_of_a_manifest_is_not_opened(keeper: Keeper) -> None:
    bad = middle(keeper)
    (bad / "manifest.json").unlink()
    try:
        os.mknod(bad / "manifest.json", 0o020600, os.makedev(1, 8))  # /dev/random: reading it would not end
    except PermissionError:
        pytest.skip("devices cannot be made here")
    reasons = keeper.run("list", "--foreign", "--json").json["foreign"]
    assert [item["reason"] for item in reasons] == ["its manifest cannot be read: not a regular file"]
