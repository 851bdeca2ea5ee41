# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of a job's backups in targets: what is brought there, what counts as a copy, and getting data back from one.

The targets here are directories; tests/integration/test_targets.py shows that every kind of target does the same.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.keeper import Done, Keeper, assert_good, finish, leftovers, manifests, write_job, write_target
from tests.playbook import results, run_tasks

COUNT = "SELECT count(*), sum(i) FROM t"


class Host:
    """A configuration with one job and two targets, and what is in each place."""

    def __init__(self, keeper: Keeper, directory: Path, work_dir: Path) -> None:
        self.keeper, self.directory, self.work_dir = keeper, directory, work_dir
        self.etc, self.vault, self.nas = directory / "etc", directory / "vault", directory / "nas"

    def job(self, **options: Any) -> None:
        server = self.keeper.server
        common = {
            "login_unix_socket": str(server.socket_dir), "login_port": server.port, "bin_dir": str(server.bindir),
            "repository": str(self.keeper.repository), "reserve": "0", "work_dir": str(self.work_dir),
            "databases": ["shop"], "targets": ["vault", "nas"],
        }  # fmt: skip
        write_job(self.etc, "main", **{**common, **options})

    def target(self, name: str, **options: Any) -> None:
        write_target(
            self.etc, name, **{"type": "directory", "path": str(self.directory / name), "retries": 0, **options}
        )

    def do(self, command: str, *arguments: str) -> Done:
        keeper = Keeper(self.keeper.program, self.keeper.server, self.keeper.repository)
        keeper.connection = ()
        return finish(keeper.start(command, f"--config-dir={self.etc}", *arguments))

    def run(self) -> Done:
        return self.do("run", "main")

    def sync(self, *arguments: str) -> Any:
        return self.do("sync", "--job=main", "--json", *arguments)

    def copies(self) -> dict[str, list[str]]:
        """Return the targets with a copy of each backup, by its id, as `pgkeep list` says it."""
        return {item["id"]: sorted(copy["target"] for copy in item["copies"]) for item in self.keeper.listed()}

    def take(self, number: int = 1) -> list[str]:
        """Take backups without copying them; return their ids, the newest first."""
        for _unused in range(number):
            assert self.do("backup", "--job=main").code == 0
        return [item["id"] for item in self.keeper.listed("shop")]


@pytest.fixture
def host(keeper: Keeper, fresh_database: Callable[..., str], tmp_path: Path) -> Iterator[Host]:
    """A server with a database, and a job with two targets."""
    fresh_database(keeper.server, "shop")
    keeper.server.psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 500) i", "shop")
    work_dir = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    found = Host(keeper, tmp_path, work_dir)
    found.target("vault")
    found.target("nas")
    found.job()
    yield found
    shutil.rmtree(work_dir)


def side(done: Done, name: str) -> dict[str, Any]:
    (found,) = [item for item in done.json["targets"] if item["target"] == name]
    return dict(found)


# --- bringing ---


def test_a_run_copies_to_every_target_before_it_prunes(host: Host) -> None:
    host.job(keep_last=1, require_copies=2)
    assert host.run().code == 0
    done = host.run()
    assert (done.code, done.err) == (0, "")
    (kept,) = host.keeper.listed("shop")
    for place in (host.vault, host.nas):
        assert len(manifests(place)) == 4  # the globals too, and what was pruned at home since
        for directory in manifests(place):
            assert_good(directory, host.keeper.server)
        assert not list(place.rglob("state.json"))
        assert leftovers(place) == []
    assert [copy["method"] for copy in kept["copies"]] == ["sha256", "sha256"]
    assert host.do("list", f"--repository={host.vault}").out.count("shop_") == 2


