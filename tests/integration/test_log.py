# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run leaves behind for those who were not there: the log, the history, and silence where all is good."""

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import lock
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.history import json_schema
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.naming import LOCK_NAME
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.version import VERSION

from tests.integration.samples import locked_table
from tests.integration.test_full_disk import PAGE, disk
from tests.keeper import ROOT, Done, Keeper, finish, manifests, until, write_job
from tests.postgres import Server

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) pgkeep\[(\d+)\] (\S+) (\S+): (.*)")
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
NewDatabase = Callable[..., str]


class Log:
    """The directory of log and history."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.option = directory, f"--log-dir={directory}"
        directory.mkdir(parents=True)

    def lines(self, name: str = "pgkeep.log") -> list[tuple[str, ...]]:
        """Return time, process, job, command and text of each line; each has just the form that is promised."""
        text = (self.directory / name).read_bytes().decode()
        assert text.endswith("\n")
        lines = text[:-1].split("\n")
        assert all(line.isprintable() for line in lines)
        found = [LINE.fullmatch(line) for line in lines]
        assert all(found), lines
        return [match.groups() for match in found if match]

    def texts(self) -> list[str]:
        """Return the texts of all lines."""
        return [text for *_unused, text in self.lines()]

    def history(self) -> list[dict[str, Any]]:
        """Return every record; each is valid."""
        records = [json.loads(line) for line in (self.directory / "history.jsonl").read_text().splitlines()]
        for item in records:
            VALIDATOR.validate(item)
        return records

    def names(self) -> list[str]:
        """Return what is in the directory."""
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """An empty directory for log and history."""
    return Log(tmp_path / "log")


@pytest.fixture
def database(keeper: Keeper, fresh_database: NewDatabase) -> str:
    """A database with a table."""
    name = fresh_database(keeper.server)
    keeper.server.psql("CREATE TABLE orders AS SELECT i FROM generate_series(1, 100) i", name)
    return name


@pytest.fixture
def place_of_nobody() -> Iterator[Path]:
    """A directory where the user nobody gets at what is its own."""
    parent = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    parent.chmod(0o755)
    yield parent
    shutil.rmtree(parent)


def job_of(keeper: Keeper, **more: Any) -> dict[str, Any]:
    """Return the options of a job."""
    server = keeper.server
    connection = {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "bin_dir": str(server.bindir)}
    return {"repository": str(keeper.repository), "reserve": "0", **connection, **more}


def programs_of(keeper: Keeper) -> str:
    """Return the option that leads to the client programs of the server."""
    return f"--bin-dir={keeper.server.bindir}"


def bare(keeper: Keeper, *arguments: str) -> Done:
    """Run the command with nothing but these arguments."""
    done = subprocess.run([keeper.program, *arguments], capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


# --- what is written ---


def test_a_run_writes_what_it_says_with_time_process_job_and_command(
    keeper: Keeper, log: Log, database: str, tmp_path: Path
) -> None:
    options = {"databases": [database], "keep_last": 1, "log_dir": str(log.directory)}
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper, **options))
    before = datetime.now(timezone.utc)
    first = keeper.run("run", "nightly", place)
    assert (first.code, first.err) == (0, "")
    lines = log.lines()
    assert [text for *_unused, text in lines[1:-1]] == first.out.splitlines()
    assert lines[0][-1].startswith(f"begin, pgkeep {VERSION} on ")
    assert re.fullmatch(r"end, exit code 0 after [0-9.]+s", lines[-1][-1])
    assert {line[1:4] for line in lines} == {(lines[0][1], "nightly", "run")}
    (record,) = log.history()
    assert (record["job"], record["command"], record["exit_code"], record["message"]) == ("nightly", "run", 0, "")
    assert lines[0][0] >= before.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert before <= datetime.fromisoformat(record["started"]) < datetime.fromisoformat(record["finished"])
    taken = {item["title"]: item for item in described(keeper)}
    assert record["databases"] == [
        {"database": name, "status": "done", "message": "", "id": taken[name]["id"], "size": taken[name]["size"],
         "duration": taken[name]["duration"]}
        for name in ("@globals", database)
    ]  # fmt: skip
    assert record["deleted"] == []

    done = keeper.run("run", "nightly", place, "--json")
    assert done.json["prune"]["deleted"] == log.history()[1]["deleted"] != []
    texts = log.texts()[len(lines) :]
    assert [text for text in texts if text.startswith("deleted main/")] == [
        f"deleted {item}" for item in done.json["prune"]["deleted"]
    ]
    assert (log.directory / "pgkeep.log").stat().st_mode & 0o777 == 0o640
    assert (log.directory / "history.jsonl").stat().st_mode & 0o777 == 0o640


def described(keeper: Keeper) -> list[dict[str, Any]]:
    """Return every backup as its manifest says, and the name of the database as people read it."""
    return [
        {**item, "title": item["database"] or "@globals", "duration": round(item["duration"], 3)}
        for item in manifests(keeper.repository).values()
    ]


def test_whatever_is_printed_the_log_is_the_same(keeper: Keeper, log: Log, database: str) -> None:
    said = []
    for more in ((), ("--quiet",), ("--json",)):
        done = keeper.backup(database, "missing", log.option, *more)
        assert done.code == 4
        assert "missing: there is no such database" in done.err
        texts = [text for text in log.texts() if not text.startswith("new databases: ")][4 * len(said) :]
        assert len(texts) == 4, texts
        said.append([re.sub(r"[0-9.]+ k?B in .*|after .*", "...", text) for text in texts])
    assert said[0] == said[1] == said[2]
    assert said[0][1:] == [
        f"{database}: done, ...",
        "error: missing: there is no such database",
        "end, exit code 4 ...",
    ]
    records = log.history()
    assert [record["message"] for record in records] == ["missing: there is no such database"] * 3
    assert {item["database"]: item["status"] for item in records[1]["databases"]} == {
        "missing": "failed",
        database: "done",
    }


def test_every_command_that_does_something_has_its_record(
    keeper: Keeper, log: Log, database: str, tmp_path: Path, fresh_database: NewDatabase
) -> None:
    backups = [keeper.backup(database, log.option) for _unused in range(2)]
    assert [done.code for done in backups] == [0, 0]
    newest, oldest = keeper.listed()
    verified = keeper.run("verify", log.option, database, programs_of(keeper))
    assert [text for text in log.texts() if ": good (archive)" in text] == verified.out.splitlines()[:2]
    pruned = keeper.run("prune", log.option, "--keep-last=1")
    assert f"DELETE  main/{database}" in "\n".join(log.texts())
    target = fresh_database(keeper.server)
    restored = keeper.run("restore", database, log.option, f"--target={target}", "--if-exists=fill", *keeper.connection)
    dump = tmp_path / f"{database}_2024-01-02_03-04-05.dump"
    keeper.server.run("pg_dump", "-Fc", "-f", str(dump), "-d", keeper.server.conninfo(database))
    adopted = keeper.run("adopt", str(dump), log.option, *keeper.connection[2:], "--reserve=0")
    assert [done.code for done in (verified, pruned, restored, adopted)] == [0] * 4, (
        verified,
        pruned,
        restored,
        adopted,
    )
    records = log.history()
    found = [
        (item["command"], [(one["database"], one["status"], one["id"]) for one in item["databases"]], item["deleted"])
        for item in records[2:]
    ]
    assert found[0] == (
        "verify",
        [(database, "good", newest["id"]), (database, "good", oldest["id"])],
        [],
    )
    assert found[1] == ("prune", [], [oldest["id"]])
    assert found[2] == ("restore", [(target, "fill", newest["id"])], [])
    assert records[4]["message"].startswith(f"restored {newest['id']} into {target}")
    assert [text for text in log.texts() if text.startswith(f"{target}: ")] == restored.out.splitlines()
    assert found[3][:1] == ("adopt",)
    assert [item["status"] for item in records[5]["databases"]] == ["done"]


def test_what_changes_nothing_is_not_written_down(keeper: Keeper, log: Log, database: str) -> None:
    assert keeper.backup(database).code == 0
    for command, arguments in (
        ("backup", (database, "--dry-run")),
        ("prune", ("--keep-last=1", "--dry-run")),
        ("verify", ("--dry-run",)),
        ("restore", (database, "--list", programs_of(keeper))),
    ):
        done = keeper.run(command, log.option, *arguments)
        assert (done.code, done.err) == (0, "")
    assert log.names() == []


def test_names_in_the_log_neither_begin_a_line_nor_move_a_terminal(
    keeper: Keeper, log: Log, fresh_database: NewDatabase
) -> None:
    name = fresh_database(keeper.server, "2026-11-25T02:00:01Z\n\x1b[2J\u202edog\u2028\x85数")
    assert keeper.backup(name, log.option).code == 0
    assert keeper.run("verify", log.option, programs_of(keeper)).code == 0
    escaped = r"2026-11-25T02:00:01Z\n\x1b[2J\u202edog\u2028\x85数"
    assert log.texts()[1].startswith(f"{escaped}: done, ")
    assert {item["databases"][0]["database"] for item in log.history()} == {name}


# --- silence ---


def test_a_quiet_run_says_nothing_unless_something_is_wrong(
    keeper: Keeper, log: Log, database: str, tmp_path: Path
) -> None:
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper, databases=[database], log_dir=str(log.directory)))
    for command in ("run", "backup", "prune", "verify"):
        named = ("nightly",) if command == "run" else ("--job=nightly",)
        assert bare(keeper, command, place, *named, "--quiet") == (0, "", "")
    (dump, *_more) = keeper.repository.rglob("*.dump")
    dump.write_bytes(dump.read_bytes()[:-1])
    done = bare(keeper, "verify", place, "--job=nightly", "--quiet")
    assert (done.code, done.out) == (4, "")
    assert "truncated" in done.err


def test_quiet_leaves_what_was_asked_for(keeper: Keeper, log: Log, database: str, tmp_path: Path) -> None:
    assert keeper.backup(database, "--quiet") == (0, "", "")
    assert keeper.run("list", "--quiet").out.startswith("DATABASE ")
    assert keeper.run("stats", "--quiet").out.startswith("1 backup, ")
    assert keeper.run("restore", database, "--list", "--quiet", programs_of(keeper)).out.startswith(";")
    assert keeper.run("verify", "--quiet", "--json").json["verifications"] != []
    assert keeper.run("verify", "--quiet", "--dry-run").out == ""
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper))
    assert bare(keeper, "check-config", place, "--quiet") == (0, "", "")
    runbook = bare(keeper, "runbook", place, f"--repository={keeper.repository}", "--quiet", *keeper.connection[:2])
    assert runbook.out.startswith("# ")
    path = tmp_path / "recovery.md"
    arguments = (place, f"--repository={keeper.repository}", f"--path={path}", "--quiet", *keeper.connection[:2])
    assert (bare(keeper, "runbook", *arguments).out, path.exists()) == ("", True)


def test_a_warning_of_a_quiet_run_goes_to_stderr(
    keeper: Keeper, log: Log, fresh_role: Callable[..., str], fresh_database: NewDatabase
) -> None:
    role = fresh_role(keeper.server, "LOGIN")  # it may not read the passwords of the others
    arguments = ("backup", fresh_database(keeper.server), f"--login-user={role}", log.option)
    loud, quiet = keeper.run(*arguments), keeper.run(*arguments, "--quiet")
    assert (loud.code, quiet.code, quiet.out) == (0, 0, "")
    warnings = [line.partition("warning: ")[2] for line in loud.out.splitlines() if "warning: " in line]
    assert [f"pgkeep: warning: @globals: {text}" for text in warnings] == quiet.err.splitlines()
    assert warnings != []
    assert sum("warning: " in text for text in log.texts()) == 2 * len(warnings)


# --- runs that fail ---


def test_a_run_that_is_ended_from_outside_says_so_and_what_it_had_done(
    keeper: Keeper, log: Log, database: str, tmp_path: Path
) -> None:
    options = {"databases": [database], "log_dir": str(log.directory)}
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper, **options))
    with locked_table(keeper.server, database, "orders") as wait:
        running = keeper.start("run", "nightly", place, "--quiet")
        wait()
        running.terminate()
        done = finish(running)
    said = "interrupted by SIGTERM: what was not finished is gone, earlier backups are untouched"
    assert (done.code, done.out, done.err) == (143, "", f"pgkeep: error: {said}\n")
    assert log.texts()[-2] == f"error: {said}"
    assert log.texts()[-1].startswith("end, exit code 143 after ")
    (record,) = log.history()
    assert (record["exit_code"], record["message"]) == (143, said)
    assert ("@globals", "done") in [(item["database"], item["status"]) for item in record["databases"]]
    assert record["databases"][0]["id"] in [item["id"] for item in described(keeper)]


@pytest.mark.parametrize("command", ["prune", "run"])
def test_a_prune_that_is_ended_from_outside_says_what_it_had_deleted(
    keeper: Keeper, log: Log, fresh_database: NewDatabase, tmp_path: Path, command: str
) -> None:
    for name in ("ended_1", "ended_2"):
        fresh_database(keeper.server, name)
    options = {"include": ["ended_[12]"], "globals": False, "keep_last": 1, "wait": "1h"}
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper, **options))
    for _unused in range(2):
        assert keeper.backup("ended_1", "ended_2", "--no-globals").code == 0
    keeper.server.psql("DROP DATABASE ended_2")  # its backups stay, and no run waits for their lock
    gone = min(item["id"] for item in keeper.listed("ended_1"))
    lock_file = str(keeper.repository / "main" / "ended_2" / LOCK_NAME)
    with lock.hold(lock_file, "ended_2", "test", timedelta(), lambda: datetime.now(timezone.utc), lambda: None):
        words = ("run", "nightly") if command == "run" else ("prune", "--job=nightly")
        running = keeper.start(*words, place, log.option, "--quiet")
        until(lambda: not (keeper.repository / gone).exists(), "the first database is pruned")
        running.terminate()
        done = finish(running)
    (record,) = log.history()
    assert (done.code, record["exit_code"]) == (143, 143)
    assert gone in record["deleted"]
    assert {item.rpartition("/")[0] for item in record["deleted"]} == {"main/ended_1"}
    assert [text for text in log.texts() if text.startswith("deleted ")] == [
        f"deleted {item}" for item in record["deleted"]
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--jobs=4",), 2, "jobs is 4 but format is custom: parallel jobs need format directory"),
        (("--login-port=1",), 1, ".s.PGSQL.1"),
        (("--job=no\nsuch",), 2, "'no\\\\nsuch' is not the name of a job"),
    ],
    ids=["usage", "server", "job"],
)
def test_what_goes_wrong_before_anything_is_done_is_written_down(
    keeper: Keeper, log: Log, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = keeper.backup("postgres", log.option, "--config-dir=/", *arguments)
    assert done.code == code
    (record,) = log.history()
    assert message in record["message"] or message in json.dumps(record["message"])
    assert [f"pgkeep: {text}" for text in log.texts()[1:-1]] == done.err.splitlines()


def test_what_is_wrong_with_a_job_is_in_the_log_of_the_defaults(keeper: Keeper, log: Log, tmp_path: Path) -> None:
    place = write_job(tmp_path / "etc", "nightly", **job_of(keeper, keep_lats=3, format="zip"))
    (tmp_path / "etc" / "defaults.json").write_text(json.dumps({"log_dir": str(log.directory)}))
    done = keeper.run("run", "nightly", place)
    assert done.code == 2
    (record,) = log.history()
    assert (record["job"], record["exit_code"]) == ("nightly", 2)
    assert "keep_lats is not known: did you mean keep_last?" in record["message"]
    assert [f"pgkeep: {text}" for text in log.texts()[1:-1]] == done.err.splitlines()
    assert len(done.err.splitlines()) == 2


def test_a_locked_database_is_in_the_history(keeper: Keeper, log: Log, database: str) -> None:
    with locked_table(keeper.server, database, "orders") as wait:
        running = keeper.start("backup", database, "--no-globals")
        wait()
        assert keeper.backup(database, log.option).code == 3
    finish(running)
    (record,) = log.history()
    assert (record["exit_code"], record["databases"][0]["status"]) == (3, "locked")
    assert record["databases"][0]["message"] in record["message"]


def test_a_bug_is_written_down_as_one(keeper: Keeper, log: Log) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT / "plugins" / "module_utils")!r})
from _core import cli
cli._COMMANDS["verify"] = lambda *_unused: 1 / 0
cli.main(["verify", "--repository=/nowhere", {log.option!r}])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, "ZeroDivisionError" in done.stderr) == (1, True)
    (record,) = log.history()
    assert (record["exit_code"], record["message"]) == (
        1,
        "unexpected ZeroDivisionError: this is a bug in pgkeep, please report it",
    )
    assert log.texts()[-1].startswith("end, exit code 1 after ")


# --- logs that cannot be written ---


def warned(done: Done, *parts: str) -> None:
    """Given a run, assert that it did all its work and warned once, with each of these parts."""
    assert done.code == 0, done
    (line,) = done.err.splitlines()
    assert line.startswith("pgkeep: warning: ")
    for part in parts:
        assert part in line


def test_a_directory_that_is_not_there_is_not_made(keeper: Keeper, database: str, tmp_path: Path) -> None:
    place = tmp_path / "var" / "log"
    done = keeper.backup(database, f"--log-dir={place}", "--quiet")
    warned(done, f"{place} is not a directory", f"install -d -m 0750 -o OWNER {place}")
    assert not place.parent.exists()
    assert len(keeper.listed()) == 1


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "directory"])
@pytest.mark.parametrize("name", ["pgkeep.log", "history.jsonl"])
def test_what_could_lead_elsewhere_is_not_written_to(
    keeper: Keeper, log: Log, database: str, tmp_path: Path, kind: str, name: str
) -> None:
    victim, path = tmp_path / "victim", log.directory / name
    if kind != "dangling":
        victim.write_text("precious\n")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "hard link":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim)
    done = keeper.backup(database, log.option)
    warned(done, str(path), "move away what stands there, it must be a regular file; the run goes on")
    assert victim.exists() is (kind != "dangling")
    assert not victim.exists() or victim.read_text() == "precious\n"
    assert log.names() == ["history.jsonl", "pgkeep.log"]
    if name == "pgkeep.log":
        assert len(log.history()) == 1
    else:
        assert log.texts()[-1].startswith("end, exit code 0 after ")


@pytest.mark.needs_root
def test_a_full_disk_of_the_log_changes_nothing_and_tears_no_line(
    keeper: Keeper, database: str, tmp_path: Path
) -> None:
    with disk(tmp_path / "disk", f"size={3 * PAGE}") as place:
        log = Log(place / "log")
        assert keeper.backup(database, log.option).code == 0
        before = log.texts()
        (place / "ballast").write_bytes(bytes(PAGE))
        path = log.directory / "pgkeep.log"
        filler = b"2026-11-25T02:00:01Z pgkeep[1] - run: %s\n"
        with path.open("ab") as file:  # up to 20 bytes before the end of the last page
            file.write(filler % (b"x" * (PAGE - 20 - path.stat().st_size - len(filler) + 2)))
        warned(keeper.backup(database, log.option), str(path), "No space left on device: free some space there")
        assert len(keeper.listed()) == 2
        (place / "ballast").unlink()
        assert keeper.backup(database, log.option).code == 0
        lines = path.read_text().splitlines()
        assert [line for line in lines if not LINE.fullmatch(line)] == [lines[len(before) + 1]]  # it was cut off, alone
        assert lines[-1].partition(": ")[2].startswith("end, exit code 0 after ")
        assert [record["exit_code"] for record in log.history()] == [0, 0, 0]


# --- whose files they are ---


def owners(directory: Path) -> set[str]:
    return {path.owner() for path in directory.iterdir()}


@pytest.mark.needs_root
@pytest.mark.parametrize("owner", ["nobody", "root"])
def test_the_files_belong_to_the_owner_of_their_directory(
    keeper: Keeper, database: str, place_of_nobody: Path, owner: str
) -> None:
    """Root drops to the owner of the repository on the way, or it does not: the first lines are root's in any case."""
    log = Log(place_of_nobody / "log")
    os.chown(log.directory, pwd.getpwnam("nobody").pw_uid, 54321)
    keeper.repository = place_of_nobody / "repository"
    keeper.repository.mkdir(mode=0o700)
    shutil.chown(keeper.repository, owner)
    for _unused in range(2):
        done = keeper.backup(database, log.option)
        assert (done.code, done.err) == (0, "")
    assert owners(log.directory) == {"nobody"}
    assert {path.stat().st_gid for path in log.directory.iterdir() if owner == "root"} <= {54321}
    assert {path.stat().st_mode & 0o7777 for path in log.directory.iterdir()} == {0o640}
    assert [text.partition(",")[0] for text in log.texts()] == ["begin", f"{database}: done", "end"] * 2


