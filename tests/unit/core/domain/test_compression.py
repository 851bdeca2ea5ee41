# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import compression
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.compression import (
    Compression,
    ResolvedCompression,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError, ToolError

ALL = frozenset({"gzip", "lz4", "zstd"})
PROGRAMS = {"gzip": "/bin/gzip", "lz4": "/bin/lz4", "zstd": "/bin/zstd"}


@pytest.mark.parametrize(
    ("text", "method", "level"),
    [
        ("zstd:3", "zstd", 3),
        ("zstd", "zstd", 1),
        ("gzip", "gzip", 6),
        ("lz4", "lz4", 1),
        ("lz4:12", "lz4", 12),
        ("none", "none", 0),
    ],
)
def test_a_method_without_level_gets_its_default(text: str, method: str, level: int) -> None:
    assert compression.parse(text) == Compression(method, level)


@pytest.mark.parametrize("text", ["zstd:3", "gzip:9", "lz4:1", "none"])
def test_a_compression_reads_as_it_was_written(text: str) -> None:
    assert str(compression.parse(text)) == text


@pytest.mark.parametrize("text", ["zstd:20", "zstd:22", "zstd:0", "gzip:10", "gzip:0", "lz4:13"])
def test_a_level_that_the_method_does_not_have_is_refused_with_its_limits(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"has the levels 1 to \d+"):
        compression.parse(text)


@pytest.mark.parametrize(
    "text", ["", "zstd:", "bzip2", "zstd:x", "zstd:-1", "none:1", "zstd:3:4", "auto", "ZSTD", "zstd:³"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigurationError, match="method:level with one of gzip, lz4, zstd"):
        compression.parse(text)


@pytest.mark.parametrize("archive_format", ["custom", "directory"])
def test_an_archive_is_compressed_inside_where_the_client_can(archive_format: str) -> None:
    assert compression.resolve("zstd:3", archive_format, ALL, PROGRAMS) == ResolvedCompression("zstd", 3, None)


@pytest.mark.parametrize("archive_format", ["plain", "tar"])
def test_text_and_tar_are_always_compressed_by_a_program(archive_format: str) -> None:
    resolved = compression.resolve("gzip:9", archive_format, ALL, PROGRAMS)
    assert resolved == ResolvedCompression("gzip", 9, "/bin/gzip")
    assert str(resolved.inside) == "none"


def test_custom_goes_through_a_program_where_the_client_cannot() -> None:
    resolved = compression.resolve("zstd:3", "custom", frozenset({"gzip"}), PROGRAMS)
    assert (str(resolved), str(resolved.inside), resolved.program) == ("zstd:3", "none", "/bin/zstd")


def test_a_directory_never_goes_through_a_program_and_the_error_names_the_client_that_can() -> None:
    with pytest.raises(ToolError, match="client of version 16 or newer that is built with zstd"):
        compression.resolve("zstd:3", "directory", frozenset({"gzip"}), PROGRAMS)
    with pytest.raises(ToolError, match="install a client built with gzip"):
        compression.resolve("gzip", "directory", frozenset(), PROGRAMS)


@pytest.mark.parametrize("archive_format", ["custom", "plain", "tar"])
@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd"])
def test_a_method_asked_for_by_name_is_never_replaced(archive_format: str, method: str) -> None:
    others = {name: path for name, path in PROGRAMS.items() if name != method}
    with pytest.raises(ToolError, match=f"install the package {method}"):
        compression.resolve(method, archive_format, ALL - {method}, others)


@pytest.mark.parametrize(
    ("archive_format", "inside", "programs", "expected"),
    [
        ("custom", ALL, PROGRAMS, ("zstd:1", None)),
        ("custom", frozenset({"gzip"}), PROGRAMS, ("zstd:1", "/bin/zstd")),
        ("custom", frozenset({"gzip"}), {"gzip": "/bin/gzip"}, ("gzip:6", None)),
        ("custom", frozenset(), {"gzip": "/bin/gzip"}, ("gzip:6", "/bin/gzip")),
        ("directory", ALL, {}, ("zstd:1", None)),
        ("directory", frozenset({"gzip"}), PROGRAMS, ("gzip:6", None)),
        ("plain", ALL, PROGRAMS, ("zstd:1", "/bin/zstd")),
        ("tar", ALL, {"gzip": "/bin/gzip"}, ("gzip:6", "/bin/gzip")),
    ],
)
def test_auto_is_zstd_inside_then_zstd_outside_then_gzip(
    archive_format: str, inside: frozenset[str], programs: dict[str, str], expected: tuple[str, str | None]
) -> None:
    resolved = compression.resolve("auto", archive_format, inside, programs)
    assert (str(resolved), resolved.program) == expected


@pytest.mark.parametrize(
    ("archive_format", "inside"), [("custom", frozenset()), ("plain", ALL), ("directory", frozenset({"lz4"}))]
)
def test_auto_fails_where_nothing_is_left_instead_of_writing_uncompressed(
    archive_format: str, inside: frozenset[str]
) -> None:
    with pytest.raises(ToolError, match="ask for compression none"):
        compression.resolve("auto", archive_format, inside, {})


@pytest.mark.parametrize("archive_format", ["custom", "directory", "plain", "tar"])
def test_none_needs_nothing(archive_format: str) -> None:
    assert compression.resolve("none", archive_format, frozenset(), {}) == ResolvedCompression("none", 0, None)
