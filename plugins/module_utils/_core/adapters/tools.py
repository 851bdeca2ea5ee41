# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which client programs this host has, and what they can do: asked of the programs, never assumed."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from ..domain.commands import FIRST_CLIENT_WITH_METHODS
from ..domain.compression import LEVELS
from ..domain.errors import ToolError
from .process import SEARCH_PATH

VERSIONED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")  # Debian's and PGDG's places, all majors side by side
PROGRAMS = ("pg_dump", "pg_dumpall", "pg_restore")

_WRAPPER = "pg_wrapper"  # Debian's: it chooses a version itself, by rules of its own
_PATIENCE = 30  # seconds for a program that only prints something
_ENVIRONMENT = {"PATH": SEARCH_PATH, "HOME": "/", "LC_ALL": "C", "LANGUAGE": "C"}


@dataclass(frozen=True)
class Tools:
    """One set of client programs."""

    major: int
    version: str  # as pg_dump prints it: "15.18 (Debian 15.18-0+deb12u1)"
    pg_dump: str
    pg_dumpall: str
    pg_restore: str

    @property
    def number(self) -> tuple[int, ...]:
        """Return the version as numbers, for comparison."""
        return tuple(int(part) for part in re.findall(r"[0-9]+", self.version.split(" ")[0]))

    @property
    def psql(self) -> str:
        """Return the path of the psql beside them; only server programs are known to have one."""
        return os.path.join(os.path.dirname(self.pg_restore), "psql")


AnyTools = TypeVar("AnyTools", bound=Tools)


def _nearest(usable: Sequence[AnyTools]) -> AnyTools:
    """Given programs of several versions, return the newest ones of the oldest major version."""
    major = min(tools.major for tools in usable)
    return max((tools for tools in usable if tools.major == major), key=lambda tools: tools.number)


def _missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not os.access(path, os.X_OK) or os.path.isdir(path)]


def _version_of(program: str, strict: bool) -> tuple[int, str] | None:
    """Given a program's path, return its major version, and the version as it prints it; None, or ToolError when
    strict, where it does not say.
    """
    _status, said = _ask((program, "--version"))
    match = re.match(rf"{os.path.basename(program)} \(PostgreSQL\) (([0-9]+)\S*( \(.*\))?)", said)
    if not match and strict:
        raise ToolError(f"{program} --version does not say its version: {said.strip()[:200]!r}")
    return (int(match.group(2)), match.group(1)) if match else None


def default_directories(path: str | None = None) -> tuple[str, ...]:
    """Given a PATH (None: our own), return where client programs may be, as patterns, in the order of preference."""
    given = os.environ.get("PATH", "") if path is None else path
    ours = [directory for directory in given.split(":") if os.path.isabs(directory)]
    return tuple(dict.fromkeys((*VERSIONED, *ours, *SEARCH_PATH.split(":"))))


def find(server_version_num: int, bin_dir: str | None = None, search: Sequence[str] | None = None) -> Tools:
    """Given a server's version and perhaps the one directory to look in, return the client programs for it: the
    server's own major version, else the next newer one; raise ToolError where there is none. Never an older one.
    """
    wanted = server_version_num // 10000
    package = f"install the package postgresql-client-{wanted} (Debian, Ubuntu) or postgresql{wanted} (PGDG's RPM)"
    found = _all(bin_dir, search)
    usable = [tools for tools in found if tools.major >= wanted]
    if usable:
        return _nearest(usable)
    if not found:
        raise ToolError(f"pg_dump was not found: {package}, or set bin_dir to where it is")
    last = max(found, key=lambda tools: tools.number)
    raise ToolError(
        f"pg_dump is too old: the server has version {wanted}, and the newest client on this host is {last.version}"
        f" in {os.path.dirname(last.pg_dump)}: {package}, or set bin_dir to where a newer one is"
    )


def newest(bin_dir: str | None = None) -> Tools:
    """Given perhaps the one directory to look in, return the newest client programs; raise ToolError where none is."""
    found = _all(bin_dir, None)
    if not found:
        place = "set bin_dir to where it is"
        raise ToolError(f"pg_restore was not found: install the package postgresql-client, or {place}")
    return max(found, key=lambda tools: tools.number)


def _all(bin_dir: str | None, search: Sequence[str] | None) -> list[Tools]:
    if bin_dir:
        return [tools for tools in [_look(bin_dir, strict=True)] if tools]
    patterns = default_directories() if search is None else search
    directories = dict.fromkeys(directory for pattern in patterns for directory in sorted(glob.glob(pattern)))
    return [tools for tools in (_look(directory, strict=False) for directory in directories) if tools]


def _look(directory: str, strict: bool) -> Tools | None:
    """Given a directory, return the programs in it; None, or ToolError when strict, where one of them is missing."""
    paths = [os.path.join(directory, program) for program in PROGRAMS]
    missing = _missing(paths)
    wrapped = [path for path in paths if os.path.basename(os.path.realpath(path)) == _WRAPPER]
    if missing or wrapped:
        if strict and missing:
            raise ToolError(f"bin_dir is {directory!r}, without {os.path.basename(missing[0])}: correct it or omit it")
        if strict:
            place = VERSIONED[0].replace("*", "VERSION")
            raise ToolError(f"bin_dir is {directory!r}, which has only Debian's pg_wrapper: set it to {place}")
        return None
    version = _version_of(paths[0], strict)
    return Tools(*version, *paths) if version else None


