# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure and write docs/benchmarks.md: `make bench`, or with ARGS="--megabytes 200 --rounds 3" for a quick look.

ARGS="--only fleet" measures only what a fleet costs, "--only offsite" only copies, and replaces that section of the page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests.bench import fleet, offsite
from tests.bench.measure import Case, Run, median, ratio, rounds
from tests.bench.sample import fill
from tests.postgres import CELERP, DEBIAN, Server, find_installation

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "shop"
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "max_locks_per_transaction": "512"}
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tree_size(path: Path) -> int:
    """Given a file or directory, return the bytes of all data files in it (manifests and locks are not data)."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(item.stat().st_size for item in files if item.name not in ("manifest.json", ".lock"))


def _empty(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)


def _build_command(where: Path) -> str:
    command = where / "pgkeep"
    build = [sys.executable, str(ROOT / "tools/build_command.py"), str(command), "--interpreter", sys.executable]
    subprocess.run(build, check=True)
    return str(command)


# --- the cases ---


def dump_cases(server: Server, where: Path, command: str) -> list[Case]:
    """Given a server with the sample, return pgkeep's default and what it is compared with."""
    tool, out = str(server.bindir / "pg_dump"), where / "out"
    repository = where / "repository"
    database = f"--dbname={server.conninfo(DATABASE)}"

    def case(name: str, argv: Sequence[str]) -> Case:
        return Case(name, argv, ENVIRONMENT, lambda: _empty(out), lambda: _tree_size(out))

    inside = server.source == CELERP
    bare = [tool, database, "-Fc", "--compress=zstd:1", "-f", str(out / "bare")]
    if not inside:
        script = 'set -o pipefail; "$0" "$1" -Fc -Z0 | zstd -q -1 -c > "$2" && sync "$2"'
        bare = ["bash", "-c", script, tool, database, str(out / "bare")]
    return [
        Case(
            "pgkeep backup (default)",
            [
                command, "backup", "--no-globals", f"--repository={repository}", f"--bin-dir={server.bindir}",
                f"--login-unix-socket={server.socket_dir}", DATABASE,
            ],
            ENVIRONMENT,
            lambda: _empty(repository),
            lambda: _tree_size(repository),
        ),
        case("pg_dump with the same flags" if inside else "pg_dump -Fc -Z 0 | zstd -1", bare),
        case("pg_dump -Fc -Z 9", [tool, database, "-Fc", "-Z", "9", "-f", str(out / "classic")]),
        case("pg_dump > /dev/null (floor)", ["sh", "-c", 'exec "$0" "$1" > /dev/null', tool, database]),
    ]  # fmt: skip


# --- restoring and drilling ---


def _without(server: Server, database: str, *, create: bool = False) -> None:
    server.psql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    if create:
        server.psql(f"CREATE DATABASE {database} TEMPLATE template0")


