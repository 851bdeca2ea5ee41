# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills: what is good is found good in every form, what is not is found and named, and the host is kept out of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import evidence, server
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services import restore as restoring
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.prune import prune
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import Verification, Verified, verify

from tests.integration.samples import Engine, make_sample, manifest
from tests.integration.zoo import make_zoo
from tests.keeper import Keeper, finish, until
from tests.postgres import EMBEDDED, Server, find_installation, quote_identifier

FreshDatabase = Callable[..., str]
pytestmark = pytest.mark.needs_programs("bwrap")


WORK = Path("/tmp") / f"pgkeep-drills-{os.getpid()}"  # short, as a socket's path may have 107 characters at most


@pytest.fixture(scope="module", autouse=True)
def _work() -> Iterator[None]:
    WORK.mkdir(mode=0o700)
    yield
    shutil.rmtree(WORK)


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory to drill in; a socket's path may have 107 characters at most."""
    path = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def drilled(engine: Engine, check: bool = False, **more: Any) -> Verified:
    options = {"level": "restore", "bin_dir": str(engine.server.bindir), "work_dir": str(WORK)}
    raw = {"repository": str(engine.repository), **options, **more}
    return verify({name: value for name, value in raw.items() if value is not None}, check, engine.clock)


def drilled_one(engine: Engine, **more: Any) -> Verification:
    (done,) = drilled(engine, **more).verifications
    return done


def left_behind() -> list[str]:
    return [path.name for path in WORK.iterdir()]


@pytest.mark.parametrize("form", ["custom", "directory", "plain", "tar"])
def test_everything_that_a_database_can_hold_is_proven_equal(server: Server, tmp_path: Path, form: str) -> None:
    engine, name = Engine(server, tmp_path / "repository"), f"zoo_{os.urandom(4).hex()}"
    make_zoo(server, name)
    try:
        engine.take(name, format=form, compression="gzip:1", globals=True)
        done = {item.backup.title: item for item in drilled(engine).verifications}
        assert {title: (item.verdict, item.problem) for title, item in done.items()} == {
            name: ("good", ""),
            "@globals": ("good", ""),
        }
        found = done[name].evidence
        assert found is not None
        counted = server.psql(
            "SELECT count(*) FILTER (WHERE relkind = 'r'), count(*) FILTER (WHERE relkind = 'S') FROM pg_class"
            " WHERE relnamespace = 'zoo'::regnamespace",
            name,
        )
        assert f"{found.compared['tables']}|{found.compared['sequences']}" == counted
        assert found.compared["large_objects"] == 6
        assert found.warnings == []
        assert found.server_version == found.backup_server_version
        assert left_behind() == []
    finally:
        server.psql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def strange_server() -> Any:
    """A server whose settings change how values are written."""
    installation = find_installation(EMBEDDED)
    assert installation
    settings = {"timezone": "Asia/Kathmandu", "bytea_output": "escape"}
    with Server(installation, settings=settings) as found:
        yield found


def test_settings_that_change_how_values_are_written_change_nothing(strange_server: Server, tmp_path: Path) -> None:
    engine = Engine(strange_server, tmp_path / "repository")
    make_zoo(strange_server, "zoo")
    strange_server.psql(
        "ALTER DATABASE zoo SET timezone = 'America/St_Johns'; ALTER DATABASE zoo SET intervalstyle = iso_8601"
    )
    engine.take("zoo")
    done = drilled_one(engine)
    assert (done.verdict, done.problem) == ("good", "")


def test_a_database_that_every_server_has_is_drilled_under_its_own_name(
    lone_debian_server: Server, tmp_path: Path
) -> None:
    engine = Engine(lone_debian_server, tmp_path / "repository")
    engine.take("postgres", "template1")
    done = drilled(engine, checks=["SELECT current_database() IN ('postgres', 'template1')"])
    assert [(item.verdict, item.problem) for item in done.verifications] == [("good", ""), ("good", "")]


# --- a proof that the proof can fail ---

