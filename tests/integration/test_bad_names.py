# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that break careless code: what is dumped is the right database, and nothing happens outside the repository."""

from __future__ import annotations

import os
import pty
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import HOSTILE_NAMES
from tests.keeper import Keeper, assert_untouched, manifests, snapshot
from tests.postgres import Installation, Server, quote_identifier

# What a shell, or a template, would do with these would be seen.
_TRAPS = (
    "$(touch /tmp/pgkeep-trap)",
    ";touch /tmp/pgkeep-trap;",
    "`touch /tmp/pgkeep-trap`",
    "\x1b[31mred\x1b]0;title\x07",
)
# One of each kind; the unit tests of naming and of command lines take them all.
_CHOSEN = (
    "it's", 'say "hello"', " leading", "trailing\\", "new\nline", "-leading", "..", "../../etc/passwd", "a/b", "a_b",
    "@globals", "%n%s", "{{ 7*7 }}", "a=b", "dbname=postgres", "x" * 63, "é" * 31, "🐘🐘", "abc\u202edcba", "A", "a",
)  # fmt: skip
_NAMES = (*_CHOSEN, *_TRAPS)
assert set(_CHOSEN) <= set(HOSTILE_NAMES)


@pytest.fixture(scope="module")
def hostile(lone_debian_server: Server) -> Iterator[Server]:
    """A server of its own, with a database of every hostile name, in each a row with its own name."""
    with Server(Installation(lone_debian_server.major, lone_debian_server.bindir, lone_debian_server.source)) as server:
        for name in _NAMES:
            literal = "'" + name.encode().hex() + "'"
            server.psql(f"CREATE DATABASE {quote_identifier(name)} STRATEGY file_copy")
            server.psql(f"CREATE TABLE whoami AS SELECT {literal}::text AS name", name)
        yield server


@pytest.fixture(scope="module")
def hostile_keeper(program: Path, hostile: Server, tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    """A repository with one backup of each of these databases."""
    home = tmp_path_factory.mktemp("hostile")
    keeper = Keeper(program, hostile, home / "repository")
    outside = set(os.listdir("/")) | set(os.listdir(home))
    done = keeper.backup("--exclude=postgres", "--parallel=2", env={"HOME": str(home)})
    assert (done.code, done.err) == (0, "")
    assert set(os.listdir("/")) | set(os.listdir(home)) == outside | {"repository"}
    assert not Path("/tmp/pgkeep-trap").exists()
    assert_no_control_characters(done.out)
    return keeper


def assert_no_control_characters(text: str) -> None:
    wrong = {item for item in text if unicodedata.category(item) in ("Cc", "Cf", "Cs") and item != "\n"}
    assert wrong == set()


def whoami(archive: Path, server: Server) -> str:
    """Given a zstd-compressed archive, return the name that the database in it gives itself."""
    plain = subprocess.run(["zstd", "-dc", archive], capture_output=True, check=True).stdout
    restored = subprocess.run([server.bindir / "pg_restore", "-f", "-"], input=plain, capture_output=True, check=True)
    line = restored.stdout.decode().partition("COPY public.whoami (name) FROM stdin;\n")[2].partition("\n")[0]
    return bytes.fromhex(line).decode()


def test_every_hostile_name_is_backed_up_under_exactly_that_name(hostile_keeper: Keeper, hostile: Server) -> None:
    assert_untouched(hostile_keeper.repository, {}, new=len(_NAMES))
    found = {directory: document["database"] for directory, document in manifests(hostile_keeper.repository).items()}
    assert sorted(found.values()) == sorted(_NAMES)
    for directory, name in found.items():
        (archive,) = directory.glob("*.dump.zst")
        assert whoami(archive, hostile) == name
    assert {directory.parent.parent for directory in found} == {hostile_keeper.repository / "main"}


def test_lists_and_statistics_of_hostile_names_are_exact_in_json_and_harmless_on_a_terminal(
    hostile_keeper: Keeper,
) -> None:
    assert sorted(item["database"] for item in hostile_keeper.listed()) == sorted(_NAMES)
    stats = hostile_keeper.run("stats", "--json").json["statistics"]
    assert sorted(item["database"] for item in stats["databases"]) == sorted(_NAMES)
    for command in ("list", "stats"):
        shown = hostile_keeper.run(command)
        assert (shown.code, shown.err) == (0, "")
        assert_no_control_characters(shown.out)
    for name in ("../../etc/passwd", "..", "-leading", "new\nline", _TRAPS[3]):
        assert [item["database"] for item in hostile_keeper.listed("--", name)] == [name]


def test_hostile_names_are_pruned_one_by_one(hostile_keeper: Keeper) -> None:
    chosen = ("../../etc/passwd", "a/b", "..", "-leading", "new\nline", _TRAPS[0])
    before = snapshot(hostile_keeper.repository)
    assert hostile_keeper.backup("--", *chosen).code == 0
    planned = hostile_keeper.run("prune", "--keep-last=1", "--dry-run", "--json").json["deleted"]
    pruned = hostile_keeper.run("prune", "--keep-last=1")
    assert (pruned.code, pruned.err) == (0, "")
    assert_no_control_characters(pruned.out)
    gone = {path for path in before if not path.exists()}
    assert {str(path.parent.relative_to(hostile_keeper.repository)) for path in gone} == set(planned)
    assert len(planned) == len(chosen)
    kept = {path: state for path, state in before.items() if path not in gone}
    assert_untouched(hostile_keeper.repository, kept, new=len(chosen))


def test_a_moving_line_on_a_terminal_shows_hostile_names_escaped(hostile_keeper: Keeper) -> None:
    leader, follower = pty.openpty()
    options = [*hostile_keeper.connection, f"--repository={hostile_keeper.repository}", "--reserve=0", "--no-globals"]
    process = subprocess.Popen(
        [hostile_keeper.program, "backup", *options, "--", *_TRAPS[3:], "new\nline"], stdout=follower, stderr=follower
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        seen += data
    os.close(leader)
    assert process.wait() == 0
    text = seen.decode().replace("\r\x1b[K", "").replace("\r\n", "\n")
    assert_no_control_characters(text)
    assert "new\\nline: done" in text


def test_a_failure_of_a_database_with_a_hostile_name_is_told_in_one_line(hostile_keeper: Keeper) -> None:
    name = "no such\npgkeep: error: database\x1b[2J"
    done = hostile_keeper.backup("--", name)
    assert done.code == 1
    assert done.err == "pgkeep: error: no such\\npgkeep: error: database\\x1b[2J: there is no such database\n"