def test_what_was_missed_is_brought_later_and_nothing_twice(host: Host) -> None:
    ids = host.take(3)
    shutil.rmtree(host.directory / "vault", ignore_errors=True)
    first = host.sync()
    assert first.code == 0
    assert [item["id"] for item in side(first, "vault")["copied"] if "/shop/" in item["id"]] == [ids[0], ids[2], ids[1]]
    again = host.sync()
    assert side(again, "vault") == {
        "target": "vault", "present": 6, "copied": [], "missing": [], "lost": [], "not_kept": 0, "failures": [],
    }  # fmt: skip
    assert set(map(tuple, host.copies().values())) == {("nas", "vault")}


def test_a_dry_run_says_what_is_missing_and_changes_nothing(host: Host) -> None:
    ids = host.take(2)
    done = host.sync("--dry-run", "shop")
    assert done.code == 0
    assert side(done, "nas")["missing"] == ids
    assert (host.vault.exists(), host.copies()[ids[0]]) == (False, [])


def test_one_target_that_fails_stops_neither_the_backup_nor_the_other_target(host: Host) -> None:
    host.target("vault", path=str(host.directory / "not" / "mounted"))
    done = host.run()
    assert done.code == 4
    assert "pgkeep: error: vault: " in done.err
    assert str(host.directory / "not") in done.err
    assert set(map(tuple, host.copies().values())) == {("nas",)}
    host.target("vault")
    assert host.sync().code == 0
    assert set(map(tuple, host.copies().values())) == {("nas", "vault")}


def test_a_target_that_takes_nothing_is_given_up_after_two_backups(host: Host) -> None:
    host.take(4)
    (host.vault / "main").mkdir(parents=True)
    (host.vault / "main" / "shop").write_text("not a directory")
    done = host.sync("shop")
    failures = side(done, "vault")["failures"]
    assert done.code == 4
    assert [bool(item["id"]) for item in failures] == [True, True, False]
    assert failures[2]["message"] == "2 more were not tried: the target has a problem"
    assert len(side(done, "nas")["copied"]) == 4


def test_what_the_target_has_under_the_name_of_a_backup_is_never_replaced(host: Host) -> None:
    (newest,) = host.take()
    name = newest.rpartition("/")[2]
    folder = host.vault / newest
    folder.mkdir(parents=True)
    (folder / f"{name}.dump").write_text("somebody else's")
    done = host.sync("shop", "--targets=vault")
    assert done.code == 1
    assert "the copy is not the backup" in side(done, "vault")["failures"][0]["message"]
    assert (folder / f"{name}.dump").read_text() == "somebody else's"
    (folder / "manifest.json").write_text("{}")
    done = host.sync("shop", "--targets=vault")
    assert "nothing was replaced" in side(done, "vault")["failures"][0]["message"]
    assert host.copies()[newest] == []


def test_two_hosts_with_databases_of_equal_names_that_share_a_path_by_mistake_hear_of_it(host: Host) -> None:
    (newest,) = host.take()
    assert host.sync("shop", "--targets=vault").code == 0
    directory = host.vault / newest
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**manifest, "host": "another"}))
    done = host.sync("shop", "--targets=vault")
    assert (done.code, side(done, "vault")["present"]) == (1, 0)
    assert host.copies()[newest] == []  # it counts no more


def test_a_copy_that_somebody_deleted_is_told_and_brought_again(host: Host) -> None:
    (newest,) = host.take()
    assert host.sync("shop").code == 0
    shutil.rmtree(host.vault / newest)
    done = host.do("sync", "--job=main", "shop")
    assert done.code == 0
    assert f"warning: vault: the copy of {newest} is gone: who deleted it?" in done.err
    assert_good(host.vault / newest)


def test_a_copy_that_nobody_has_written_down_is_looked_at_and_then_counts(host: Host) -> None:
    (newest,) = host.take()
    assert host.sync("shop", "--targets=vault").code == 0
    (host.keeper.repository / newest / "state.json").unlink()
    done = host.sync("shop", "--targets=vault")
    (copied,) = side(done, "vault")["copied"]
    assert (copied["id"], copied["brought"]) == (newest, False)
    assert host.copies()[newest] == ["vault"]


