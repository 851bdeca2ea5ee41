# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What a dump made by any tool says about itself: in its first bytes, in its header, in `pg_restore --list`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"))
_LISTED = {
    "database": re.compile(r"^;\s+dbname: (.*)$", re.MULTILINE),
    "server_version": re.compile(r"^;\s+Dumped from database version: (\S+)", re.MULTILINE),
    "tool_version": re.compile(r"^;\s+Dumped by pg_dump version: (\S+)", re.MULTILINE),
    "compression": re.compile(r"^;\s+Compression: (\S+)", re.MULTILINE),
}
_WRITTEN = {
    "server_version": re.compile(r"^-- Dumped from database version (\S+)", re.MULTILINE),
    "tool_version": re.compile(r"^-- Dumped by pg_dump(?:all)? version (\S+)", re.MULTILINE),
}
_END_OF_DATABASE = b"-- PostgreSQL database dump complete"
_END_OF_GLOBALS = b"-- PostgreSQL database cluster dump complete"
_END_OF_TAR = bytes(1024)  # two empty blocks
_DATABASE_DUMP, _CLUSTER_DUMP = "-- PostgreSQL database dump", "-- PostgreSQL database cluster dump"


@dataclass(frozen=True)
class Header:
    """What is known; None where the dump does not say."""

    database: str | None = None
    server_version: str | None = None
    tool_version: str | None = None
    compression: str | None = None


def packing(head: bytes) -> str:
    """Given the first bytes of a file, return the method that it is compressed with; "none" when it is not."""
    return next((method for magic, method in _MAGIC if head.startswith(magic)), "none")


def form(head: bytes) -> str:
    """Given the first (uncompressed) bytes of a dump, return custom, tar, plain, globals, or "" when it is no dump."""
    if head.startswith(b"PGDMP"):
        return "custom"
    if head[257:262] == b"ustar" and head.startswith(b"toc.dat"):
        return "tar"
    text = head.decode("utf-8", "replace")
    if _CLUSTER_DUMP in text:
        return "globals"
    return "plain" if _DATABASE_DUMP in text else ""


def has_end(form_name: str, tail: bytes) -> bool:
    """Given a dump's form and its last bytes, return whether its end is there.

    Of a custom archive the last bytes say nothing, but pg_restore does; with a tar it is the other way round.
    """
    if form_name == "tar":
        return tail.endswith(_END_OF_TAR)
    return {"plain": _END_OF_DATABASE, "globals": _END_OF_GLOBALS}.get(form_name, b"") in tail


def client_lacks(said: str) -> bool:
    """Given why pg_restore did not read an archive, return whether that is its own fault: it is too old, or was built
    without the compression. It then says nothing about the archive.
    """
    return any(text in said for text in ("unsupported version", "not built with", "compression is not supported"))


def begins_database(line: bytes) -> bool:
    """Given a line of what pg_dumpall wrote, return whether a whole database begins there."""
    return line.rstrip() == _DATABASE_DUMP.encode()


def _find(patterns: dict[str, re.Pattern[str]], text: str) -> dict[str, str]:
    found = {key: pattern.search(text) for key, pattern in patterns.items()}
    return {key: match.group(1) for key, match in found.items() if match}


def listed_header(listing: str) -> Header:
    """Given what `pg_restore --list` prints, return the header."""
    found = _find(_LISTED, listing)
    if "compression" in found:
        level = found["compression"]  # up to version 15; later ones name the method
        found["compression"] = "none" if level == "0" else "gzip" if level.lstrip("-").isdigit() else level
    return Header(**found)


def written_header(head: bytes) -> Header:
    """Given the first bytes of a plain dump, return the header."""
    return Header(**_find(_WRITTEN, head.decode("utf-8", "replace")))
