# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.sandbox import (
    SYSTEM,
    bwrap_command,
    protections,
)
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = {"--ro-bind": 2, "--ro-bind-try": 2, "--bind": 2, "--tmpfs": 1, "--remount-ro": 1, "--dev": 1, "--proc": 1}
VALUES = {"--cap-drop", "--uid", "--gid", "--chdir"}
FLAGS = {"--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"}


def mounts(argv: tuple[str, ...]) -> list[tuple[str, str]]:
    """Given a command line, return what is mounted where, in order; fail for an option that is not known here."""
    found, words = [], list(argv[1:])
    while (word := words.pop(0)) != "--":
        if word in OPTIONS:
            arguments = [words.pop(0) for _unused in range(OPTIONS[word])]
            found.append((word, arguments[-1]))
        elif word in VALUES:
            words.pop(0)
        else:
            assert word in FLAGS
    assert words == []
    return found


def seen(argv: tuple[str, ...], path: str) -> str:
    """Given a command line, return what a program sees at a path: the mount that decides, by its option."""
    deciding = "nothing"
    for option, place in mounts(argv):
        if option != "--remount-ro" and (path == place or path.startswith(f"{place}/")):
            deciding = option
    return deciding


def command(
    hidden: tuple[str, ...] = (), readable: tuple[str, ...] = (), writable: tuple[str, ...] = ()
) -> tuple[str, ...]:
    return bwrap_command("/usr/bin/bwrap", hidden, readable, writable, None, None)


def test_a_program_has_no_network_no_capabilities_and_ends_with_us() -> None:
    argv = command()
    assert argv[0] == "/usr/bin/bwrap"
    assert argv[-1] == "--"
    assert {"--unshare-all", "--die-with-parent", "--new-session"} <= set(argv)
    assert "--share-net" not in argv
    assert argv[argv.index("--cap-drop") + 1] == "ALL"


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/pgkeep", "/var/lib/postgresql", "/srv", "/backups/main", "/mnt"])
def test_what_is_not_named_is_not_there(path: str) -> None:
    assert seen(command(), path) == "nothing"


@pytest.mark.parametrize("path", ["/home/me/.pgpass", "/root", "/run/postgresql/.s.PGSQL.5432", "/tmp/x", "/var/tmp/x"])
def test_what_every_user_has_is_empty(path: str) -> None:
    assert seen(command(), path) == "--tmpfs"


def test_the_system_can_be_read_alone() -> None:
    assert all(seen(command(), path) == "--ro-bind-try" for path in SYSTEM)
    assert command()[-7:-1] == ("--remount-ro", "/proc", "--remount-ro", "/", "--chdir", "/")


def test_of_directories_inside_each_other_the_innermost_decides() -> None:
    argv = command(
        hidden=("/backups", "/usr/local/etc", "/backups/main/shop/secret"),
        readable=("/backups/main/shop", "/opt/pg/bin"),
        writable=("/var/tmp/drill/server", "/backups/main/shop/secret/work"),
    )
    expected = {
        "/backups/main/crm": "--tmpfs",
        "/backups/main/shop/shop.dump": "--ro-bind",
        "/backups/main/shop/secret/x": "--tmpfs",
        "/backups/main/shop/secret/work/x": "--bind",
        "/usr/local/etc/x": "--tmpfs",
        "/usr/local/bin/x": "--ro-bind-try",
        "/var/tmp/drill/server/data": "--bind",
        "/var/tmp/other": "--tmpfs",
    }
    assert {path: seen(argv, path) for path in expected} == expected


def test_what_is_hidden_cannot_be_filled_either() -> None:
    argv = command(hidden=("/backups", "/srv"), readable=("/srv",), writable=("/backups/work",))
    assert ("--remount-ro", "/backups") in mounts(argv)
    assert mounts(argv)[-1] == ("--remount-ro", "/")
    assert ("--remount-ro", "/srv") not in mounts(argv), "what is shown at the same place is no memory of ours"


def test_at_one_place_the_one_that_shows_more_wins() -> None:
    for hidden, readable, writable, expected in (
        (("/a",), ("/a",), (), "--ro-bind"),
        (("/a",), ("/a",), ("/a",), "--bind"),
        ((), ("/a", "/a"), ("/a",), "--bind"),
    ):
        assert seen(command(hidden, readable, writable), "/a/x") == expected


def test_as_root_the_programs_believe_to_be_somebody_else() -> None:
    argv = bwrap_command("bwrap", (), (), (), 1000, 1001, "/drill/passwd")
    assert argv[argv.index("--uid") + 1] == "1000"
    assert argv[argv.index("--gid") + 1] == "1001"
    assert "--unshare-user" in argv, "without it a failure to make the namespace would be passed over"
    assert seen(argv, "/etc/passwd") == "--ro-bind"
    assert seen(command(), "/etc/passwd") == "nothing"


paths = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
some = st.lists(paths, max_size=4).map(tuple)


@given(some, some, some, paths)
def test_the_innermost_decides_whatever_is_inside_what(
    hidden: tuple[str, ...], readable: tuple[str, ...], writable: tuple[str, ...], path: str
) -> None:
    places = [(item, kind) for kind, items in enumerate((hidden, readable, writable)) for item in items]
    around = [(len(item), kind) for item, kind in places if path == item or path.startswith(f"{item}/")]
    expected = ("--tmpfs", "--ro-bind", "--bind")[max(around)[1]] if around else "nothing"
    assert seen(command(hidden, readable, writable), path) == expected


@pytest.mark.parametrize("sandboxed", [True, False])
def test_what_a_drill_protects_against_is_said_in_whole_sentences(sandboxed: bool) -> None:
    said = protections(sandboxed)
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in said)
    assert len(set(said)) == len(said)


def test_without_the_sandbox_nothing_is_promised_that_only_it_gives() -> None:
    common = set(protections(True)) & set(protections(False))
    assert not [sentence for sentence in common if "network" in sentence or "change" in sentence]
    (warning,) = set(protections(False)) - common
    assert "with all rights of the user that runs the drill" in warning