def test_a_damaged_backup_is_not_copied(host: Host) -> None:
    newest, older = host.take(2)
    (archive,) = (host.keeper.repository / newest).glob("*.dump")
    archive.write_bytes(archive.read_bytes()[:-1])
    flipped = next((host.keeper.repository / older).glob("*.dump"))
    data = bytearray(flipped.read_bytes())
    data[-100] ^= 1
    flipped.write_bytes(data)
    done = host.sync("shop", "--targets=vault")
    (failure,) = side(done, "vault")["failures"]
    assert (failure["id"], done.code) == (older, 1)  # whose bytes are wrong, which sizes do not show
    assert manifests(host.vault) == {}


def test_what_the_retention_of_the_target_would_let_go_is_not_brought(host: Host) -> None:
    ids = host.take(3)
    host.target("vault", keep_last=1)
    done = host.sync("shop", "--targets=vault")
    assert (done.code, side(done, "vault")["not_kept"]) == (0, 2)
    assert [item["id"] for item in side(done, "vault")["copied"]] == [ids[0]]


def test_require_copies_holds_back_what_has_none(host: Host) -> None:
    host.job(keep_last=1, require_copies=2, sync_schedule="never")
    for _unused in range(2):
        assert host.run().code == 0
    assert len(host.keeper.listed("shop")) == 2
    assert host.sync().code == 0
    assert host.do("prune", "--job=main").code == 0
    assert len(host.keeper.listed("shop")) == 1


# --- looking ---


def test_both_sides_are_listed_with_what_is_missing_different_and_only_there(host: Host) -> None:
    ids = host.take(4)
    assert host.sync("shop", "--targets=vault").code == 0
    missing, different, rotten, extra = ids
    shutil.rmtree(host.vault / missing)
    (host.vault / different / f"{different.rpartition('/')[2]}.dump").write_text("short")
    file = host.vault / rotten / f"{rotten.rpartition('/')[2]}.dump"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    shutil.rmtree(host.keeper.repository / extra)
    shown = host.do("list", "--target=vault", "shop", "--json")
    assert {row["id"]: row["verdict"] for row in shown.json["backups"]} == {
        missing: "missing", different: "different", rotten: "same", extra: "extra",
    }  # fmt: skip
    assert shown.code == 1
    looked = host.do("list", "--target=vault", "shop", "--checksum", "--json")
    assert {row["id"]: row["verdict"] for row in looked.json["backups"]}[rotten] == "different"
    lines = host.do("list", "--target=vault", "shop").out.splitlines()
    assert lines[0].split() == ["DATABASE", "BACKUP", "WHERE", "REMARKS"]
    assert "MISSING THERE" in lines[1]
    assert lines[-1] == "vault: 1 here and there, 1 missing there, 1 different, 1 only there"


def test_the_status_names_the_newest_copy_in_each_target(host: Host) -> None:
    assert host.run().code == 0
    host.job(sync_schedule="never")
    _newest, older = host.take()
    (job,) = host.do("status", "--json").json["jobs"]
    shop = next(item for item in job["databases"] if item["database"] == "shop")
    assert [(copy["target"], copy["newest"]) for copy in shop["copies"]] == [("vault", older), ("nas", older)]
    assert "no copy of the newest backup of shop in vault" in host.do("status").err


# --- getting data back ---


@pytest.mark.parametrize("keep_home", [True, False])
def test_a_database_is_restored_from_a_target(host: Host, keep_home: bool) -> None:
    assert host.run().code == 0
    before = host.keeper.server.psql(COUNT, "shop")
    if not keep_home:
        shutil.rmtree(host.keeper.repository)
    done = host.do("restore", "shop", "--job=main", "--from=vault", "--target=shop_back", "--compare")
    assert (done.code, done.err) == (0, "")
    try:
        assert host.keeper.server.psql(COUNT, "shop_back") == before
    finally:
        host.keeper.server.psql("DROP DATABASE shop_back")
    assert list(host.work_dir.iterdir()) == []


