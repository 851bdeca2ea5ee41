# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command `pgkeep` as the host has it: one file, run as a process by cron or by a person."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pty
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.version import VERSION

from tests.integration.samples import Engine, contents, locked_table, restore
from tests.keeper import (
    ROOT,
    Keeper,
    assert_no_process,
    assert_untouched,
    finish,
    leftovers,
    snapshot,
    until,
    write_job,
)
from tests.postgres import Server

COMMANDS = ("backup", "list", "stats", "status", "prune", "sync", "run", "adopt", "check-config")
NewDatabase = Callable[..., str]
NewRole = Callable[..., str]


@pytest.fixture
def keeper(sample_keeper: Keeper) -> Keeper:
    """Every server has the database `sample`."""
    return sample_keeper


@pytest.fixture
def debian_keeper(program: Path, debian_server: Server, tmp_path: Path) -> Keeper:
    """The same with the distribution's server."""
    return Keeper(program, debian_server, tmp_path / "repository")


@pytest.fixture(autouse=True)
def _sample(samples: dict[str, str]) -> None:
    """Every server has it, also those that a test asks for by itself."""


def returned(module: str) -> dict[str, Any]:
    """Given a module, return the keys of its result as it documents them, each with those inside it."""
    tree = ast.parse((ROOT / "plugins" / "modules" / f"{module}.py").read_text())
    (text,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RETURN"
    ]
    documented = yaml.safe_load(text)
    documented.pop("msg")
    return _keys(documented)


def _keys(described: dict[str, Any]) -> dict[str, Any]:
    return {name: _keys(item["contains"]) if "contains" in item else None for name, item in described.items()}


def assert_has_keys(value: Any, described: dict[str, Any] | None) -> None:
    """Given a part of a result and its documented keys, assert that it has exactly these, as deep as both go."""
    if described is None:
        return
    for item in value if isinstance(value, list) else [value]:
        if item is not None:
            assert item.keys() == described.keys()
            for name, inside in described.items():
                assert_has_keys(item[name], inside)


