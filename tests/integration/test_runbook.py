# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recovery document: its commands, taken out of it and run in its order, bring everything back on a new server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import evidence
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import PgkeepError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.runbook import Runbook, runbook
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import verify

from tests.integration.samples import Engine, contents, make_sample
from tests.keeper import ROOT, Keeper, write_job
from tests.playbook import run_playbook
from tests.postgres import Installation, Server, quote_identifier

# All that a shell, an SQL statement, a connection string and Markdown could trip over, in 63 bytes.
HOSTILE = "-it's `x`|<b>\"\\\n$(touch /tmp/pgkeep-trap)=\u202e#"
PASSWORD = "Mark:er\\4711'\"$ é"
OWNER = 'the "owner\'s"'
TRAP = Path("/tmp/pgkeep-trap")
_PER_DATABASE = 6  # blocks of step 4


@dataclass
class Lost:
    """A repository whose server is gone, and what was in the databases."""

    engine: Engine
    before: dict[str, dict[str, tuple[int, str]]]


@pytest.fixture(scope="module", params=["debian_server", "zstd_server"])
def lost(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lost]:
    """Backups in all forms of databases with all kinds of names, from two versions of PostgreSQL."""
    running: Server = request.getfixturevalue(request.param)
    with another(running) as server:
        engine = Engine(server, tmp_path_factory.mktemp("runbook") / "the repository")
        server.psql(f"CREATE ROLE {quote_identifier(OWNER)} LOGIN PASSWORD 'secret'")
        forms = {
            "sample": {"compression": "zstd:1"},
            HOSTILE: {"format": "plain", "compression": "zstd:1"},
            "folder": {"format": "directory", "compression": "gzip:1", "jobs": 2},
            "taped": {"format": "tar", "compression": "gzip:1"},
            "text": {"format": "plain", "compression": "none"},
            "@globals": {"compression": "none"},
        }
        for name in forms:
            make_sample(server, name) if name in ("sample", "folder") else make_small(server, name)
        server.psql("CREATE TABLE also AS SELECT 1 AS a")
        server.psql(f"ALTER DATABASE {quote_identifier(HOSTILE)} OWNER TO {quote_identifier(OWNER)}")
        server.psql("ALTER DATABASE sample SET work_mem = '7MB'; ALTER DATABASE sample SET app.key = 'S3cret'")
        engine.take("postgres", globals=True)
        for name, options in forms.items():
            engine.take_one(name, **options)
        yield Lost(engine, {name: contents(server, name) for name in (*forms, "postgres")})


def another(server: Server) -> Server:
    return Server(Installation(server.major, server.bindir, server.source))


def make_small(server: Server, name: str) -> None:
    server.psql(f"CREATE DATABASE {quote_identifier(name)}")
    server.psql("CREATE TABLE whoami AS SELECT current_database()::text AS name", name)


def written(lost: Lost, server: Server, directory: Path, check: bool = False, **more: Any) -> Runbook:
    """Write the document with a job that leads to that server."""
    place = {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "bin_dir": str(server.bindir)}
    write_job(directory, "nightly", repository=str(lost.engine.repository), login_password=PASSWORD, **place)
    raw = {"repository": str(lost.engine.repository), "config_dir": str(directory), **more}
    return runbook(raw, check, lost.engine.clock)


def part(document: str, title: str) -> str:
    """Given the document and the title of a part, return that part."""
    (found,) = [text for text in re.split(r"^## ", document, flags=re.MULTILINE) if text.startswith(title)]
    return found


def blocks(document: str, title: str) -> list[str]:
    """Given the document and the title of a part, return the commands in it, block by block."""
    found = re.findall(r"^(```+)bash\n(.*?)\n\1$", part(document, title), re.MULTILINE | re.DOTALL)
    return [commands for _fence, commands in found]


def run(document: str, block: str, program: Path | None = None) -> str:
    """Given a block of commands, run it in a shell as the document prepares one; return what it wrote. Nothing may fail."""
    script = "\n".join(["set -e", *blocks(document, "In every shell, first"), block])
    path = f"{program.parent}:{os.environ['PATH']}" if program else "/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": path, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
        cwd="/", capture_output=True, text=True, check=False, errors="surrogateescape",
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert not TRAP.exists()
    return done.stdout + done.stderr


def assert_back(lost: Lost, server: Server) -> None:
    assert {name: contents(server, name) for name in lost.before} == lost.before
    query = "SELECT datname, pg_get_userbyid(datdba), datconnlimit, datacl FROM pg_database ORDER BY 1"
    assert server.psql(query) == lost.engine.server.psql(query)
    roles = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY 1"
    assert server.psql(roles) == lost.engine.server.psql(roles)
    assert "work_mem=7MB" in server.psql("SELECT setconfig FROM pg_db_role_setting")