def inside_methods(tools: Tools, methods: Iterable[str] = ("zstd", "gzip", "lz4")) -> frozenset[str]:
    """Given client programs, return which of the methods pg_dump can compress with inside an archive."""
    return frozenset(method for method in methods if _compresses(tools, method))


def _compresses(tools: Tools, method: str) -> bool:
    """Ask by dumping from where no server can be: pg_dump refuses a method that it lacks before it connects."""
    if tools.major < FIRST_CLIENT_WITH_METHODS and method != "gzip":
        return False
    flag = "--compress=1" if tools.major < FIRST_CLIENT_WITH_METHODS else f"--compress={method}:1"
    nowhere = "host='/dev/null/pgkeep' dbname='postgres' user='postgres'"
    status, said = _ask((tools.pg_dump, "--format=custom", flag, "--no-password", f"--dbname={nowhere}"))
    # Clients before 16 built without zlib only warn of it, so the message about the connection alone is no proof.
    return status != 0 and "connect" in said and "compress" not in said


def programs() -> dict[str, str]:
    """Return the compression programs of this host: path by method."""
    found = {method: shutil.which(method, path=SEARCH_PATH) for method in LEVELS}
    return {method: path for method, path in found.items() if path}


def _ask(argv: tuple[str, ...]) -> tuple[int, str]:
    """Given a command that only says something, return its status and all that it says; -1 where it cannot be run."""
    try:
        done = subprocess.run(
            argv,
            env=_ENVIRONMENT,
            cwd="/",  # after root was given up, where we are may be closed to us, and pg_dump would say so
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def usage(program: str, flag: str = "--help") -> str:
    """Given a program's path, and what it is asked with, return what it says of its options."""
    return _ask((program, flag))[1]


# --- server programs, for a throw-away server ---

SERVER_PROGRAMS = ("initdb", "postgres", "psql", *PROGRAMS)
_LIBRARY = re.compile(r" => (/.*) \(0x[0-9a-f]+\)$", re.MULTILINE)


@dataclass(frozen=True)
class ServerTools(Tools):
    """One set of server programs with the client programs beside them; the version is that of postgres."""

    initdb: str
    postgres: str

    @property
    def directory(self) -> str:
        """Return where they are."""
        return os.path.dirname(self.postgres)


def find_server(
    major: int, bin_dir: str | None = None, search: Sequence[str] | None = None, *, newer: bool = False
) -> ServerTools:
    """Given a major version and perhaps the one directory to look in, return its server programs, the newest where
    there are several; with `newer`, where there is none, those of the next newer major. Raise ToolError for none.
    """
    found = _all_servers(bin_dir, search)
    usable = [tools for tools in found if tools.major == major or (newer and tools.major > major)]
    if usable:
        return _nearest(usable)
    place = f"in {bin_dir}" if bin_dir else "on this host"
    there = ", ".join(str(number) for number in sorted({tools.major for tools in found}))
    raise ToolError(
        f"the server programs of PostgreSQL {major} are not {place} ({f'only those of {there}' if there else 'nor any'}):"
        f" install the package postgresql-{major} (Debian, Ubuntu; it also creates and starts a cluster, unless"
        " `create_main_cluster = false` is in /etc/postgresql-common/createcluster.conf before) or"
        f" postgresql{major}-server (PGDG's RPM), or set bin_dir to where they are"
    )


def _all_servers(bin_dir: str | None, search: Sequence[str] | None) -> list[ServerTools]:
    patterns = default_directories() if search is None else search
    places = [glob.escape(bin_dir)] if bin_dir else patterns
    directories = dict.fromkeys(directory for pattern in places for directory in sorted(glob.glob(pattern)))
    return [tools for tools in (_look_for_server(directory, bool(bin_dir)) for directory in directories) if tools]


def _look_for_server(directory: str, strict: bool) -> ServerTools | None:
    """Given a directory, return the programs in it; None, or ToolError when strict, where one of them is missing."""
    real = os.path.realpath(directory)  # a sandbox shows real places alone
    paths = [os.path.join(real, program) for program in SERVER_PROGRAMS]
    missing = _missing(paths)
    if missing:
        if strict:
            raise ToolError(
                f"bin_dir is {directory!r}, without {os.path.basename(missing[0])}: set it to where the programs of a"
                f" server are, such as {VERSIONED[0].replace('*', 'VERSION')}, or omit it"
            )
        return None
    initdb, postgres, _psql, pg_dump, pg_dumpall, pg_restore = paths
    version = _version_of(postgres, strict)
    return ServerTools(*version, pg_dump, pg_dumpall, pg_restore, initdb, postgres) if version else None


@lru_cache(maxsize=8)
def loaded_from(programs: tuple[str, ...]) -> list[str]:
    """Given programs, return the directories of the shared libraries that the loader finds for them."""
    ldd = shutil.which("ldd", path=SEARCH_PATH)
    said = "".join(_ask((ldd, program))[1] for program in programs) if ldd else ""
    return sorted({os.path.realpath(os.path.dirname(path)) for path in _LIBRARY.findall(said)})