def take(server: Server, where: Path, command: str, database: str) -> Path:
    """Given a server and a database, back it up with pgkeep's default; return the archive."""
    repository = where / f"repository_{database}"
    _empty(repository)
    subprocess.run(
        [
            command, "backup", "--no-globals", f"--repository={repository}", f"--bin-dir={server.bindir}",
            f"--login-unix-socket={server.socket_dir}", database,
        ],
        env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (archive,) = repository.glob("main/*/*/*.dump*")
    return archive


def restore_cases(server: Server, where: Path, command: str, archive: Path) -> list[Case]:
    """Given a server and a backup's archive, return pgkeep's default and what an operator would type."""
    target, tool, psql = f"{DATABASE}_restored", str(server.bindir / "pg_restore"), str(server.bindir / "psql")
    into = f"--dbname={server.conninfo(target)}"
    repository = archive.parents[3]
    packed = archive.suffix == ".zst"
    plain = where / "out" / "unpacked"

    def by_hand(name: str, script: str) -> Case:
        argv = ["bash", "-euo", "pipefail", "-c", script, tool, into, str(archive), str(plain), psql]
        return Case(name, argv, ENVIRONMENT, lambda: (_empty(plain.parent), _without(server, target, create=True))[0])

    unpack = 'zstd -q -d -c "$2" > "$3"; ' if packed else ""
    source = '"$3"' if packed else '"$2"'
    one = 'zstd -q -d -c "$2" | "$0" -e "$1"' if packed else '"$0" -e "$1" "$2"'
    two = f'{unpack}"$0" -e -j 2 "$1" {source}'
    return [
        Case(
            "pgkeep restore (default)",
            [
                command, "restore", DATABASE, f"--target={target}", f"--repository={repository}",
                f"--bin-dir={server.bindir}", f"--login-unix-socket={server.socket_dir}",
            ],
            ENVIRONMENT,
            lambda: _without(server, target),
        ),
        by_hand("zstd -d | pg_restore -e" if packed else "pg_restore -e", one),
        by_hand("zstd -d, pg_restore -e -j 2" if packed else "pg_restore -e -j 2", two),
        by_hand("the same, then ANALYZE", f'{two}; "$4" -X -q "${{1#--dbname=}}" -c ANALYZE'),
    ]  # fmt: skip


def drill_cases(server: Server, archive: Path) -> list[Case]:
    """Given a backup's archive, return its drill, and the same without the proof that the contents are equal."""
    runner = [sys.executable, str(ROOT / "tests/bench/drilling.py")]
    options = ["drill", f"--repository={archive.parents[3]}", f"--bin-dir={server.bindir}"]
    return [
        Case("drill", [*runner, "with", *options], ENVIRONMENT),
        Case("drill without the content proof", [*runner, "without", *options], ENVIRONMENT),
    ]


def many_tables(server: Server, database: str, count: int) -> None:
    """Given a server, make a database of so many small tables."""
    server.psql(f"CREATE DATABASE {database}")
    for start in range(0, count, 500):
        end = min(start + 500, count)
        server.psql(
            "".join(
                f"CREATE TABLE t{n} (id int PRIMARY KEY, name text); INSERT INTO t{n} VALUES (1, 'x');"
                for n in range(start, end)
            ),
            database,
        )


def _playbook(where: Path, name: str, task: Mapping[str, object]) -> list[str]:
    path = where / f"{name}.yml"
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task] if task else []}]
    path.write_text(json.dumps(play))
    return ["ansible-playbook", "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}", str(path)]


def ansible_cases(server: Server, where: Path) -> list[Case]:
    """Given a server with the sample, return the module, its nearest peer and an empty playbook."""
    out, repository = where / "out", where / "repository"
    path = f"{server.bindir}:{ENVIRONMENT['PATH']}"
    environment = {
        **ENVIRONMENT,
        "PATH": path,
        "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", ""),
        "ANSIBLE_HOME": str(ROOT / ".cache/ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    ours = {
        "pgkeep.backup.pg_backup": {
            "repository": str(repository),
            "databases": [DATABASE],
            "globals": False,
            "login_unix_socket": str(server.socket_dir),
            "bin_dir": str(server.bindir),
        }
    }
    theirs = {
        "community.postgresql.postgresql_db": {
            "name": DATABASE,
            "state": "dump",
            "target": str(out / "shop.pgc"),
            "login_unix_socket": str(server.socket_dir),
            "login_user": "postgres",
        }
    }
    empty = _playbook(where, "empty", {})
    module = _playbook(where, "module", ours)
    peer = _playbook(where, "peer", theirs)

    def dump(name: str, argv: list[str], place: Path) -> Case:
        return Case(name, argv, environment, lambda: _empty(place), lambda: _tree_size(place))

    return [
        dump("playbook with module pg_backup", module, repository),
        dump("playbook with postgresql_db state=dump (.pgc)", peer, out),
        Case("playbook without a task", empty, environment),
    ]


def start_cases(where: Path, command: str) -> list[Case]:
    """Return the command's start-up beside the interpreter's own."""
    empty = where / "empty"
    empty.mkdir(mode=0o700)
    return [
        Case("pgkeep --version", [command, "--version"], ENVIRONMENT),
        Case("pgkeep list (no backups)", [command, "list", f"--repository={empty}"], ENVIRONMENT),
        Case("python3 -c pass", [sys.executable, "-I", "-c", "pass"], ENVIRONMENT),
    ]


def large_cases(where: Path, command: str, count: int) -> list[Case]:
    """Make a repository of so many backups; return what reads all of it."""
    large = where / "large"
    _many_backups(large, count)
    repository = f"--repository={large}"
    return [
        Case("list (the newest 10 shown)", [command, "list", repository, "--limit=10"], ENVIRONMENT),
        Case("stats", [command, "stats", repository], ENVIRONMENT),
        Case(
            "prune --dry-run, keep_last 10, keep_days 30, keep_monthly 12",
            [command, "prune", repository, "--keep-last=10", "--keep-days=30", "--keep-monthly=12", "--dry-run"],
            ENVIRONMENT,
        ),
    ]