def test_without_pgkeep_everything_comes_back(lost: Lost, tmp_path: Path) -> None:
    with another(lost.engine.server) as server:
        document = written(lost, server, tmp_path).document
        steps = blocks(document, "5. ")
        assert len(steps) == 1 + len(lost.before)
        for block in steps:
            run(document, block)
        assert_back(lost, server)
        assert "accepting connections" in run(document, blocks(document, "0. ")[0])
        counted = [run(document, block) for block in blocks(document, "6. ")]
        assert len(counted) == len(lost.before)


def test_with_pgkeep_everything_comes_back(lost: Lost, program: Path, tmp_path: Path) -> None:
    with another(lost.engine.server) as server:
        document = written(lost, server, tmp_path).document
        for title in ("1. ", "2. ", "3. "):
            for block in blocks(document, title):
                run(document, block, program)
        assert_back(lost, server)
        # In place of a live one that was changed, and that was closed in step 0.
        closed = blocks(document, "0. ")[1:]
        assert len(closed) == len(lost.before) - 1  # nobody is kept out of `postgres`
        for name in lost.before:
            spoil(server, name)
        for block in closed:
            run(document, block)
        assert server.psql("SELECT count(*) FROM pg_database WHERE datconnlimit = 0") == str(len(closed))
        steps = blocks(document, "4. ")
        assert len(steps) == _PER_DATABASE * len(lost.before)
        for number in range(0, len(steps), _PER_DATABASE):
            run(document, steps[number], program)  # only looks
            run(document, steps[number + 1], program)
        for (name,) in rows(server, "SELECT datname FROM pg_database WHERE datname ~ '_[0-9]{4}-[0-9-]+_[0-9-]+$'"):
            server.psql(f"DROP DATABASE {quote_identifier(name)}")
        assert_back(lost, server)


def rows(server: Server, query: str) -> list[tuple[str, ...]]:
    connection = psycopg2.connect(server.conninfo())
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def spoil(server: Server, database: str) -> None:
    """Delete rows of a table, and another table."""
    if "orders" in server.psql("SELECT relname FROM pg_class", database).split():
        server.psql("DELETE FROM orders WHERE id % 2 = 0; DROP TABLE measured CASCADE", database)
    else:
        server.psql("DROP TABLE IF EXISTS whoami, also", database)


def test_one_table_comes_back_into_a_live_database(lost: Lost, program: Path, tmp_path: Path) -> None:
    with another(lost.engine.server) as server:
        document = written(lost, server, tmp_path).document
        for block in (blocks(document, "5. ")[0], *blocks(document, "3. ")):
            run(document, block, program)
        steps = blocks(document, "4. ")
        names = re.findall(r"^### (.*)$", part(document, "4. "), re.MULTILINE)
        for name, text in (("sample", "`sample`"), (HOSTILE, next(name for name in names if "trap" in name))):
            first = names.index(text) * _PER_DATABASE
            beside, dropped, changed, end = steps[first + 2 : first + _PER_DATABASE]
            table, lost_rows = ("public.orders", "id > 7") if name == "sample" else ("whoami", "true")
            run(document, beside, program)
            before = contents(server, name)
            server.psql(f"DELETE FROM {table} WHERE {lost_rows}", name)
            run(document, changed.replace("table=public.orders", f"table={table}"))
            query = "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} t"
            full = f"public.{table.removeprefix('public.')}"
            assert server.psql(query.format(f"{full}_rescued"), name) == server.psql(
                query.format(full), f"{name}_rescue"
            )
            server.psql(f"DROP TABLE {full}_rescued; DROP TABLE {full} CASCADE", name)
            run(document, dropped.replace("table=public.orders", f"table={table}"))
            restored = contents(server, name)
            assert {key: value for key, value in before.items() if key in restored} == restored
            assert full in restored
            run(document, end)
            assert not rows(server, "SELECT FROM pg_database WHERE datname ~ '_rescue$'")


