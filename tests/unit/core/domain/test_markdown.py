# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import html

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.markdown import block, literal, literals, table
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.text import printable
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import HOSTILE_NAMES


def shown(text: str) -> str:
    """Given what `literal` returned, return what a reader sees."""
    return text[1:-1] if text.startswith("`") else html.unescape(text)


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "<script>alert(1)</script>", "a|b`c", "``", "&amp;", "[a](b)", "`a"])
def test_a_name_is_shown_as_it_is_and_means_nothing(name: str) -> None:
    text = literal(name)
    assert shown(text) == printable(name)
    inside = text[1:-1] if text.startswith("`") else text
    assert not {"`", "|", "<", ">", "\n"}.intersection(inside)


@given(st.text())
def test_any_text_stays_in_its_cell(text: str) -> None:
    (row,) = table(("a", "b"), [(literal(text), "x")])[2:]
    assert row.count("|") == 3
    assert row.isprintable()


def test_an_ordinary_name_is_code() -> None:
    assert literal("my_shop-2") == "`my_shop-2`"
    assert literal("it's") == "`it's`"
    assert literal("") == "(empty)"
    assert literals(["a", "b"]) == "`a`, `b`"


def test_nothing_in_a_block_ends_it() -> None:
    assert block(["a"]) == ["```bash", "a", "```", ""]
    assert block(["echo '", "```", "'"], "text") == ["````text", "echo '", "```", "'", "````", ""]
