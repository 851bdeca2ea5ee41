# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the recovery document says, and to whom; that its commands work is shown with real servers."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import recovery_commands as commands
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Copy, Failure, State
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Connection, Target
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.naming import backup_id
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.recovery_commands import Instance, Kept, Place
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.runbook import (
    Site,
    in_order,
    old_after,
    runbook,
)

PAGE = Path(__file__).resolve().parents[4] / "docs" / "runbook.md"
NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
DAY = timedelta(days=1)
PLACE = Place("/srv/backups", several=False)
PROPERTIES: dict[str, Any] = {
    "owner": "shop", "encoding": "UTF8", "locale_provider": "libc", "collate": "de_DE.UTF-8", "ctype": "C",
    "locale": None, "icu_rules": None, "tablespace": "pg_default", "connection_limit": -1, "is_template": False,
    "comment": None, "acl": None, "settings": [
        {"role": None, "name": "work_mem", "value": "7MB"}, {"role": None, "name": "app.key", "value": "S3cret"},
    ],
    "extensions": [
        {"name": "plpgsql", "version": "1.0", "schema": "pg_catalog"},
        {"name": "postgis", "version": "3.4", "schema": "public"},
    ],
    "roles": ["shop", "pg_monitor"], "tablespaces": ["fast"], "tables": 12, "large_objects": 3,
}  # fmt: skip


def taken(database: str | None = "shop", *, age: timedelta = DAY, instance: str = "main", **more: Any) -> Backup:
    kind = "globals" if database is None else "database"
    name = backup_id(instance, kind, database, NOW - age)
    form: dict[str, Any] = {"format": "plain", "database_size": None} if kind == "globals" else {}
    values: dict[str, Any] = {
        "id": name, "instance": instance, "kind": kind, "database": database, "created": NOW - age,
        "finished": NOW - age, "duration": timedelta(seconds=4), "size": 1000, "database_size": 20_000_000,
        "format": "custom", "compression": "zstd:1", "encryption": None, "partial": False, "label": None,
        "server_version": "18.1", "options": "", "path": f"/srv/backups/{name}",
        "state": State(levels={"archive": NOW}, copies=(Copy("vault", NOW, "sha256"),)), "problem": "", **form, **more,
    }  # fmt: skip
    return Backup(**values)


def document(backup: Backup, **more: Any) -> dict[str, Any]:
    suffix = "sql" if backup.kind == "globals" else "dump"
    return {
        "host": "db1", "format": backup.format, "compression": "zstd:1",
        "compressed_by": None if backup.kind == "globals" else "pg_dump", "encryption": None, "left_out": [],
        "server_version": "18.1", "tool_version": "18.1", "properties": None if backup.kind == "globals" else PROPERTIES,
        "files": [{"path": f"{backup.id.rpartition('/')[2]}.{suffix}", "size": 1000, "sha256": "0" * 64}], **more,
    }  # fmt: skip


GOOD = {"id": "main/shop/x", "at": "2025-11-04T03:00:00Z", "verdict": "good", "recovery_seconds": 73.0}


def kept(*backups: Backup, drills: tuple[dict[str, Any], ...] = (GOOD,), **more: Any) -> Kept:
    best = commands.to_restore(backups)
    return Kept(backups, document(best, **more) if best else None, drills)


def instance(*databases: Kept, name: str = "main", **more: Any) -> Instance:
    values = {"connection": Connection(), "globals": kept(taken(None, instance=name), drills=()), **more}
    return Instance(name=name, databases=databases, **values)


def written(*instances: Instance, now: datetime = NOW, **more: Any) -> str:
    values = {"repository": "/srv/backups", "owner": "postgres", "config_dir": "/etc/pgkeep", **more}
    return runbook(Site(instances=instances, **values), now)


def part(text: str, title: str) -> str:
    return next((found for found in re.split(r"^## ", text, flags=re.MULTILINE) if found.startswith(title)), "")


# --- the whole ---


def test_the_parts_stand_in_the_order_in_which_they_are_needed() -> None:
    text = written(instance(kept(taken())))
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == [
        "What is backed up", "Where the copies are", "Which keys are needed", "In every shell, first",
        "0. Is the data really gone?", "1. The host is lost", "2. Roles and tablespaces", "3. The databases",
        "4. One database or one table, in place of a live one", "5. Without pgkeep", "6. Check what came back",
    ]  # fmt: skip
    assert text.startswith("# Recovery of `db1`\n")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_nothing_in_it_depends_on_the_time_until_a_backup_is_old() -> None:
    one = instance(kept(taken(), taken(age=2 * DAY)))
    assert written(one) == written(one, now=NOW + timedelta(hours=23))
    assert written(one) != written(one, now=NOW + 2 * DAY)