def test_a_damaged_copy_is_not_restored(host: Host) -> None:
    assert host.run().code == 0
    (newest,) = [directory for directory in manifests(host.vault) if "shop" in directory.name]
    file = next(newest.glob("*.dump"))
    data = bytearray(file.read_bytes())
    data[-50] ^= 1
    file.write_bytes(data)
    done = host.do("restore", "shop", "--job=main", "--from=vault", "--target=shop_back")
    assert done.code == 1
    assert "is damaged" in done.err
    assert host.keeper.server.psql("SELECT count(*) FROM pg_database WHERE datname LIKE 'shop_back%'") == "0"
    assert list(host.work_dir.iterdir()) == []


def test_a_copy_is_a_repository_for_every_command(host: Host) -> None:
    assert host.run().code == 0
    place = f"--repository={host.vault}"
    programs = f"--bin-dir={host.keeper.server.bindir}"
    assert host.do("verify", place, programs).code == 0
    assert host.do("drill", place, programs, f"--work-dir={host.work_dir}", "shop").code == 0
    assert host.do("stats", place).code == 0
    assert [item["verified_level"] for item in host.do("list", place, "--json", "shop").json["backups"]] == ["restore"]
    assert host.do("prune", place, "--keep-last=1", "--dry-run").code == 0
    # What was written down there disturbs nobody here.
    assert host.sync().code == 0


# --- retention of a target ---


def test_a_target_is_pruned_by_its_own_retention_and_by_pins_at_home(host: Host) -> None:
    assert host.do("backup", "--job=main", "--pin=before 9.1", "--no-globals").code == 0
    host.take(3)
    assert host.sync("--targets=vault").code == 0
    host.target("vault", keep_last=1)
    plan = host.do("prune", "--target=vault", "--job=main", "--dry-run", "shop")
    done = host.do("prune", "--target=vault", "--job=main", "shop", "--json")
    assert (done.code, len(done.json["deleted"])) == (0, 2)
    assert all(name.rpartition("/")[2] in plan.out for name in done.json["deleted"])
    left = sorted(directory.name for directory in manifests(host.vault) if "shop" in directory.name)
    listed = host.keeper.listed("shop")
    assert left == sorted([listed[0]["id"].rpartition("/")[2], listed[-1]["id"].rpartition("/")[2]])
    assert len(listed) == 4  # nothing at home went
    assert [bool(item["copies"]) for item in listed] == [True, False, False, True]
    assert side(host.sync("--targets=vault", "shop"), "vault")["not_kept"] == 2


def test_a_target_without_a_retention_of_its_own_is_not_pruned(host: Host) -> None:
    assert host.run().code == 0
    done = host.do("prune", "--target=vault", "--job=main")
    assert done.code == 2
    assert "target vault: the retention policy has no rule" in done.err
    host.target("vault", keep_last=1)
    done = host.do("prune", "--target=vault", "--job=main", "--keep-last=1")
    assert done.code == 2
    assert "keep_last: a target has its own retention" in done.err


# --- what cannot be meant ---


def test_who_names_no_target_or_an_unknown_one_hears_what_there_is(host: Host) -> None:
    host.take()
    host.job(targets=[])
    done = host.sync()
    assert (done.code, "no target is named" in done.err) == (2, True)
    done = host.sync("--targets=vualt")
    assert done.code == 2
    assert "did you mean vault?" in done.err


# --- the module ---


def test_the_module_does_what_the_command_does(host: Host, tmp_path: Path) -> None:
    ids = host.take(2)
    options = {"config_dir": str(host.etc), "job": "main", "databases": ["shop"]}
    task = {"pgkeep.backup.pg_backup_sync": options}
    planned = results(run_tasks(tmp_path, [task], "-v", "--check"), 1)[0]
    assert (planned["changed"], planned["targets"][0]["missing"]) == (True, ids)
    first, again = results(run_tasks(tmp_path, [task, task], "-v"), 2)
    assert (first["changed"], again["changed"]) == (True, False)
    assert [item["id"] for item in first["targets"][1]["copied"]] == ids