ROWS = "table public.customers has 803 rows as in the backup, but not the same"
SWAP = "UPDATE customers SET born = CASE id WHEN 3 THEN date '1970-01-05' ELSE date '1970-01-04' END WHERE id IN (3, 4)"
DOUBLE = """UPDATE audit.trail SET (id, "what happened") = (6, 'thing 6') WHERE id = 5"""
TAMPERED = {
    "one row changed": ("UPDATE customers SET name = 'name 13' WHERE id = 12", ROWS),
    "one row missing": (
        "DELETE FROM orders WHERE id = 77",
        "table public.orders has 1,999 rows instead of 2,000: 1 row missing",
    ),
    "one row duplicated": (
        "INSERT INTO audit.trail SELECT * FROM audit.trail WHERE id = 5",
        "table audit.trail has 301 rows instead of 300: 1 row too many",
    ),
    "one duplicated, one missing": (DOUBLE, "table audit.trail has 300 rows as in the backup, but not the same"),
    "a row of a table without columns": (
        "INSERT INTO empty DEFAULT VALUES",
        "table public.empty has 1 row instead of 0: 1 row too many",
    ),
    "two values swapped": (SWAP, ROWS),
    "a row missing in a partition": (
        "DELETE FROM measured_2024 WHERE at = (SELECT min(at) FROM measured_2024)",
        "table public.measured_2024",
    ),
    "NULL instead of an empty text": ("UPDATE customers SET data = '' WHERE name = ''", ROWS),
    "a sequence off by one": (
        "SELECT setval('orders_id_seq', 4712)",
        "sequence public.orders_id_seq is at 4712 instead of 4711",
    ),
    "a sequence not used": (
        "SELECT setval('orders_id_seq', 4711, false)",
        "sequence public.orders_id_seq is at 4711 (not yet used) instead of 4711",
    ),
    "a table missing": ("DROP TABLE audit.trail", "table audit.trail is missing, with 300 rows"),
    "a table too many": ("CREATE TABLE more AS SELECT 1", "table public.more has 1 row that the backup does not have"),
    "an index missing": (
        "ALTER TABLE customers DROP CONSTRAINT customers_pkey CASCADE",
        "CONSTRAINT customers customers_pkey (schema public) is missing",
    ),
    "a view missing": ("DROP VIEW paid", "VIEW paid (schema public) is missing"),
    "a function too many": (
        "CREATE FUNCTION thrice(int) RETURNS int LANGUAGE sql AS 'SELECT 3'",
        "FUNCTION thrice(integer) (schema public) is not in the backup",
    ),
    "a large object changed": ("SELECT lo_put(123456, 1, '\\x01')", "large object 123456 has another content"),
    "a large object missing": ("SELECT lo_unlink(123456)", "large object 123456 is missing"),
    "a large object too many": ("SELECT lo_create(654321)", "large object 654321 is not in the backup"),
    "an extension missing": ("DROP EXTENSION plpgsql", "extension plpgsql is missing"),
}