def test_several_instances_are_told_apart_everywhere() -> None:
    old = taken(instance="old", server_version="15.2")
    other = kept(old, server_version="15.2", tool_version="15.2")
    bare = kept(taken(None, instance="old"), drills=(), server_version="15.2", tool_version="15.2")
    both = [instance(kept(taken())), instance(other, name="old", globals=bare, connection=Connection(login_port=5433))]
    text = written(*both)
    assert re.findall(r"^## 3.*$", text, re.MULTILINE) == [
        "## 3. The databases of instance `main`",
        "## 3. The databases of instance `old`",
    ]
    assert "--instance=old --login-port=5433 shop" in text
    assert "postgresql-15 postgresql-client-15" in text
    assert "postgresql-18 postgresql-client-18" in text


# --- what is wrong stands at the top ---


def test_a_damaged_newest_backup_is_said_and_the_one_before_it_used() -> None:
    bad, good = taken(problem="shop.dump has 1 bytes instead of 2"), taken(age=2 * DAY)
    text = written(instance(kept(bad, good)))
    assert f"`{bad.id}`, is damaged: `shop.dump has 1 bytes instead of 2`" in part(text, "Attention")
    assert good.path in part(text, "5.")
    assert bad.path not in text


def test_a_database_without_any_good_backup_stands_at_the_top_and_has_no_commands() -> None:
    text = written(instance(kept(taken("lost", problem="it is gone")), kept(taken())))
    assert "**no backup of `lost` is good**" in part(text, "Attention")
    assert "It has no good backup" in part(text, "3.")
    assert "pgkeep restore --repository=/srv/backups lost" not in text


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (instance(kept(taken(age=9 * DAY))), "is old: it is of 2025-10-27T14:30:00Z"),
        (instance(kept(taken(partial=True), left_out=["rows of <b>"])), "only a partial backup of `shop`. Left out"),
        (instance(kept(taken(), encryption="age")), "`shop` is encrypted with `age`"),
        (instance(kept(taken()), globals=None), "no backup of the roles"),
        (instance(kept(taken(state=State()))), "no copy outside this repository is recorded of `shop`"),
        (
            instance(kept(taken(), drills=(GOOD, {"id": "x", "at": "y", "verdict": "differs <b>"}))),
            "the last drill of `shop`, at `y` with `x`, did not go well: differs &#60;b&#62;.",
        ),
    ],
)
def test_what_a_person_has_to_know_first_is_under_attention(one: Instance, said: str) -> None:
    assert said in part(written(one), "Attention")


def test_what_was_never_read_or_never_restored_is_not_proven() -> None:
    text = written(instance(kept(taken(state=State()), drills=()), kept(taken("fine"))))
    unproven = part(text, "Not proven")
    assert "no backup was ever verified of `shop`." in unproven
    assert "no drill ever restored `shop`" in unproven
    assert "fine" not in unproven
    assert text.index("## Not proven") < text.index("## What is backed up")


def test_a_backup_that_failed_its_verification_is_damaged() -> None:
    failure = Failure(NOW, "archive", "altered", "was altered")
    bad = taken(state=State(failure=failure), problem="failed its verification")
    assert "failed its verification" in part(written(instance(kept(bad, taken(age=2 * DAY)))), "Attention")


def test_an_empty_repository_and_notes_are_said() -> None:
    text = written(notes=("the jobs could not be read.",))
    assert "There is no backup in this repository" in part(text, "Attention")
    assert "- the jobs could not be read." in part(text, "Attention")


# --- time ---


def test_the_last_good_drill_says_how_long_it_takes() -> None:
    slow = {**GOOD, "recovery_seconds": 754.3, "at": "2025-11-03T03:00:00Z", "finished": "2025-11-03T03:20:00Z"}
    bad = {"id": "x", "at": "2025-11-04T03:00:00Z", "verdict": "differs", "recovery_seconds": 1.0}
    text = written(instance(kept(taken(), drills=(GOOD, slow, bad))))
    assert "Expect 12m 34s: the drill of `2025-11-03T03:20:00Z` restored `main/shop/x`" in text


@pytest.mark.parametrize("value", [None, "1", True, -1, float("nan"), float("inf"), 1e12, [1]])
def test_a_time_that_is_none_is_not_shown(value: Any) -> None:
    assert commands.measured(value) is None
    text = written(instance(kept(taken(), drills=({**GOOD, "recovery_seconds": value, "compared": value},))))
    assert "Expect an unknown time" in text


