# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.shell import chain, command, piped, quoted
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile import HOSTILE_NAMES

# Any text that a command line can hold, bytes that are no UTF-8 included.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.just("\udcff"), max_size=20)


def read_by_bash(lines: list[str]) -> list[str]:
    """Given the lines of a command that begins with `print`, return the words that bash makes of them."""
    script = "print() { printf '%s\\0' \"$@\"; }\n" + "\n".join(lines)
    done = subprocess.run(
        ["bash", "-c", script.encode("utf-8", "surrogateescape")],
        capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return [word.decode("utf-8", "surrogateescape") for word in done.stdout.split(b"\0")[:-1]]


def test_bash_reads_every_word_as_it_was() -> None:
    given_words = [
        *HOSTILE_NAMES,
        *(f"--dbname={name}" for name in HOSTILE_NAMES),
        'it\'s "$HOME"',
        "it's!",
        "",
        "\x01'a",
    ]
    assert read_by_bash(command("print", *given_words)) == given_words


@settings(max_examples=50, deadline=None)
@given(st.lists(words, min_size=1, max_size=8))
def test_bash_reads_any_words_as_they_were(some: list[str]) -> None:
    assert read_by_bash(command("print", *some)) == some


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("shop", "shop"),
        ("two words", "'two words'"),
        ("it's", '"it\'s"'),
        ("it's $1", "$'it\\'s $1'"),
        ("it's!", "$'it\\'s\\x21'"),
        ("new\nline", "$'new\\nline'"),
        ("abc\u202edcba", "$'abc\\xe2\\x80\\xaedcba'"),
        ("cafe\u0301", "$'cafe\\xcc\\x81'"),
        ("caf\u00e9", "'caf\u00e9'"),
        ("\udcff", "$'\\xff'"),
    ],
)
def test_a_word_reads_well_and_looks_like_no_other(word: str, written: str) -> None:
    assert quoted(word) == written


def test_a_long_command_is_broken_between_words_and_never_after_a_short_name() -> None:
    assert command("echo", "x" * 120) == ["echo " + "x" * 120]
    assert command("print", "a" * 50, "b" * 60, "c") == ["print " + "a" * 50 + " \\", "    " + "b" * 60 + " c"]


def test_commands_are_joined_so_that_a_failure_ends_them() -> None:
    assert piped(["a \\", "    b"], ["c"]) == ["a \\", "    b |", "    c"]
    assert chain(["a"], [], ["b \\", "    c"], ["d"]) == ["a &&", "b \\", "    c &&", "d"]
    assert chain(["a"], []) == ["a"]
    assert chain() == []
