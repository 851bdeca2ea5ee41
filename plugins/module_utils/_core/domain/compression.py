# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""Compression: from what a user asks for to what this host does, and who does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import ConfigurationError, ToolError

LEVELS = {"gzip": (1, 9), "lz4": (1, 12), "zstd": (1, 19)}
# zstd:1 writes as fast as pg_dump reads and still ends up smaller than gzip:9.
DEFAULT_LEVELS = {"gzip": 6, "lz4": 1, "zstd": 1}

_INSIDE_FORMATS = ("custom", "directory")  # pg_dump compresses no tar; plain is left to programs with an end marker
_AUTOMATIC = ("zstd", "gzip")


@dataclass(frozen=True)
class Compression:
    """A method (gzip, lz4, zstd or none) and its level (0 for none)."""

    method: str
    level: int

    def __str__(self) -> str:
        """Return it as users write it: "zstd:3" or "none"."""
        return self.method if self.method == "none" else f"{self.method}:{self.level}"


@dataclass(frozen=True)
class ResolvedCompression(Compression):
    """A compression and the program that does it; None where pg_dump does it inside the archive (or nobody does)."""

    program: str | None = None

    @property
    def inside(self) -> Compression:
        """Return what pg_dump itself has to do."""
        return NONE if self.program else Compression(self.method, self.level)


NONE = Compression("none", 0)


def parse(text: str) -> Compression:
    """Given "zstd:3", "gzip" or "none", return it with its level; raise ConfigurationError for anything else."""
    method, colon, level = text.partition(":")
    if text == "none":
        return NONE
    if method not in LEVELS or (colon and not (level.isascii() and level.isdigit())):
        raise ConfigurationError(
            f"compression is {text!r}: write method:level with one of {', '.join(LEVELS)}, or none, or auto"
        )
    lowest, highest = LEVELS[method]
    chosen = int(level) if colon else DEFAULT_LEVELS[method]
    if not lowest <= chosen <= highest:
        raise ConfigurationError(f"compression is {text!r}: {method} has the levels {lowest} to {highest}")
    return Compression(method, chosen)


def resolve(
    requested: str, archive_format: str, inside: frozenset[str], programs: Mapping[str, str]
) -> ResolvedCompression:
    """Given what is asked for, the methods that the client can do inside an archive and the programs of this host by
    method, return who does what; raise ToolError where nobody can. What was asked for by name is never replaced.
    """
    can_inside = inside if archive_format in _INSIDE_FORMATS else frozenset()
    # A directory is written by pg_dump, file by file: no program can be put behind it.
    can_outside = {} if archive_format == "directory" else programs
    if requested == "auto":
        return _automatic(archive_format, can_inside, can_outside)
    wanted = parse(requested)
    if wanted.method == "none" or wanted.method in can_inside:
        return ResolvedCompression(wanted.method, wanted.level)
    if wanted.method in can_outside:
        return ResolvedCompression(wanted.method, wanted.level, can_outside[wanted.method])
    raise ToolError(_missing(wanted.method, archive_format))


def _automatic(archive_format: str, inside: frozenset[str], programs: Mapping[str, str]) -> ResolvedCompression:
    for method in _AUTOMATIC:
        if method in inside or method in programs:
            return ResolvedCompression(method, DEFAULT_LEVELS[method], None if method in inside else programs[method])
    if archive_format == "directory":
        raise ToolError(
            "this pg_dump compresses a directory with neither zstd nor gzip: install a client that can, or ask for"
            " compression none"
        )
    raise ToolError("neither zstd nor gzip is installed: install the package zstd, or ask for compression none")


def _missing(method: str, archive_format: str) -> str:
    if archive_format != "directory":
        return f"compression {method} is not available on this host: install the package {method}"
    client = "a client" if method == "gzip" else "a client of version 16 or newer that is"
    return (
        f"this pg_dump cannot compress a directory with {method}, and no program can do it from outside: install"
        f" {client} built with {method}, or ask for another compression or format"
    )