def test_what_is_quick_comes_first() -> None:
    databases = [
        kept(taken("a"), drills=({**GOOD, "recovery_seconds": 50},)),
        kept(taken("b"), drills=({**GOOD, "recovery_seconds": 2},)),
        kept(taken("c"), drills=()),  # 20 MB
    ]
    assert [item.title for item in in_order(databases)] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("ages", "days"), [((1,), 2), ((1, 2, 3), 2), ((1, 8, 15), 14), ((1, 2, 3, 10, 40, 70), 14), ((), 2)]
)
def test_a_backup_is_old_when_twice_the_usual_time_is_over(ages: tuple[int, ...], days: int) -> None:
    assert old_after([taken(age=age * DAY) for age in ages]) == days * DAY


# --- commands ---


def test_what_a_job_says_of_the_connection_is_in_the_commands_and_the_password_is_not() -> None:
    connection = Connection(
        login_host="db", login_port=5433, login_user="backup", login_password="S3cret", ssl_mode="verify-full",
        ca_cert="/etc/ca.pem", passfile="/etc/pgkeep/pgpass", session_role="the boss",
    )  # fmt: skip
    one = instance(kept(taken()), connection=connection, bin_dir="/opt/pg/bin", password_in="a safe")
    text = written(one)
    assert "S3cret" not in text
    assert "--login-host=db --login-port=5433 --login-user=backup --ssl-mode=verify-full" in re.sub(
        r" \\\n +", " ", part(text, "3.")
    )
    assert commands.prepare(one) == [
        "set -o pipefail",
        'export PATH=/opt/pg/bin:/usr/lib/postgresql/18/bin:/usr/pgsql-18/bin:"$PATH"',
        "export PGHOST=db", "export PGPORT=5433", "export PGUSER=backup", "export PGSSLMODE=verify-full",
        "export PGSSLROOTCERT=/etc/ca.pem", "export PGPASSFILE=/etc/pgkeep/pgpass",
        "export PGOPTIONS='-c role=the\\ boss'", "export PGCLIENTENCODING=UTF8",
    ]  # fmt: skip
    keys = part(text, "Which keys")
    assert "the password of role `backup`. It was in a safe." in keys
    assert "password file `/etc/pgkeep/pgpass`" in keys


def test_a_service_is_named_with_what_overrules_it() -> None:
    one = instance(kept(taken()), connection=Connection(service="db1", service_file="/etc/pg.conf", login_port=5433))
    assert commands.target(one, "it's") == "service='db1' port='5433' dbname='it\\'s'"
    assert "export PGSERVICEFILE=/etc/pg.conf" in commands.prepare(one)
    assert not any("PGPORT" in line for line in commands.prepare(one))


def test_the_database_to_connect_to_is_none_that_is_restored() -> None:
    shop = kept(taken())
    assert commands.maintenance(instance(shop, connection=Connection(login_db="shop"))) == "postgres"
    assert commands.maintenance(instance(shop, connection=Connection(login_db="defaultdb"))) == "defaultdb"


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("shop", "shop"),
        ("postgres", "--if-exists=fill postgres"),
        ("--help", "-- --help"),
        ("it's", '"it\'s"'),
        ("@globals", f"--backup={backup_id('main', 'database', '@globals', NOW - DAY)}"),
    ],
)
def test_the_command_names_the_database_and_nothing_else(name: str, end: str) -> None:
    one = kept(taken(name))
    lines = commands.restore_new(PLACE, instance(one), one)
    assert " ".join(lines) == f"pgkeep restore --repository=/srv/backups {end}"


def test_a_partial_backup_is_restored_only_where_there_is_no_other() -> None:
    part_of, whole = taken(partial=True), taken(age=5 * DAY)
    assert commands.to_restore([part_of, whole]) == whole
    only = kept(part_of)
    assert "--partial" in commands.restore(PLACE, instance(only), only)[0]


@pytest.mark.parametrize(
    ("form", "by", "compression", "begin", "end"),
    [
        ("custom", "pg_dump", "zstd:1", "pg_restore --exit-on-error --jobs=4 --dbname=shop", ".dump"),
        ("custom", "zstd", "zstd:1", "zstd -dc ", "pg_restore --exit-on-error --dbname=shop"),
        ("tar", "gzip", "gzip:3", "gzip -dc ", "pg_restore --exit-on-error --dbname=shop"),
        ("plain", "lz4", "lz4:3", "lz4 -dc ", "--output=/dev/null --dbname=shop"),
        ("plain", None, "none", "psql --no-psqlrc", ".dump"),
        ("plain", "/opt/a b/program", "zstd:1", "zstd -dc ", "--dbname=shop"),
        ("plain", "/opt/a b/program", "rm", "psql --no-psqlrc", ".dump"),  # of an altered manifest nothing is run
    ],
)
def test_every_form_is_unpacked_and_read_by_what_reads_it(
    form: str, by: str | None, compression: str, begin: str, end: str
) -> None:
    one = kept(taken(format=form), compressed_by=by, compression=compression)
    text = " ".join(commands.load(instance(one), one))
    assert text.startswith(begin)
    assert text.endswith(end)