def bare(keeper: Keeper, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing but these arguments."""
    return subprocess.run([keeper.program, *arguments], capture_output=True, text=True, check=False, **more)


# --- help and usage ---


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(keeper: Keeper, command: str) -> None:
    done = bare(keeper, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: pgkeep {command} ")
    assert "Exit status: 0 done, 1 failed, 2 usage" in done.stdout


def test_the_help_lists_the_commands(keeper: Keeper) -> None:
    done = bare(keeper, "--help")
    assert done.returncode == 0
    assert set(COMMANDS) <= set(re.findall(r"^    ([a-z-]+)", done.stdout, re.MULTILINE))
    assert "login-password" not in bare(keeper, "backup", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ""),
        (("rewind",), "invalid choice: 'rewind'"),
        (("backup", "--repositroy=/x"), "unrecognized arguments: --repositroy=/x"),
        (("backup", "--format=zip", "--repository=/x"), "invalid choice: 'zip'"),
        (("backup", "--jobs=many", "--repository=/x"), "invalid int value: 'many'"),
        (("backup",), "repository is not set: Directory of the repository."),
        (("backup", "--repository=/tmp/x", "--compression=zstd:99"), "zstd has the levels 1 to 19"),
        (("backup", "--repository=/tmp/x", "--jobs=4"), "parallel jobs need format directory"),
        (("prune", "--repository=/tmp"), "the retention policy has no rule"),
        (("prune", "--repository=/tmp", "--keep-last=-1"), "keep_last is -1: must be 0 or more"),
        (("list", "--repository=/tmp", "--before=yesterday"), "'yesterday' is not a time"),
        (("run", "nightly", "--config-dir=/nowhere"), "/nowhere is not a directory"),
        (("run", "../etc", "--config-dir=/tmp"), "is not the name of a job"),
        (("check-config", "/nowhere.json"), "/nowhere.json cannot be read: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_line_that_cannot_be_used_is_status_2_and_one_message(
    keeper: Keeper, arguments: tuple[str, ...], said: str
) -> None:
    done = bare(keeper, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_collection_and_of_this_very_file(keeper: Keeper) -> None:
    done = bare(keeper, "--version")
    checksum = hashlib.sha256(keeper.program.read_bytes()).hexdigest()
    assert (done.returncode, done.stdout) == (0, f"pgkeep {VERSION} sha256:{checksum}\n")


# --- what people and programs read ---


def test_a_backup_is_one_line_for_each_database_and_the_list_shows_it(keeper: Keeper) -> None:
    done = keeper.run("backup", "sample", "--label=nightly", "--pin=for ever")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert re.fullmatch(r"@globals: done, [0-9.]+ k?B in [0-9.]+s, /.*/main/@globals/globals_[0-9_-]+", lines[0])
    assert re.fullmatch(r"sample: done, [0-9.]+ kB in [0-9.]+s, /.*/main/sample/sample_[0-9_-]+", lines[1])
    listed = keeper.run("list")
    assert (listed.code, listed.err) == (0, "")
    assert "label nightly, pinned" in listed.out
    assert listed.out.splitlines()[0].split()[:4] == ["DATABASE", "BACKUP", "AGE", "SIZE"]
    assert listed.out.splitlines()[-1].startswith("2 backups, ")
    stats = keeper.run("stats", "--keep-last=5")
    assert stats.out.startswith("2 backups, ")
    assert "retention: keep_last 5, keep_minimum 1" in stats.out
    assert "1 pinned" in stats.out


def test_json_has_the_keys_that_the_modules_document(keeper: Keeper) -> None:
    planned = keeper.run("backup", "sample", "missing", "--json", "--dry-run")
    done = keeper.run("backup", "sample", "missing", "--json", "--pin=x", "--exclude=postgres")
    assert (planned.code, done.code) == (4, 4)
    for result in (planned, done):
        assert_has_keys(result.json, returned("pg_backup"))
    assert keeper.backup("sample", "--json").code == 0
    (keeper.repository / "stranger").touch()
    for arguments in ((), ("--foreign", "--limit=1"), ("--checksum", "sample")):
        assert_has_keys(keeper.run("list", "--json", *arguments).json, returned("pg_backup_info"))
    assert_has_keys(keeper.run("stats", "--json", "--keep-daily=3").json, returned("pg_backup_info"))
    for arguments in (("--dry-run",), ()):
        assert_has_keys(keeper.run("prune", "--json", "--keep-last=1", *arguments).json, returned("pg_backup_prune"))


def test_the_list_can_be_narrowed(keeper: Keeper) -> None:
    keeper.run("backup", "sample", "--label=a")
    keeper.backup("sample", "--label=b", "--pin=x", "--tables=orders")
    names = {item["id"]: item["label"] for item in keeper.listed()}
    assert list(names.values()) == ["b", "a", "a"]
    assert [item["label"] for item in keeper.listed("sample")] == ["b", "a"]
    assert [item["kind"] for item in keeper.listed("@globals")] == ["globals"]
    assert [item["partial"] for item in keeper.listed("--label=b")] == [True]
    assert [item["label"] for item in keeper.listed("--pinned")] == ["b"]
    assert [item["label"] for item in keeper.listed("--no-pinned", "--limit=1")] == ["a"]
    assert keeper.listed("--verified") == keeper.listed("--instance=other") == keeper.listed("--no-complete") == []
    assert keeper.listed("--before=2020-01-01") == []
    assert len(keeper.listed("--after=2020-01-01")) == 3
    assert keeper.run("list", "--label=c").out == "no backups\n"


def test_damage_is_a_warning_and_with_checksums_a_failure(keeper: Keeper) -> None:
    keeper.backup("sample")
    (dump,) = keeper.repository.rglob("*.dump")
    data = bytearray(dump.read_bytes())
    data[len(data) // 2] ^= 1
    dump.write_bytes(data)
    assert keeper.run("list").code == 0
    done = keeper.run("list", "--checksum")
    assert done.code == 1
    assert "was altered: its SHA-256 is not the manifest's" in done.err
    dump.write_bytes(data[:-1])
    done = keeper.run("list")
    assert (done.code, "bytes instead of" in done.err) == (0, True)
    assert "1 damaged" in keeper.run("stats").out


def test_a_reader_that_goes_away_is_no_failure(keeper: Keeper) -> None:
    keeper.backup("sample")
    for command in ("list", "stats"):
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.Popen(
            [keeper.program, command, f"--repository={keeper.repository}"], stdout=writing, stderr=subprocess.PIPE
        )
        os.close(writing)
        _unused, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, b"")


def test_a_reader_that_goes_away_neither_ends_a_run_nor_hides_how_it_went(
    keeper: Keeper, fresh_database: NewDatabase
) -> None:
    others = [fresh_database(keeper.server) for _unused in range(3)]
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [f"--repository={keeper.repository}", *keeper.connection, "--reserve=0", "--no-globals"]
    command = [keeper.program, "backup", *arguments, "sample", "missing", *others]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _unused, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (4, b"pgkeep: error: missing: there is no such database\n")
    assert {item["database"] for item in keeper.listed()} == {"sample", *others}


def test_names_that_the_terminal_cannot_show_are_escaped(keeper: Keeper, fresh_database: NewDatabase) -> None:
    name = fresh_database(keeper.server, "数据库\x1b[31m")
    assert "数据库\\x1b[31m: done, " in keeper.backup(name).out
    ascii_only = {"prefix": (sys.executable, "-I", "-X", "utf8=0"), "env": {"LC_ALL": "C"}}
    listed = keeper.run("list", **ascii_only)
    assert (listed.code, "%E6%95%B0%E6%8D%AE%E5%BA%93%1B%5B31m_2" in listed.out) == (0, True)
    stats = keeper.run("stats", **ascii_only)
    assert (stats.code, "main/\\u6570\\u636e\\u5e93\\x1b[31m" in stats.out) == (0, True)
    assert keeper.run("list", "--json", **ascii_only).json["backups"][0]["database"] == name


# --- what happens is what was said ---


def let_pass(keeper: Keeper) -> None:
    """Wait until no backup is in the future: several runs in one second give the later ones a later time."""
    newest = datetime.fromisoformat(keeper.listed("--limit=1")[0]["created"].replace("Z", "+00:00"))
    until(lambda: datetime.now(timezone.utc) >= newest, "the newest backup is of the past")


def test_a_dry_run_of_a_backup_changes_nothing_and_says_what_the_run_then_does(keeper: Keeper) -> None:
    done = keeper.run("backup", "sample", "--dry-run")
    assert done.code == 0
    assert not keeper.repository.exists()
    assert re.search(r"sample +planned +would write /.*/main/sample/sample_[0-9_-]+/sample_[0-9_-]+\.dump", done.out)
    planned = keeper.run("backup", "sample", "--dry-run", "--json").json
    taken = keeper.run("backup", "sample", "--json").json
    for said, did in zip(planned["databases"], taken["databases"]):
        assert (said["database"], said["command"], said["status"]) == (did["database"], did["command"], "planned")
    assert planned["backups"] == []
    assert [item["id"] for item in taken["backups"]] == [item["backup"] for item in taken["databases"]]


def test_a_prune_deletes_exactly_what_its_dry_run_shows(keeper: Keeper) -> None:
    for number in range(4):
        assert keeper.backup("sample", *(["--pin=keep"] if number == 1 else [])).code == 0
    let_pass(keeper)
    before = snapshot(keeper.repository)
    text = keeper.run("prune", "--keep-last=1", "--dry-run")
    planned = keeper.run("prune", "--keep-last=1", "--dry-run", "--json").json
    assert snapshot(keeper.repository) == before
    shown = ["/".join(parts) for parts in re.findall(r"^DELETE +(\S+) +(\S+)", text.out, re.MULTILINE)]
    assert len(shown) == 2
    done = keeper.run("prune", "--keep-last=1", "--json").json
    assert done["deleted"] == planned["deleted"]
    assert sorted(done["deleted"]) == sorted(shown)
    assert done["freed"] == planned["freed"] > 0
    assert [(item["id"], item["action"], item["reasons"]) for item in done["plan"]] == [
        (item["id"], item["action"], item["reasons"]) for item in planned["plan"]
    ]
    assert len(keeper.listed()) == 2
    assert_untouched(keeper.repository, snapshot(keeper.repository))
    again = keeper.run("prune", "--keep-last=1")
    assert "nothing to delete" in again.out
    assert "deleted 0 backups" in again.out


# --- jobs ---


def job_of(keeper: Keeper, **more: Any) -> dict[str, Any]:
    """Return the options of a job that backs up the sample."""
    return {
        "repository": str(keeper.repository),
        "login_unix_socket": str(keeper.server.socket_dir),
        "login_port": keeper.server.port,
        "bin_dir": str(keeper.server.bindir),
        "databases": ["sample"],
        "reserve": "0",
        **more,
    }


def test_a_job_backs_up_and_prunes_and_other_commands_take_its_options(keeper: Keeper, tmp_path: Path) -> None:
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper, keep_last=2, label="job"))
    assert bare(keeper, "check-config", place).stdout == f"{tmp_path}/etc: no problems\n"
    dry = keeper.run("run", "nightly", place, "--dry-run")
    assert (dry.code, keeper.repository.exists()) == (0, False)
    assert "sample" in dry.out
    for _unused in range(2):
        assert keeper.run("run", "nightly", place).code == 0
    before = snapshot(keeper.repository)
    planned = keeper.run("run", "nightly", place, "--dry-run", "--json").json
    assert snapshot(keeper.repository) == before
    done = keeper.run("run", "nightly", place, "--json").json
    assert planned["prune"]["deleted"] == done["prune"]["deleted"]
    assert done.keys() == planned.keys() == {"job", "backup", "prune", "sync"}
    assert_has_keys(done["backup"], returned("pg_backup"))
    assert_has_keys(done["prune"], returned("pg_backup_prune"))
    assert len(done["prune"]["deleted"]) == 2
    said = keeper.run("run", "nightly", place).out
    assert said.count("\ndeleted main/") == 2
    assert "deleted 2 backups, " in said
    listed = bare(keeper, "list", place, "--json")
    assert len(json.loads(listed.stdout)["backups"]) == 4
    stats = bare(keeper, "stats", place, "--job=nightly")
    assert "retention: keep_last 2, keep_minimum 1" in stats.stdout
    let_pass(keeper)
    pruned = bare(keeper, "prune", place, "--job=nightly", "--keep-last=1", "--json")
    assert len(json.loads(pruned.stdout)["deleted"]) == 2
    overruled = bare(keeper, "backup", place, "--job=nightly", "postgres", "--no-globals", "--label=hand", "--json")
    assert [(item["database"], item["label"]) for item in json.loads(overruled.stdout)["backups"]] == [
        ("postgres", "hand")
    ]
    assert keeper.run("run", "nightli", place).code == 2


def test_a_job_without_rules_keeps_the_last_ten_and_thirty_days(keeper: Keeper, tmp_path: Path) -> None:
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper))
    keeper.run("run", "nightly", place)
    stats = bare(keeper, "stats", place, "--job=nightly")
    assert "retention: keep_last 10, keep_days 30 (either), keep_minimum 1" in stats.stdout


def test_a_prune_of_a_job_that_has_no_backups_yet_is_fine(keeper: Keeper, tmp_path: Path) -> None:
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper))
    keeper.repository.mkdir(mode=0o700)
    assert bare(keeper, "prune", place, "--job=nightly").stdout.startswith("no backups")
    as_json = bare(keeper, "prune", place, "--job=nightly", "--json")
    assert as_json.returncode == 0
    assert_has_keys(json.loads(as_json.stdout), returned("pg_backup_prune"))


def test_jobs_with_several_repositories_want_to_know_which(keeper: Keeper, tmp_path: Path) -> None:
    place = write_job(tmp_path / "etc", "one", **job_of(keeper))
    write_job(tmp_path / "etc", "two", **job_of(keeper, repository=str(tmp_path / "second"), instance="second"))
    for name in ("one", "two"):
        assert keeper.run("run", name, place).code == 0
    done = bare(keeper, "list", place)
    assert done.returncode == 2
    assert f"several repositories ({keeper.repository}, {tmp_path}/second): give --repository or --job" in done.stderr
    for job, instance in (("one", "main"), ("two", "second")):
        listed = json.loads(bare(keeper, "list", place, f"--job={job}", "--json").stdout)["backups"]
        assert [item["instance"] for item in listed] == [instance, instance]


def test_configuration_is_checked_with_file_key_value_and_what_is_allowed(keeper: Keeper, tmp_path: Path) -> None:
    place = write_job(tmp_path / "etc", "bad", **job_of(keeper, format="zip", keep_lats=3, wait="soon"))
    file = f"{tmp_path}/etc/jobs.d/bad.json"
    done = bare(keeper, "check-config", place)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert f'{file}: format is "zip": must be one of custom, directory, plain, tar' in done.stderr
    assert f"{file}: keep_lats is not known: did you mean keep_last?" in done.stderr
    assert f'{file}: wait is "soon": must match' in done.stderr
    as_json = bare(keeper, "check-config", file, "--json")
    assert as_json.returncode == 2
    assert [f"pgkeep: error: {text}" for text in json.loads(as_json.stdout)["problems"]] == lines
    assert keeper.run("run", "bad", place).code == 2
    assert not keeper.repository.exists()


# --- being ended ---


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [
        (signal.SIGTERM, 143, ("--format=plain", "--compression=zstd")),
        (signal.SIGINT, 130, ("--format=directory", "--jobs=2")),
    ],
    ids=["TERM", "INT"],
)
def test_a_signal_in_the_middle_of_a_dump_ends_it_and_leaves_nothing(
    keeper: Keeper, fresh_database: NewDatabase, number: int, code: int, options: tuple[str, ...]
) -> None:
    later = fresh_database(keeper.server, "some_that_comes_later")
    keeper.backup("sample")
    before = snapshot(keeper.repository)
    with locked_table(keeper.server, "sample", "orders") as wait:
        running = keeper.start("backup", later, "sample", "--no-globals", *options)
        wait()
        assert leftovers(keeper.repository) != []
        running.send_signal(number)
        done = finish(running)
    assert done.code == code
    name = signal.Signals(number).name
    assert done.err.endswith(
        f"pgkeep: error: interrupted by {name}: what was not finished is gone, earlier backups are untouched\n"
    )
    assert_no_process(keeper.repository)
    assert_untouched(keeper.repository, before)


def test_an_interrupted_job_does_not_prune(keeper: Keeper, tmp_path: Path) -> None:
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper, globals=False, keep_last=1))
    for _unused in range(2):
        keeper.backup("sample")
    before = snapshot(keeper.repository)
    with locked_table(keeper.server, "sample", "orders") as wait:
        running = keeper.start("run", "nightly", place)
        wait()
        running.terminate()
        assert finish(running).code == 143
    assert_untouched(keeper.repository, before)


# --- surroundings ---


def test_it_runs_in_crons_environment_and_none_of_postgresqls_variables_changes_anything(
    debian_keeper: Keeper, tmp_path: Path, fresh_database: NewDatabase
) -> None:
    keeper = debian_keeper
    for name in ("psycopg2.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('taken over')")
    hostile = {
        "PGHOST": "/nowhere", "PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "nothing",
        "PGSERVICE": "nowhere", "PGSERVICEFILE": "/nowhere", "PGPASSFILE": "/nowhere", "PGSSLMODE": "verify-full",
        "PGOPTIONS": "-c nonsense=1", "PGCLIENTENCODING": "LATIN1", "PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German",
        "PGGSSENCMODE": "require", "PGAPPNAME": "x", "PGCONNECT_TIMEOUT": "nonsense", "PGTARGETSESSIONATTRS": "standby",
        "PG_COLOR": "always", "PYTHONPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de", "TZ": "Asia/Tokyo",
    }  # fmt: skip
    nothing = [sys.executable, "-c", "import os, sys; os.execve(sys.argv[1], sys.argv[1:], {})"]
    results = [
        keeper.backup("sample", "--format=plain", "--compression=none", "--json", prefix=nothing),
        keeper.backup("sample", "--format=plain", "--compression=none", "--json", env=hostile),
    ]
    assert [done.code for done in results] == [0, 0], results
    texts = []
    for done in results:
        (path,) = (item["path"] for item in done.json["backups"])
        (dump,) = Path(path).glob("*.sql")
        texts.append(re.sub(rb"(?m)^(\\(un)?restrict|-- (Started|Completed) on) .*$", b"", dump.read_bytes()))
    assert texts[0] == texts[1]
    assert keeper.run("list", prefix=nothing).code == 0


def owners(directory: Path) -> set[tuple[int, int]]:
    """Return owner and group of everything in a directory, and its own."""
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (directory, *directory.rglob("*"))}


@pytest.fixture
def place_of_another() -> Iterator[Path]:
    """A repository that belongs to the user nobody, where that user gets at it."""
    parent = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    parent.chmod(0o755)
    (parent / "repository").mkdir(mode=0o700)
    shutil.chown(parent / "repository", "nobody", pwd.getpwnam("nobody").pw_gid)
    yield parent / "repository"
    shutil.rmtree(parent)


@pytest.mark.needs_root
def test_root_works_as_the_owner_of_the_repository(
    keeper: Keeper, place_of_another: Path, fresh_database: NewDatabase, fresh_role: NewRole, tmp_path: Path
) -> None:
    keeper.repository = place_of_another
    nobody = pwd.getpwnam("nobody")
    role = fresh_role(keeper.server, "LOGIN SUPERUSER PASSWORD 'of:the\\role'")
    job = job_of(keeper, login_host="127.0.0.1", login_user=role, login_password="of:the\\role", keep_last=1)
    del job["login_unix_socket"]
    place = write_job(tmp_path / "etc", "nightly", **job)
    with locked_table(keeper.server, "sample", "orders") as wait:
        running = keeper.start("run", "nightly", place)
        wait()
        dumping = [path for path in Path("/proc").glob("[0-9]*") if role_in(path, role)]
        users = {path.stat().st_uid for path in dumping}
    assert finish(running).code == 0
    assert users == {nobody.pw_uid}
    for arguments in (("run", "nightly", place), ("list",), ("stats",), ("prune", "--keep-last=1")):
        assert keeper.run(*arguments).code == 0
    arguments = ("backup", place, "--job=nightly", "postgres", "--no-globals")
    assert bare(keeper, *arguments, cwd=tmp_path).returncode == 0  # where only root may be
    assert owners(place_of_another) == {(nobody.pw_uid, nobody.pw_gid)}
    assert keeper.backup("sample", "--format=directory").code == 0
    (newest,) = keeper.listed("sample", "--limit=1")
    assert newest["format"] == "directory"
    dump = tmp_path / "sample_2024-01-02_03-04-05.dump"
    keeper.server.run("pg_dump", "-Fc", "-f", str(dump), "-d", keeper.server.conninfo("sample"))
    refused = keeper.run("adopt", str(dump))
    assert (refused.code, "Permission denied" in refused.err) == (1, True)


def role_in(process: Path, role: str) -> bool:
    """Return whether a process is a pg_dump of this role."""
    try:
        line = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return b"pg_dump\0" in line and f"user='{role}'".encode() in line


@pytest.mark.needs_root
def test_an_owner_without_an_account_is_fine(keeper: Keeper, place_of_another: Path) -> None:
    keeper.repository = place_of_another
    os.chown(place_of_another, 54321, 54322)
    assert keeper.run("backup", "sample").code == 0
    assert owners(place_of_another) == {(54321, 54322)}


@pytest.mark.needs_root
def test_a_user_who_is_neither_root_nor_the_owner_is_refused(keeper: Keeper, place_of_another: Path) -> None:
    keeper.repository = place_of_another
    daemon = ("setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups")
    done = keeper.backup("sample", prefix=daemon)
    assert done.code == 1
    assert "belongs to user nobody, this runs as daemon: run it as the owner or as root" in done.err
    assert keeper.run("list", prefix=daemon).code == 1


# --- on a terminal ---


def test_on_a_terminal_a_line_moves_with_tables_and_bytes(keeper: Keeper) -> None:
    for _unused in range(2):
        keeper.backup("sample")
    command = [keeper.program, "backup", f"--repository={keeper.repository}", *keeper.connection, "--reserve=0"]
    master, slave = pty.openpty()
    screen = b""
    with locked_table(keeper.server, "sample", "audit.trail") as wait:
        running = subprocess.Popen([*command, "--no-globals", "sample"], stdout=slave, stderr=slave)
        os.close(slave)
        wait()
        while b"tables" not in screen:
            screen += os.read(master, 1000)
    while True:
        try:
            data = os.read(master, 1000)
        except OSError:
            break
        if not data:
            break
        screen += data
    os.close(master)
    assert running.wait() == 0
    assert re.search(rb"\r\x1b\[Ksample  [0-9]+/[0-9]+ tables  [0-9.]+ k?B", screen)
    assert re.search(rb"\r\x1b\[Ksample: done, [0-9.]+ kB in [0-9.]+m? ?[0-9]*s, /", screen)


# --- every file of a backup that the command took is as good as one that a module took ---


def test_what_the_command_takes_can_be_restored(keeper: Keeper, fresh_database: NewDatabase) -> None:
    assert keeper.backup("sample").code == 0
    (taken,) = Engine(keeper.server, keeper.repository).run(databases=["sample"], max_age="1h").outcomes
    assert taken.status == "fresh"
    assert taken.backup is not None
    target = fresh_database(keeper.server)
    restore(keeper.server, taken.backup, target)
    assert contents(keeper.server, target) == contents(keeper.server, "sample")