def test_what_a_job_says_leads_the_commands_to_the_server(
    engine: Engine, program: Path, tmp_path: Path, fresh_role: Callable[..., str]
) -> None:
    server = engine.server
    role = fresh_role(server, "NOLOGIN SUPERUSER")
    passfile, services = tmp_path / "pass file", tmp_path / "services.conf"
    passfile.touch(0o600)
    passfile.write_text(f"*:*:*:*:{server.password}\n")
    services.write_text(f"[there]\nhost=127.0.0.1\nport=1\nuser={server.user}\n")
    common = {"repository": str(engine.repository), "bin_dir": str(server.bindir), "passfile": str(passfile)}
    ways: tuple[dict[str, Any], ...] = (
        {"login_host": "127.0.0.1", "login_port": server.port, "session_role": role, "ssl_mode": "disable"},
        {"service": "there", "service_file": str(services), "login_port": server.port, "session_role": role},
    )
    for way in ways:
        write_job(tmp_path, "nightly", **common, **way)
        raw = {"repository": str(engine.repository), "config_dir": str(tmp_path)}
        document = runbook(raw, False, engine.clock).document
        look = blocks(document, "0. ")[0]
        found = run(document, look + " \\\n    --command='SELECT current_user, inet_server_port()'")
        assert role in found
        assert str(server.port) in found
        planned = run(document, f"{blocks(document, '3. ')[0]} --target=another --dry-run", program)
        assert "would restore main/sample/" in planned


# --- what it says ---