def test_a_directory_is_checked_file_by_file_and_restored_as_one() -> None:
    files = [{"path": f"shop.dir/{name}", "size": 1, "sha256": "0" * 64} for name in ("toc.dat", "1.dat.gz")]
    one = kept(taken(format="directory"), files=files)
    assert commands.load(instance(one), one)[-1].endswith("/shop.dir")
    assert "manifest.json" in " ".join(commands.check_bytes(one))


def test_settings_that_may_be_secrets_are_named_and_not_shown() -> None:
    text = written(instance(kept(taken())))
    assert "S3cret" not in text
    assert "Set by hand what may be secret, `app.key`" in text
    assert "work_mem" in part(text, "5.")


def test_what_the_server_needs_besides_is_said_before_it_is_needed() -> None:
    lost_host = part(written(instance(kept(taken()))), "1.")
    assert "`postgis 3.4`" in lost_host
    assert "plpgsql" not in lost_host
    assert "`de_DE.UTF-8`" in lost_host
    assert "Tablespaces: `fast`" in lost_host
    assert (
        "`grep TABLESPACE /srv/backups/main/@globals/globals_2025-11-04_14-30-00/globals_2025-11-04_14-30-00.sql`"
        in lost_host
    )


def test_properties_that_are_not_all_there_count_for_nothing() -> None:
    one = kept(taken(), properties={"owner": "shop"})
    assert one.properties is None
    assert "CREATE DATABASE" in written(instance(one))


def test_a_server_is_as_new_as_the_program_that_wrote_the_archive() -> None:
    assert instance(kept(taken(), server_version="15.2", tool_version="17.1"), globals=None).major == 17
    assert instance(kept(taken(), server_version=None, tool_version=None), globals=None).major is None


@pytest.mark.parametrize("name", ["a|b", "<script>alert(1)</script>", "new\nline", "`id`", "```", "x" * 63, "é" * 31])
def test_a_hostile_name_is_text_outside_of_commands(name: str) -> None:
    text = written(instance(kept(taken(name))))
    prose = re.sub(r"^(```+)\w+\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in prose
    assert "```" not in prose
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in part(prose, "What is backed up").splitlines() if line.startswith("|")} == {9}
    assert rows
    assert len(commands.rescue_name(name).encode()) <= 63


def test_the_copies_are_named_with_the_newest_of_each_target() -> None:
    newest, older = (
        taken(state=State()),
        taken(age=2 * DAY, state=State(copies=(Copy("b|c", NOW, "md5"), Copy("vault", NOW, "md5")))),
    )
    copies = part(written(instance(kept(newest, older))), "Where the copies are")
    assert "| `main/shop` | `vault` | 2025-11-03T14:30:00Z |" in copies
    assert "b&#124;c" in copies


def test_globals_that_are_damaged_have_no_step() -> None:
    bad = replace(taken(None), problem="gone")
    text = written(instance(kept(taken()), globals=Kept((bad,))))
    assert "Create by hand the roles that the databases name: `shop`." in part(text, "2.")
    assert "without pgkeep\n\nThat roles" not in text


def test_the_example_of_the_documentation_is_what_is_written() -> None:
    orders = kept(taken("orders", age=9 * DAY, state=State()), drills=())
    text = written(instance(kept(taken()), orders))
    (example,) = re.findall(r"^````markdown\n(.*?)\n````$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for piece in example.split("\n...\n"):
        assert piece.strip("\n") in text


def test_each_target_of_the_jobs_is_brought_back_with_a_command_of_its_own() -> None:
    targets = (
        ("nas", Target("directory", "/mnt/nas/db1")),
        ("vault", Target("rsync", host="backup.example.com", user="pgkeep", port=2222)),
        ("store", Target("rsync", "copies/db1", host="old.example.com", append_only=False)),
        ("cloud", Target("rclone", "bucket/db1", remote="s3", config_file="/etc/pgkeep/rclone.conf")),
    )
    text = written(instance(kept(taken())), targets=targets)
    assert "HOST:PATH" not in text
    for line in (
        "rsync --archive --exclude=state.json /mnt/nas/db1/ /srv/backups/",
        "rsync --archive --exclude=state.json --rsh 'ssh -p 2222' backup.example.com:PATH/ /srv/backups/",
        "rsync --archive --exclude=state.json old.example.com:copies/db1/ /srv/backups/",
        "rclone --config /etc/pgkeep/rclone.conf copy --immutable s3:bucket/db1 /srv/backups/",
    ):
        assert line in text
    assert "whose key of this host cannot read" in text


def test_without_a_target_the_place_of_the_copy_is_to_be_filled_in() -> None:
    assert "HOST:PATH/" in written(instance(kept(taken())))