@pytest.mark.needs_root
def test_roots_directory_and_the_repository_of_another_is_a_warning_that_says_whose_it_must_be(
    keeper: Keeper, database: str, place_of_nobody: Path
) -> None:
    log = Log(place_of_nobody / "log")
    log.directory.chmod(0o755)
    keeper.repository = place_of_nobody / "repository"
    keeper.repository.mkdir(mode=0o700)
    shutil.chown(keeper.repository, "nobody")
    done = keeper.backup(database, log.option)
    warned(done, "Permission denied", f"{log.directory} and the files in it must belong to the owner of the repository")
    assert len(keeper.listed()) == 1


@pytest.mark.needs_root
def test_root_writes_to_no_file_that_is_not_the_owners(keeper: Keeper, database: str, place_of_nobody: Path) -> None:
    log = Log(place_of_nobody / "log")
    secret = log.directory / "pgkeep.log"
    secret.write_text("of root\n")
    shutil.chown(log.directory, "nobody")
    warned(keeper.backup(database, log.option), f"{secret} cannot be written: it does not belong to the owner")
    assert (secret.read_text(), secret.owner()) == ("of root\n", "root")


# --- rotation ---


def test_a_log_that_is_renamed_while_a_run_goes_on_continues_in_a_new_file(
    keeper: Keeper, log: Log, database: str
) -> None:
    with locked_table(keeper.server, database, "orders") as wait:
        running = keeper.start("backup", database, "--no-globals", log.option)
        wait()
        (log.directory / "pgkeep.log").rename(log.directory / "pgkeep.log.1")
    assert finish(running).code == 0
    assert [text.partition(",")[0] for *_unused, text in log.lines("pgkeep.log.1")] == ["begin"]
    assert [text.partition(",")[0] for text in log.texts()] == [f"{database}: done", "end"]


