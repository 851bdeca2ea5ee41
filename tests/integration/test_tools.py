# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import tools
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import commands
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.compression import ResolvedCompression
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ToolError

from tests.postgres import CELERP, DEBIAN, EMBEDDED, Installation, find_installation, find_installations


def installation(source: str) -> Installation:
    found = find_installation(source)
    if found is None:
        pytest.skip(f"no PostgreSQL from {source} is installed")
    return found


def everywhere() -> list[str]:
    return [str(each.bindir) for each in find_installations()]


def pretend(directory: Path, version: str, programs: tuple[str, ...] = tools.PROGRAMS) -> str:
    """Given a directory and a version, put programs there that say they have it; return the directory."""
    directory.mkdir(parents=True)
    for program in programs:
        path = directory / program
        path.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")
        path.chmod(0o755)
    return str(directory)


@pytest.mark.parametrize(("server", "source"), [(150004, DEBIAN), (170002, CELERP), (180001, EMBEDDED)])
def test_the_servers_own_major_is_chosen(server: int, source: str) -> None:
    wanted = installation(source)
    found = tools.find(server, search=everywhere())
    assert found.major == wanted.major == server // 10000
    assert found.pg_dump == str(wanted.bindir / "pg_dump")
    assert found.version.startswith(f"{wanted.major}.")


def test_without_the_servers_own_major_the_next_newer_one_is_chosen() -> None:
    installation(CELERP)
    assert tools.find(160000, search=everywhere()).major == 17
    assert tools.find(100000, search=everywhere()).major == min(each.major for each in find_installations())


def test_an_older_client_is_never_chosen_and_the_error_says_what_helps() -> None:
    where = installation(EMBEDDED).bindir
    with pytest.raises(ToolError) as caught:
        tools.find(190001, search=everywhere())
    said = str(caught.value)
    assert "the server has version 19" in said
    assert str(where) in said
    assert "postgresql-client-19" in said
    assert "bin_dir" in said


def test_no_client_at_all_names_the_package_and_the_option(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"pg_dump was not found: install the package postgresql-client-15 .*bin_dir"):
        tools.find(150000, search=[str(tmp_path / "*" / "bin")])


def test_debians_wrapper_is_passed_over() -> None:
    if not os.path.realpath("/usr/bin/pg_dump").endswith("pg_wrapper"):
        pytest.skip("/usr/bin/pg_dump is not Debian's wrapper")
    assert tools.find(150000).pg_dump == "/usr/lib/postgresql/15/bin/pg_dump"
    with pytest.raises(ToolError, match=r"only Debian's pg_wrapper: set it to /usr/lib/postgresql/VERSION/bin"):
        tools.find(150000, "/usr/bin")


def test_bin_dir_is_the_only_place_looked_at(tmp_path: Path) -> None:
    where = installation(EMBEDDED).bindir
    assert tools.find(150000, str(where)).major == 18
    with pytest.raises(ToolError, match="without pg_dump: correct it or omit it"):
        tools.find(150000, str(tmp_path))


def test_bin_dir_has_to_have_all_programs(tmp_path: Path) -> None:
    place = pretend(tmp_path / "bin", "18.1", ("pg_dump", "pg_restore"))
    with pytest.raises(ToolError, match="without pg_dumpall"):
        tools.find(150000, place)


def test_bin_dir_with_something_else_named_pg_dump_is_an_error(tmp_path: Path) -> None:
    place = pretend(tmp_path / "bin", "eighteen")
    with pytest.raises(ToolError, match="does not say its version"):
        tools.find(150000, place)
    with pytest.raises(ToolError, match="was not found"):
        tools.find(150000, search=[place])


def test_of_two_clients_of_one_major_the_newer_is_chosen(tmp_path: Path) -> None:
    old, new = pretend(tmp_path / "a", "15.9 (Debian 15.9-1)"), pretend(tmp_path / "b", "15.18")
    found = tools.find(150000, search=[old, new])
    assert (found.version, found.pg_dump) == ("15.18", f"{new}/pg_dump")
    assert tools.find(150000, search=[old]).version == "15.9 (Debian 15.9-1)"


def test_a_path_is_searched_after_the_versioned_places_and_never_relatively() -> None:
    found = tools.default_directories("/opt/pg/bin::.:bin:/usr/bin")
    assert found[:3] == (*tools.VERSIONED, "/opt/pg/bin")
    assert all(directory.startswith("/") for directory in found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("source", "methods"),
    [(DEBIAN, {"gzip"}), (EMBEDDED, {"gzip"}), (CELERP, {"gzip", "lz4", "zstd"})],
)
def test_what_a_client_compresses_with_is_asked_of_the_client(source: str, methods: set[str]) -> None:
    client = tools.find(0, str(installation(source).bindir))
    if source == DEBIAN and client.major >= commands.FIRST_CLIENT_WITH_METHODS:
        pytest.skip("this Debian's client is new enough for more")
    assert tools.inside_methods(client) == methods
    assert tools.inside_methods(client, ["zstd"]) == methods & {"zstd"}