@pytest.fixture(scope="module")
def taken(debian_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A repository with one backup of the sample."""
    engine = Engine(debian_server, tmp_path_factory.mktemp("tampered") / "repository")
    make_sample(debian_server, "tampered")
    engine.take("tampered")
    return engine


@pytest.mark.parametrize(("change", "said"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_restored_database_that_differs_is_found_and_named(
    taken: Engine, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    compare = restoring.compare

    def tampered(loading: Any, database: str, expected: Any) -> Any:
        with server.connect(loading.connection, database, writable=True) as session:
            session.rows("SET search_path = public; " + change)
        return compare(loading, database, expected)

    monkeypatch.setattr(restoring, "compare", tampered)
    done = drilled_one(taken)
    assert done.verdict == "differs"
    assert said in done.problem
    assert done.evidence
    assert done.evidence.verdict == "differs"


# --- backups that do not restore ---


def broken(engine: Engine, name: str) -> str:
    """Create a database whose dump does not restore: a CHECK calls a function that finds its table by search_path."""
    engine.server.psql(f"CREATE DATABASE {quote_identifier(name)}")
    engine.server.psql(
        "CREATE TABLE allowed (v int); INSERT INTO allowed VALUES (1);"
        "CREATE FUNCTION is_allowed(int) RETURNS bool LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN EXISTS (SELECT FROM allowed WHERE v = $1); END $$;"
        "CREATE TABLE checked (v int CHECK (is_allowed(v))); INSERT INTO checked VALUES (1)",
        name,
    )
    return name


def test_a_dump_that_does_not_restore_is_found_and_counts_for_nothing(
    engine: Engine, fresh_database: FreshDatabase
) -> None:
    name = fresh_database(engine.server)
    good = engine.take_one(name)
    engine.server.psql(f"DROP DATABASE {name}")
    broken(engine, name)
    bad = engine.take_one(name)
    done = {item.backup.id: item for item in drilled(engine).verifications}
    assert (done[good.id].verdict, done[bad.id].verdict) == ("good", "unrestorable")
    assert 'relation "allowed" does not exist' in done[bad.id].problem
    listed = {item.id: item for item in listing({"repository": str(engine.repository)}, False, engine.clock).backups}
    assert listed[good.id].state.verified_level == "restore"
    assert not listed[bad.id].complete
    assert "failed its verification" in listed[bad.id].problem
    pruned = prune({"repository": str(engine.repository), "keep_last": 1}, False, engine.clock)
    assert pruned.deleted == ()
    assert [item["verdict"] for item in evidence.read(str(Path(good.path).parent))] == ["unrestorable", "good"]


def test_checks_are_asked_and_what_they_return_is_compared(engine: Engine, fresh_database: FreshDatabase) -> None:
    name = fresh_database(engine.server)
    engine.server.psql("CREATE TABLE t AS SELECT i, 'row ' || i AS text FROM generate_series(1, 3) i", name)
    engine.take(name)
    passing = [
        "SELECT count(*) = 3 FROM public.t",
        {"query": "TABLE public.t ORDER BY i", "expected": "1|row 1\n2|row 2\n3|row 3"},
        {"query": "SELECT 1/0", "expected": "1", "database": "another"},
        {"query": "SELECT NULL", "expected": ""},
    ]
    done = drilled_one(engine, checks=passing)
    assert (done.verdict, done.problem) == ("good", "")
    assert done.evidence
    assert [answer.passed for answer in done.evidence.answers] == [True, True, True]
    failing = drilled_one(engine, checks=[*passing, {"query": "SELECT max(i) FROM public.t", "expected": "4"}])
    assert failing.verdict == "unexpected"
    assert failing.problem == "the check 'SELECT max(i) FROM public.t' returned '3' instead of '4'"
    again = drilled_one(engine, checks=["SELECT count(*) > 5 FROM public.no_such"])
    assert again.verdict == "unexpected"
    assert 'relation "public.no_such" does not exist' in again.problem


def test_an_archive_that_was_replaced_together_with_its_checksum_is_still_found(
    engine: Engine, fresh_database: FreshDatabase
) -> None:
    """Somebody who can write to the repository can make a manifest fit, but not an archive restore."""
    taken = engine.take_one(make_sample(engine.server, f"forged_{os.urandom(3).hex()}"), compression="none")
    document = manifest(taken)
    file = Path(taken.path, document["files"][0]["path"])
    data = file.read_bytes().replace(b"COPY public.orders", b"COPY public.ordres")
    file.write_bytes(data)
    document["files"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    Path(taken.path, "manifest.json").write_text(json.dumps(document))
    assert drilled_one(engine).verdict == "unrestorable"


# --- what is the host's fault is not held against the backup ---


def test_what_the_host_lacks_is_said_and_not_held_against_the_backup(
    engine: Engine, embedded_server: Server, fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    newer = Engine(embedded_server, tmp_path / "newer")
    taken = newer.take_one(fresh_database(embedded_server))
    done = drilled_one(newer, bin_dir=None)
    assert done.verdict == "error"
    assert "the server programs of PostgreSQL 18 are not on this host (only those of 15)" in done.problem
    assert "install the package postgresql-18" in done.problem
    missing = drilled_one(newer, preload=["no_such_library"])
    assert missing.verdict == "error"
    assert "this host has no library 'no_such_library': install the package of that extension" in missing.problem
    nowhere = drilled_one(newer, work_dir="/nowhere")
    assert "set `work_dir` to an existing directory" in nowhere.problem
    item = listing({"repository": str(newer.repository)}, False, newer.clock).backups[0]
    assert (item.complete, item.state.verified, item.id) == (True, None, taken.id)
    assert evidence.read(str(Path(taken.path).parent)) == []


def test_extensions_and_locales_that_the_host_lacks_are_named(engine: Engine, fresh_database: FreshDatabase) -> None:
    taken = engine.take_one(fresh_database(engine.server))
    path, document = Path(taken.path, "manifest.json"), manifest(taken)
    document["properties"]["extensions"] += [{"name": "no_such", "version": "1", "schema": "public"}]
    path.write_text(json.dumps(document))
    done = drilled_one(engine)
    assert done.verdict == "error"
    assert "extensions cannot be created: no_such: install their packages on the server" in done.problem
    document["properties"]["extensions"].pop()
    document["properties"].update(collate="xx_YY.UTF-8", ctype="xx_YY.UTF-8")
    path.write_text(json.dumps(document))
    done = drilled_one(engine)
    assert done.verdict == "error"
    assert "install or generate that locale on this host" in done.problem


def test_an_extension_that_has_to_be_preloaded_is(debian_server: Server, tmp_path: Path) -> None:
    installation = find_installation("debian")
    assert installation
    with Server(installation, settings={"shared_preload_libraries": "pg_stat_statements"}) as own:
        engine = Engine(own, tmp_path / "repository")
        own.psql("CREATE DATABASE shop")
        own.psql(
            "CREATE EXTENSION pg_stat_statements; CREATE TABLE seen AS SELECT query FROM pg_stat_statements LIMIT 0",
            "shop",
        )
        engine.take("shop")
        checks = ["SELECT count(*) >= 0 FROM public.pg_stat_statements"]
        without = drilled_one(engine, checks=checks)
        assert without.verdict == "unexpected"
        assert "shared_preload_libraries" in without.problem
        assert drilled_one(engine, checks=checks, preload=["pg_stat_statements"]).verdict == "good"


@pytest.mark.needs_root
def test_a_full_disk_of_the_drill_is_not_held_against_the_backup(
    engine: Engine, fresh_database: FreshDatabase, work: Path
) -> None:
    name = fresh_database(engine.server)
    # Hard to foresee: the index takes the space, and pg_database_size was taken before it was made.
    engine.server.psql("CREATE TABLE t AS SELECT repeat(md5(i::text), 30) AS v FROM generate_series(1, 60000) i", name)
    taken = engine.take_one(name)
    document = manifest(taken)
    document["database_size"] = 1000
    Path(taken.path, "manifest.json").write_text(json.dumps(document))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m,mode=700", "tmpfs", str(work)], check=True)
    try:
        done = drilled_one(engine, work_dir=str(work))
        assert done.verdict == "error"
        assert "free some space" in done.problem
        assert list(work.iterdir()) == []
    finally:
        subprocess.run(["umount", str(work)], check=True)


def test_many_roles_are_drilled(tmp_path: Path) -> None:
    """More of them than a pipe holds."""
    installation = find_installation("debian")
    assert installation
    with Server(installation) as own:
        own.psql(
            "DO $$ BEGIN FOR i IN 1 .. 1500 LOOP EXECUTE format('CREATE ROLE role_%s PASSWORD %L', i, i); END LOOP; END $$"
        )
        engine = Engine(own, tmp_path / "repository")
        engine.take("postgres", globals=True)
        done = drilled(engine, databases=["@globals"])
        assert [(item.verdict, item.problem) for item in done.verifications] == [("good", "")]


# --- hostile dumps ---


LOOT = "id; cat /etc/shadow /proc/net/dev; ls -d /root/.* /home/* {repository}/main/*; echo the end"


def make_hostile(engine: Engine, name: str, proof: Path) -> None:
    """Create a database whose restore runs a program, if a superuser does it: pg_restore checks what it loads."""
    loot = LOOT.format(repository=engine.repository)
    function = (
        "CREATE OR REPLACE FUNCTION public.run() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN {} RETURN true; END $$;"
    )
    program = f"COPY (SELECT 1) TO PROGRAM ''cat > /dev/null; ({loot}) > /tmp/loot 2>&1; id > {proof}; sleep 300 &'';"
    engine.server.psql(f"CREATE DATABASE {quote_identifier(name)}")
    engine.server.psql(
        function.format("")
        + "CREATE TABLE public.t (a int CHECK (public.run())); INSERT INTO public.t VALUES (1);"
        + function.format(f"EXECUTE '{program}';"),
        name,
    )


def test_code_in_a_dump_reaches_nothing_of_the_host(
    engine: Engine, fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    name, marker = fresh_database(engine.server), tmp_path / "owned"
    engine.server.psql(f"DROP DATABASE {name}")
    make_hostile(engine, name, marker)
    engine.take(name, globals=True)
    sleeping = ["pgrep", "--count", "--full", "^sleep 300"]
    before = subprocess.run(sleeping, capture_output=True, check=False).stdout
    looks = [
        # The code ran: this is about what it found.
        "SELECT pg_read_file('/tmp/loot') LIKE '%the end%'",
        "SELECT pg_read_file('/tmp/loot') !~ 'root:|[.]ssh|@globals'",
        "SELECT pg_read_file('/tmp/loot') !~ 'eth[0-9]|ens[0-9]|veth'",
        f"SELECT pg_stat_file('{engine.repository}', true) IS NULL",
    ]
    done = drilled_one(engine, databases=[name], checks=looks)
    assert (done.verdict, done.problem) == ("good", "")
    assert not marker.exists()
    assert not Path("/tmp/loot").exists()
    assert left_behind() == []
    assert subprocess.run(sleeping, capture_output=True, check=False).stdout == before


# --- being killed, and the command ---


def test_a_killed_drill_leaves_what_the_next_one_removes(
    engine: Engine, program: Path, fresh_database: FreshDatabase, work: Path
) -> None:
    name = fresh_database(engine.server)
    engine.server.psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 200000) i", name)
    engine.take(name)
    keeper = Keeper(program, engine.server, engine.repository)
    arguments = (f"--bin-dir={engine.server.bindir}", f"--work-dir={work}", "--checks", "SELECT pg_sleep(60) IS NULL")
    running = keeper.start("drill", *arguments)

    def sleeping() -> bool:
        done = subprocess.run(["pgrep", "-f", f"{work}/pgkeep-drill"], capture_output=True, check=False)
        return bool(done.stdout) and bool(list(work.glob("pgkeep-drill-*/server/data/postmaster.pid")))

    until(sleeping, "the throw-away server runs")
    time.sleep(0.3)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert list(work.iterdir()) != []
    done = keeper.run("drill", *arguments[:2])
    assert done.code == 0, done
    assert f"removed {work}/pgkeep-drill-" in done.err
    assert list(work.iterdir()) == []
    gone = subprocess.run(["pgrep", "-f", f"{work}/pgkeep-drill"], capture_output=True, check=False)
    assert gone.stdout == b""


def test_an_interrupted_drill_ends_at_once_and_leaves_nothing(
    engine: Engine, program: Path, fresh_database: FreshDatabase, work: Path
) -> None:
    engine.take(fresh_database(engine.server))
    keeper = Keeper(program, engine.server, engine.repository)
    running = keeper.start(
        "drill", f"--bin-dir={engine.server.bindir}", f"--work-dir={work}", "--checks", "SELECT pg_sleep(60) IS NULL"
    )
    until(lambda: list(work.glob("pgkeep-drill-*/server/data/postmaster.pid")), "the throw-away server runs")
    threading.Event().wait(0.5)
    begin = time.monotonic()
    os.kill(running.pid, signal.SIGTERM)
    done = finish(running)
    assert done.code == 128 + signal.SIGTERM, done
    assert time.monotonic() - begin < 20
    assert list(work.iterdir()) == []


def test_the_command_drills_says_what_it_found_and_keeps_the_evidence(
    engine: Engine, program: Path, fresh_database: FreshDatabase
) -> None:
    name = fresh_database(engine.server)
    engine.server.psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 12345) i", name)
    engine.take(name)
    newest = engine.take_one(name)
    keeper = Keeper(program, engine.server, engine.repository)
    planned = keeper.run("drill", "--dry-run")
    assert planned.out.startswith(f"{newest.id}: planned (restore)"), planned
    assert "It has no network" in planned.out
    done = keeper.run("drill", f"--bin-dir={engine.server.bindir}", "--checks", "SELECT count(*) = 12345 FROM public.t")
    assert done.code == 0, done
    assert f"{newest.id}: good (restore) in " in done.out
    assert "12,345 rows of 1 table compared" in done.out
    (kept,) = evidence.read(str(Path(newest.path).parent))
    assert kept["compared"]["rows"] == 12345
    assert kept["checks"][0]["passed"]
    assert {"server", "restore", "compare", "checks"} <= kept["seconds"].keys()
    assert 0 < kept["recovery_seconds"] < 60
    assert "verified (restore)" in keeper.run("list").out
    fresh = keeper.run("drill", "--max-age=1d", "--json", f"--bin-dir={engine.server.bindir}")
    assert (fresh.code, fresh.json["verifications"], fresh.json["not_due"]) == (0, [], 2)


def test_a_drill_on_another_host_needs_only_the_copy(
    engine: Engine, fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    engine.take(fresh_database(engine.server), globals=True)
    shutil.copytree(engine.repository, tmp_path / "copy")
    shutil.rmtree(engine.repository)
    engine.repository = tmp_path / "copy"
    assert [item.verdict for item in drilled(engine).verifications] == ["good", "good"]


@pytest.mark.needs_root
@pytest.mark.parametrize("sandbox", [True, False])
def test_an_ordinary_user_drills(
    program: Path, debian_server: Server, fresh_database: FreshDatabase, sandbox: bool, tmp_path: Path
) -> None:
    place = Path(f"/tmp/pgkeep-{os.urandom(4).hex()}")
    engine = Engine(debian_server, place / "repository")
    place.mkdir(mode=0o755)
    (place / "work").mkdir(mode=0o700)
    shutil.chown(place / "work", "nobody", "nogroup")
    try:
        engine.take(fresh_database(debian_server))
        for path in (engine.repository, *engine.repository.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
        flag = "--sandbox" if sandbox else "--no-sandbox"
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", program, "drill", flag]
        command += [
            f"--repository={engine.repository}",
            f"--bin-dir={debian_server.bindir}",
            f"--work-dir={place}/work",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done
        assert "good (restore)" in done.stdout
        assert list((place / "work").iterdir()) == []
    finally:
        shutil.rmtree(place)


# --- much of it ---


def test_ten_thousand_tables_are_drilled(engine: Engine, fresh_database: FreshDatabase) -> None:
    name = fresh_database(engine.server)
    engine.server.psql(
        "SET max_stack_depth = '2MB';\n"
        + "\n".join(
            f"DO $$ BEGIN FOR i IN {start} .. {start + 999} LOOP"
            " EXECUTE format('CREATE TABLE t%s (a int); INSERT INTO t%s VALUES (%s)', i, i, i); END LOOP; END $$;"
            for start in range(0, 10000, 1000)
        ),
        name,
    )
    engine.take(name)
    done = drilled_one(engine)
    assert (done.verdict, done.problem) == ("good", "")
    assert done.evidence
    assert (done.evidence.compared["tables"], done.evidence.compared["rows"]) == (10000, 10000)


def test_five_million_rows_are_compared_in_constant_memory(
    engine: Engine, program: Path, fresh_database: FreshDatabase
) -> None:
    name = fresh_database(engine.server)
    engine.server.psql("CREATE TABLE t AS SELECT i, md5(i::text) AS v FROM generate_series(1, 5000000) i", name)
    engine.take(name)
    keeper = Keeper(program, engine.server, engine.repository)
    running = keeper.start("drill", f"--bin-dir={engine.server.bindir}")
    highest = 0
    while running.poll() is None:
        try:
            status = Path(f"/proc/{running.pid}/status").read_text()
        except OSError:
            break
        highest = max([highest, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.1)
    done = finish(running)
    assert done.code == 0, done
    assert "5,000,000 rows of 1 table compared" in done.out
    assert highest < 100_000, f"{highest} kB"