@pytest.fixture(scope="module")
def engine(samples: dict[str, str], debian_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A repository with one backup of the sample and one of the globals."""
    made = Engine(debian_server, tmp_path_factory.mktemp("said") / "repository")
    made.take("sample", globals=True, role_passwords="always")
    return made


def test_no_secret_is_in_it_and_in_nothing_that_is_said(engine: Engine, program: Path, tmp_path: Path) -> None:
    server = engine.server
    option = write_job(
        tmp_path, "nightly", repository=str(engine.repository), login_host="127.0.0.1", login_port=server.port,
        login_password=PASSWORD,
    )  # fmt: skip
    secrets = (PASSWORD, json.dumps(PASSWORD)[1:-1], "er\\4711", "4711'", "An0ther", "SCRAM-SHA-256$")
    raw = {"repository": str(engine.repository), "login_password": "An0ther", "config_dir": str(tmp_path)}
    result = runbook({**raw, "path": str(tmp_path / "book.md")}, True, engine.clock)
    keeper = Keeper(program, server, engine.repository)
    plain, as_json = keeper.run("runbook", option), keeper.run("runbook", option, "--json")
    assert (plain.code, plain.err, as_json.code, as_json.err) == (0, "", 0, "")
    assert as_json.json == {"path": None, "document": plain.out}
    said = (result.document, repr(result), json.dumps(result.to_json()), str(result.diff), plain.out, as_json.out)
    assert [(secret, text) for secret in secrets for text in said if secret in text] == []
    assert "the password of role `postgres`" in result.document
    assert "--login-host=127.0.0.1" in plain.out


def test_it_is_written_once_and_check_mode_writes_nothing(engine: Engine, program: Path, tmp_path: Path) -> None:
    path = tmp_path / "book.md"
    raw = {"repository": str(engine.repository), "config_dir": str(tmp_path / "none"), "path": str(path)}
    planned = runbook(raw, True, engine.clock)
    assert (planned.changed, planned.warnings, path.exists()) == (True, (), False)
    result = runbook(raw, False, engine.clock)
    assert (result.changed, path.read_text(), path.stat().st_mode & 0o777) == (True, result.document, 0o600)
    assert result.diff is not None
    assert (result.diff["before"], result.diff["after"]) == ("", result.document)
    again = runbook(raw, False, engine.clock)
    assert (again.changed, again.diff) == (False, {**result.diff, "before": result.document})
    keeper = Keeper(program, engine.server, engine.repository)
    none = f"--config-dir={tmp_path}/none"
    written = [keeper.run("runbook", none, f"--path={path}{more}", "--dry-run") for more in ("", "2")]
    written.append(keeper.run("runbook", none, f"--path={path}"))
    assert [(done.code, done.out) for done in written] == [
        (0, f"{path}: nothing to change\n"),
        (0, f"{path}2: would be written\n"),
        (0, f"{path}: nothing to change\n"),
    ]
    path.write_text("something else")
    assert runbook(raw, False, engine.clock).diff == {**result.diff, "before": "something else"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["book.md"]


def test_a_file_that_cannot_be_written_is_said(engine: Engine, tmp_path: Path) -> None:
    raw = {"repository": str(engine.repository), "config_dir": str(tmp_path)}
    for path, problem in ((tmp_path / "no" / "book.md", "a directory that is there"), (tmp_path, "not a regular file")):
        with pytest.raises(PgkeepError, match=problem):
            runbook({**raw, "path": str(path)}, False, engine.clock)
    with pytest.raises(PgkeepError, match="is not a directory"):
        runbook({**raw, "repository": str(tmp_path / "no")}, False, engine.clock)


def test_what_happens_to_the_backups_is_in_it(debian_server: Server, samples: dict[str, str], tmp_path: Path) -> None:
    engine = Engine(debian_server, tmp_path / "repository")
    raw = {"repository": str(engine.repository), "config_dir": str(tmp_path / "none")}
    engine.now = datetime(2025, 11, 5, 2, tzinfo=timezone.utc)
    engine.take("sample")
    folder = engine.repository / "main" / "sample"

    def parts() -> tuple[str, str, str]:
        document = runbook(raw, False, engine.clock).document
        found = [part(document, title) if f"## {title}" in document else "" for title in ("Attention", "Not proven")]
        return found[0], found[1], document

    attention, unproven, first = parts()
    assert "no backup of the roles" in attention
    assert "ever verified of `sample`" in unproven
    assert "ever restored `sample`" in unproven
    verify({"repository": str(engine.repository), "level": "checksum"}, False, engine.clock)
    good = {"id": "main/sample/x", "at": "2025-11-05T03:00:00Z", "verdict": "good", "recovery_seconds": 754.3}
    evidence.keep(str(folder), good)
    evidence.keep(str(folder), {**good, "at": "2025-11-06T03:00:00Z", "verdict": "differs", "problem": "rows <b>"})
    attention, unproven, document = parts()
    assert unproven == ""
    assert "did not go well: `differs`" in attention
    assert "12m 34s" in document
    assert "2025-11-05T03:00:00Z" in document
    assert document != first
    # Newer ones, of which the newest is then damaged.
    for day in (6, 7):
        engine.now = datetime(2025, 11, day, 2, tzinfo=timezone.utc)
        taken = engine.take_one("sample")
    next(Path(taken.path).glob("*.dump*")).write_bytes(b"")
    attention, _unproven, document = parts()
    assert f"the newest backup of `sample`, `{taken.id}`, is damaged" in attention
    assert "is old" not in attention
    assert "sample_2025-11-06_02-00-00" in part(document, "5. ")
    assert taken.id not in part(document, "5. ")
    engine.now += timedelta(days=10)
    attention, _unproven, document = parts()
    assert "the newest good backup of `sample` is old: it is of 2025-11-06T02:00:00Z" in attention
    engine.now += timedelta(days=1)
    assert parts()[2] == document


def test_an_empty_repository_and_broken_jobs_have_a_document_too(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir(mode=0o700)
    write_job(tmp_path, "nightly", repository="/nowhere", unknown=1)
    result = runbook(
        {"repository": str(tmp_path / "repository"), "config_dir": str(tmp_path)},
        False,
        lambda: datetime.now(timezone.utc),
    )
    assert "There is no backup in this repository" in part(result.document, "Attention")
    assert "could not be read" in part(result.document, "Attention")
    assert any("unknown" in warning for warning in result.warnings)


# --- the playbook ---


def play(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_playbook(directory, ROOT / "playbooks" / "runbook.yml", "-i", directory / "inventory.json", *more)


def test_the_playbook_collects_the_documents_and_names_who_has_none(engine: Engine, tmp_path: Path) -> None:
    host = {
        "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False,
        "pgkeep_repository": str(engine.repository), "pgkeep_config_dir": str(tmp_path / "none"),
    }  # fmt: skip
    connection = {"login_port": 5433, "login_password": "An0ther"}
    hosts = {
        "good": host,
        "broken": {**host, "pgkeep_repository": str(tmp_path / "missing")},
        "other": {**host, "pgkeep_connection": connection},
    }
    (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    checked = play(tmp_path, "--check", "--diff", "--limit", "good")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not (tmp_path / "runbooks").exists()
    done = play(tmp_path, "-e", f"pgkeep_runbooks={tmp_path}/books")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "2 of 3 hosts without failures" in done.stdout
    assert "broken: failed, the repository" in done.stdout
    books = {path.name: path.read_text() for path in (tmp_path / "books").iterdir()}
    assert books.keys() == {"good.md", "other.md"}
    assert books["good.md"] == runbook({**host_options(host)}, False, engine.clock).document
    assert "--login-port=5433" in books["other.md"]
    assert "An0ther" not in books["other.md"] + done.stdout + done.stderr
    again = play(tmp_path, "-e", f"pgkeep_runbooks={tmp_path}/books", "--limit", "good,other")
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.findall(r"changed=(\d+)", again.stdout) == ["0", "0"]


def host_options(host: dict[str, Any]) -> dict[str, Any]:
    return {"repository": host["pgkeep_repository"], "config_dir": host["pgkeep_config_dir"]}