def test_a_client_that_cannot_even_be_asked_can_do_nothing(tmp_path: Path) -> None:
    client = tools.find(180000, pretend(tmp_path / "bin", "18.1"))
    assert tools.inside_methods(client) == frozenset()


@pytest.mark.needs_programs("gzip", "lz4", "zstd")
@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd"])
def test_the_programs_of_this_host_compress_and_decompress(method: str) -> None:
    program = tools.programs()[method]
    data = os.urandom(1000) + bytes(100_000)
    packed = subprocess.run(
        commands.compressor(ResolvedCompression(method, 9, program)), input=data, capture_output=True, check=True
    )
    assert len(packed.stdout) < 5000
    assert packed.stderr == b""
    again = subprocess.run(commands.decompressor(method, program), input=packed.stdout, capture_output=True, check=True)
    assert again.stdout == data
    # All three end with a checksum of their own.
    flipped = packed.stdout[:-2] + bytes([packed.stdout[-2] ^ 1]) + packed.stdout[-1:]
    for damaged in (packed.stdout[:-3], flipped):
        argv = commands.decompressor(method, program)
        assert subprocess.run(argv, input=damaged, capture_output=True, check=False).returncode != 0


# --- server programs, for a throw-away server ---

SERVERS = [(DEBIAN, 15), (CELERP, 17), (EMBEDDED, 18)]


@pytest.mark.parametrize(("source", "major"), SERVERS)
def test_the_server_programs_of_a_major_version_are_found(source: str, major: int) -> None:
    wanted = installation(source)
    found = tools.find_server(major, search=everywhere())
    assert (found.major, found.directory) == (major, os.path.realpath(wanted.bindir))
    assert found == tools.find_server(major, str(wanted.bindir))
    for program in ("initdb", "postgres", "psql", "pg_dump", "pg_dumpall", "pg_restore"):
        assert getattr(found, program) == f"{found.directory}/{program}"


def test_a_newer_server_will_do_only_where_that_is_said(tmp_path: Path) -> None:
    search = [pretend(tmp_path / name, name, tools.SERVER_PROGRAMS) for name in ("14.2", "16.9", "16.10", "17.1")]
    assert tools.find_server(14, search=search, newer=True).version == "14.2"
    assert tools.find_server(15, search=search, newer=True).version == "16.10"
    for wanted in (13, 15, 18):
        with pytest.raises(ToolError) as caught:
            tools.find_server(wanted, search=search)
        assert f"PostgreSQL {wanted} are not on this host (only those of 14, 16, 17)" in str(caught.value)
        assert f"install the package postgresql-{wanted} " in str(caught.value)
    with pytest.raises(ToolError, match="are not on this host"):
        tools.find_server(18, search=search, newer=True)


def test_without_any_server_or_with_half_a_one_it_is_said_so(tmp_path: Path) -> None:
    half = pretend(tmp_path / "half", "17.1", tools.SERVER_PROGRAMS[1:])
    with pytest.raises(ToolError, match=r"PostgreSQL 17 are not on this host \(nor any\)"):
        tools.find_server(17, search=[half, str(tmp_path / "nothing*")])
    with pytest.raises(ToolError, match="half', without initdb: set it to where the programs of a server are"):
        tools.find_server(17, half)
    strange = pretend(tmp_path / "strange", "none", tools.SERVER_PROGRAMS)
    with pytest.raises(ToolError, match="postgres --version does not say its version"):
        tools.find_server(17, strange)
    with pytest.raises(ToolError, match=r"PostgreSQL 16 are not in .*17 \(only those of 17\)"):
        tools.find_server(16, pretend(tmp_path / "17", "17.1", tools.SERVER_PROGRAMS))


def test_a_directory_behind_a_link_is_named_as_it_really_is(tmp_path: Path) -> None:
    real = pretend(tmp_path / "real", "17.1", tools.SERVER_PROGRAMS)
    (tmp_path / "link").symlink_to(real)
    assert tools.find_server(17, str(tmp_path / "link")).directory == real


@pytest.mark.parametrize(("source", "major"), SERVERS)
def test_the_libraries_of_programs_are_found_where_the_loader_finds_them(source: str, major: int) -> None:
    programs = tools.find_server(major, str(installation(source).bindir))
    directories = tools.loaded_from((programs.psql, programs.postgres))
    names = [name for directory in directories for name in os.listdir(directory)]
    assert [name for name in names if name.startswith("libpq")]
    assert tools.loaded_from(("/nothing",)) == []


def test_the_newest_client_is_the_newest_of_all(tmp_path: Path) -> None:
    assert tools.newest().number == max(each.number for each in tools._all(None, None))
    assert tools.newest(pretend(tmp_path / "old", "9.6.24")).version == "9.6.24"
    with pytest.raises(ToolError, match="correct it or omit it"):
        tools.newest(str(tmp_path))