def _many_backups(repository: Path, count: int) -> None:
    """Write a repository of tiny backups with manifests as large as real ones, an hour apart in 100 databases."""
    sys.path.insert(0, str(ROOT / "plugins/module_utils"))
    from _core.domain import manifest, naming  # type: ignore[import-not-found]
    from _core.domain.version import VERSION  # type: ignore[import-not-found]

    about = {key.name: None for key in manifest.KEYS}
    about.update(
        manifest_version=1, instance="main", kind="database", duration=1.5, format="custom", compression="zstd:1",
        compressed_by="pg_dump", size=4, partial=False, left_out=[], warnings=[], options="custom zstd:1",
        command=["/usr/lib/postgresql/17/bin/pg_dump", "--format=custom", "--dbname=" + "x" * 200], database_size=8_000_000,
        server_version="17.6", tool_version="17.6", archive_version="1.16", host="db1", collection_version=VERSION,
        properties={"owner": "postgres", "encoding": "UTF8", "extensions": [{"name": "plpgsql", "version": "1.0"}] * 3},
    )  # fmt: skip
    begin = datetime(2025, 1, 1, tzinfo=timezone.utc)
    repository.mkdir(mode=0o700)
    for number in range(count):
        database, created = f"db{number % 100:02}", begin + timedelta(hours=number // 100)
        backup_id = naming.backup_id("main", "database", database, created)
        directory = repository / backup_id
        directory.mkdir(mode=0o700, parents=True)
        data = f"{directory.name}.dump"
        moment = created.strftime("%Y-%m-%dT%H:%M:%SZ")
        about.update(
            id=backup_id, database=database, created=moment, started=moment, finished=moment,
            files=[{"path": data, "size": 4, "sha256": "0" * 64}],
        )  # fmt: skip
        (directory / "manifest.json").write_bytes(manifest.serialize(about))
        (directory / data).write_text("data")


# --- the page ---


def _machine() -> str:
    names = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1000**2
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return f"{os.cpu_count()} cores ({names[0] if names else platform.machine()}), {memory} GB of memory, {system}"


def _row(name: str, runs: Sequence[Run], against: Sequence[Run]) -> str:
    first = runs[0]
    size = f"{first.size / 1e6:.0f}" if first.size else "-"
    cell = name.replace("|", "\\|")
    return (
        f"| {cell} | {median([run.wall for run in runs]):.2f} | {median([run.cpu for run in runs]):.2f} | {size} |"
        f" {max(run.memory for run in runs) / 1e6:.0f} | {ratio(against, runs)} |"
    )


def _table(results: Mapping[str, Sequence[Run]], first: str) -> list[str]:
    head = [
        "| | wall, s | CPU, s | MB stored | peak MB | wall of the first row against it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return head + [_row(name, runs, results[first]) for name, runs in results.items()]


def page(sections: Sequence[tuple[str, str, Mapping[str, Sequence[Run]]]], settings: str) -> str:
    """Given sections (title, remark, runs by case), return the page."""
    lines = [
        "# Measurements",
        "",
        "Made by `make bench`: whole commands, run in turn in paired rounds after one that does not count, with files",
        "synced between. Medians; the last column has the median ratio of the pairs and its range. Ratios matter, not seconds.",
        "CPU is that of the command and its children, the server's work is not in it. Peak is that of the largest process.",
        "",
        f"{settings}. Machine: {_machine()}.",
    ]
    for title, remark, results in sections:
        lines += ["", f"## {title}", "", remark, "", *_table(results, next(iter(results)))]
    return "\n".join(lines) + "\n"


def with_section(text: str, lines: Sequence[str]) -> str:
    """Given the page and the lines of a section, return the page with it, in place of one of that title."""
    parts = text.rstrip("\n").split("\n\n## ")
    new = "\n".join(lines).removeprefix("## ")
    title = new.partition("\n")[0]
    found = [number for number, part in enumerate(parts) if number and part.partition("\n")[0] == title]
    where = found[0] if found else len(parts)
    return "\n\n## ".join([*parts[:where], new, *parts[where + len(found) :]]) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the sample as plain dump")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backups", type=int, default=100_000, help="backups in the large repository")
    parser.add_argument("--tables", type=int, default=10_000, help="tables in the database of many tables")
    parser.add_argument(
        "--only", choices=["fleet", "offsite"], help="measure this alone, and leave the rest of the page"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


def recovery(
    server: Server, where: Path, command: str, inside: str, arguments: argparse.Namespace
) -> list[tuple[str, str, Mapping[str, Sequence[Run]]]]:
    """Given a server with the sample, measure getting it back; return the sections."""
    archive = take(server, where, command, DATABASE)
    results = rounds(restore_cases(server, where, command, archive), arguments.rounds, _say)
    remark = (
        f"Client and server {server.major}: {inside}. pgkeep's figures include the preflight, SHA-256 of the archive,"
        " ANALYZE, and that the database is made under another name and then renamed."
    )
    sections = [(f"Restoring with client {server.major}", remark, results)]
    _without(server, f"{DATABASE}_restored")
    if server.source == CELERP:
        remark = (
            "A drill makes a server, restores, and compares every row with the archive; the second row leaves that proof out."
            f" The database of about {arguments.megabytes} MB:"
        )
        results = rounds(drill_cases(server, archive), arguments.rounds, _say)
        sections.append(("Drilling a large database", remark, results))
        many_tables(server, "many", arguments.tables)
        archive = take(server, where, command, "many")
        results = rounds(drill_cases(server, archive), max(1, arguments.rounds // 2), _say)
        remark = f"{arguments.tables:,} tables of one row."
        sections.append(("Drilling a database of many tables", remark, results))
    return sections


def main() -> None:
    """Measure everything and write the page."""
    arguments = _arguments()
    if not arguments.only:
        arguments.output.write_text(measured(arguments))
    for name in [arguments.only] if arguments.only else ["offsite", "fleet"]:
        with tempfile.TemporaryDirectory(prefix="pgkeep-bench-", dir="/var/tmp") as place:
            lines = _section(name, Path(place), arguments)
        arguments.output.write_text(with_section(arguments.output.read_text(), lines))
    _say(f"written: {arguments.output}")


def _section(name: str, where: Path, arguments: argparse.Namespace) -> list[str]:
    if name == "offsite":
        return offsite.section(where, arguments.megabytes, arguments.rounds, _say, _table)
    return fleet.section(where, arguments.rounds, _say)


def measured(arguments: argparse.Namespace) -> str:
    """Measure everything but copies and the fleet; return the page."""
    sections: list[tuple[str, str, Mapping[str, Sequence[Run]]]] = []
    with tempfile.TemporaryDirectory(prefix="pgkeep-bench-", dir="/var/tmp") as place:
        where = Path(place)
        command = _build_command(where)
        (where / "out").mkdir()
        for source in (CELERP, DEBIAN):
            installation = find_installation(source)
            if installation is None:
                raise SystemExit(f"no PostgreSQL of {source} here: run make venv and tools/system-packages.sh")
            with Server(installation, settings=SETTINGS) as server:
                _say(f"filling {arguments.megabytes} MB into PostgreSQL {server.major}")
                fill(server, DATABASE, arguments.megabytes)
                inside = "zstd inside the archive" if source == CELERP else "the zstd program behind pg_dump"
                results = rounds(dump_cases(server, where, command), arguments.rounds, _say)
                remark = (
                    f"Client and server {server.major}: {inside}. pgkeep's figures include its start, the preflight, SHA-256,"
                    " fsync, the hash read back from the disk and the whole archive read by pg_restore."
                )
                sections.append((f"Dumping with client {server.major}", remark, results))
                if source == CELERP:
                    results = rounds(ansible_cases(server, where), arguments.rounds, _say)
                    sections.append(("From a playbook", "One task each, over a local connection.", results))
                sections += recovery(server, where, command, inside, arguments)
        results = rounds(start_cases(where, command), arguments.rounds * 4, _say)
        sections.append(("Start-up of the command", "From the installed zip, which holds no compiled code.", results))
        _say(f"writing a repository of {arguments.backups} backups")
        results = rounds(large_cases(where, command, arguments.backups), max(1, arguments.rounds // 2), _say)
        remark = f"{arguments.backups:,} backups of 100 databases in one repository."
        sections.append(("A large repository", remark, results))
    settings = f"Sample database of about {arguments.megabytes} MB as plain dump, {arguments.rounds} rounds"
    return page(sections, settings)


if __name__ == "__main__":
    main()