def test_runs_at_the_same_time_share_the_files(
    keeper: Keeper, log: Log, lone_zstd_server: Server, fresh_database: NewDatabase
) -> None:
    names = [fresh_database(lone_zstd_server) for _unused in range(3)]
    running = [keeper.start("backup", name, "--no-globals", log.option) for name in names]
    assert [finish(process).code for process in running] == [0, 0, 0]
    assert {item["databases"][0]["database"] for item in log.history()} == set(names)
    for process in running:
        own = [text.partition(",")[0] for _at, pid, *_unused, text in log.lines() if pid == str(process.pid)]
        assert [own[0], own[-1], len(own)] == ["begin", "end", 3]


# --- secrets ---


def test_no_password_gets_into_log_and_history(keeper: Keeper, log: Log, database: str, tmp_path: Path) -> None:
    secret = "correct horse battery staple"
    options = {
        "login_host": "127.0.0.1",
        "login_password": secret,
        "databases": [database],
        "log_dir": str(log.directory),
    }
    job = {**job_of(keeper, **options), "login_unix_socket": ""}
    place = write_job(tmp_path / "etc", "nightly", **job)
    assert keeper.run("run", "nightly", place).code == 1
    assert "password authentication failed" in log.history()[0]["message"]
    write_job(tmp_path / "etc", "nightly", **{**job, "login_password": keeper.server.password})
    assert keeper.run("run", "nightly", place).code == 0
    written = "".join(path.read_text() for path in log.directory.iterdir())
    assert secret not in written
    assert keeper.server.password not in written


# --- on a terminal ---


def test_the_line_that_moves_on_a_terminal_is_not_in_the_log(keeper: Keeper, log: Log, database: str) -> None:
    command = [keeper.program, "backup", database, f"--repository={keeper.repository}", log.option, "--no-globals"]
    master, slave = pty.openpty()
    with locked_table(keeper.server, database, "orders") as wait:
        running = subprocess.Popen([*command, *keeper.connection, "--reserve=0"], stdout=slave, stderr=slave)
        os.close(slave)
        wait()
        screen = os.read(master, 1000)
    assert running.wait(timeout=60) == 0
    os.close(master)
    assert screen.startswith(f"\r\x1b[K{database}  ".encode())
    assert [text.partition(",")[0] for text in log.texts()] == ["begin", f"{database}: done", "end"]
