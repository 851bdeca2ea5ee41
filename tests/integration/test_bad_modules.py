# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input through the modules: the same message as of the command, in `msg`, and never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.samples import locked_table
from tests.keeper import Keeper, assert_untouched, finish, manifests, snapshot
from tests.playbook import results, run_tasks
from tests.postgres import Server, quote_identifier

NAMES = ("../../etc/passwd", "new\nline", "$(touch /tmp/pgkeep-trap)", "{{ 7 * 7 }}", "{% raw %}", "-x", "a=b", "é'\"")


def unsafe(value: Any) -> Any:
    """Given a value, return it as the JSON of a playbook in which nothing is a template."""
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    return [unsafe(item) for item in value] if isinstance(value, list) else value


def play(directory: Path, *tasks: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Given modules with options, run one after the other and return their results."""
    written = [
        {f"pgkeep.backup.{name}": {key: unsafe(value) for key, value in options.items()}} for name, options in tasks
    ]
    done = run_tasks(directory, written, "-v")
    assert "Traceback" not in done.stdout + done.stderr
    return results(done, len(tasks))


def options(keeper: Keeper, **more: Any) -> dict[str, Any]:
    server = keeper.server
    place = {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "bin_dir": str(server.bindir)}
    return {**place, "repository": str(keeper.repository), "reserve": "0", "globals": False, **more}


def test_names_that_look_like_templates_and_worse_are_only_names(keeper: Keeper, tmp_path: Path) -> None:
    for name in NAMES:
        keeper.server.psql(f"CREATE DATABASE {quote_identifier(name)} STRATEGY file_copy")
    try:
        place = {"repository": str(keeper.repository)}
        taken, listed, pruned = play(
            tmp_path,
            ("pg_backup", options(keeper, databases=list(NAMES))),
            ("pg_backup_info", {**place, "databases": list(NAMES)}),
            ("pg_backup_prune", {**place, "databases": list(NAMES), "keep_last": 1}),
        )
        assert sorted(item["database"] for item in taken["backups"]) == sorted(NAMES)
        assert sorted(item["database"] for item in listed["backups"]) == sorted(NAMES)
        assert sorted(item["database"] for item in pruned["plan"]) == sorted(NAMES)
        assert sorted(document["database"] for document in manifests(keeper.repository).values()) == sorted(NAMES)
        assert not Path("/tmp/pgkeep-trap").exists()
        assert_untouched(keeper.repository, {}, new=len(NAMES), server=keeper.server)
    finally:
        for name in NAMES:
            keeper.server.psql(f"DROP DATABASE {quote_identifier(name)} WITH (FORCE)")


def test_every_failure_is_told_in_msg(
    keeper: Keeper, lone_debian_server: Server, tmp_path: Path, fresh_database: Any
) -> None:
    name = fresh_database(keeper.server)
    keeper.server.psql("CREATE TABLE t AS SELECT 1 AS a", name)
    assert [keeper.backup(name).code for _unused in range(2)] == [0, 0]
    damaged = min(manifests(keeper.repository))
    (archive,) = damaged.glob("*.dump")
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    before = snapshot(keeper.repository)
    (tmp_path / "link").symlink_to(keeper.repository)
    place = {"repository": str(keeper.repository)}
    with locked_table(keeper.server, name, "t") as wait:
        running = keeper.start("backup", "--no-globals", name)
        wait()
        results = play(
            tmp_path,
            ("pg_backup", options(keeper, databases=[name])),
            ("pg_backup_prune", {**place, "keep_last": 1, "databases": [name]}),
            ("pg_backup_info", {**place, "checksum": True}),
            ("pg_backup_prune", place),
            ("pg_backup", options(keeper, repository=str(tmp_path / "link"))),
            ("pg_backup", options(keeper, login_port=1)),
            ("pg_backup", options(keeper, bin_dir=str(lone_debian_server.bindir))),
            ("pg_backup", options(keeper, databases=["nosuch", "postgres"])),
            ("pg_backup", options(keeper, include=["("])),
            ("pg_backup", options(keeper, login_password="new\nline")),
        )
    assert finish(running).code == 0
    expected = (
        f"process {running.pid} on ",
        f"process {running.pid} on ",
        f"main/{name}/{damaged.name} is damaged: {archive.name} was altered",
        "the retention policy has no rule",
        "is a symbolic link: set `repository` to what it points to",
        "is the server running?",
        "pg_dump is too old",
        "nosuch: there is no such database",
        "which is not a regular expression",
        "login_password contains",
    )
    assert [part for part, result in zip(expected, results) if part not in result["msg"]] == []
    assert all(result["failed"] for result in results)
    assert [item["database"] for item in results[7]["backups"]] == ["postgres"]  # what can be done is done, and told
    assert before.items() <= snapshot(keeper.repository).items()
