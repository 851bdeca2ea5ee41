# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests with real servers share: every kind of server in turn, and roles that go away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.samples import Engine, make_sample
from tests.keeper import Keeper, build
from tests.postgres import Server, quote_identifier

SERVERS = ("debian_server", "zstd_server", "embedded_server")


@pytest.fixture(params=["debian_server", "embedded_server", "zstd_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """Every kind of server, one after the other."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


@pytest.fixture
def fresh_role() -> Iterator[Callable[..., str]]:
    """Return a function: given a server and what follows CREATE ROLE, create a role and return its name.

    Ask for it before fresh_database: the databases, and with them what the roles own, go first.
    """
    made: list[tuple[Server, str]] = []

    def create(server: Server, attributes: str = "LOGIN") -> str:
        name = f"role_{os.urandom(6).hex()}"
        server.psql(f"CREATE ROLE {name} {attributes}")
        made.append((server, name))
        return name

    yield create
    for server, name in reversed(made):
        server.psql(f"DROP OWNED BY {quote_identifier(name)}; DROP ROLE {quote_identifier(name)}")


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """The command, built once, where every user of this machine can run it."""
    directory = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    directory.chmod(0o755)
    yield build(directory)
    shutil.rmtree(directory)


@pytest.fixture
def engine(debian_server: Server, tmp_path: Path) -> Engine:
    """The distribution's server and an empty repository."""
    return Engine(debian_server, tmp_path / "repository")


@pytest.fixture
def keeper(program: Path, lone_zstd_server: Server, tmp_path: Path) -> Keeper:
    """The command, the server whose pg_dump does everything itself, and a place for a repository."""
    return Keeper(program, lone_zstd_server, tmp_path / "repository")


@pytest.fixture
def sample_keeper(program: Path, zstd_server: Server, samples: dict[str, str], tmp_path: Path) -> Keeper:
    """The command, a server with the sample database and whatever else other tests left there, and a place."""
    return Keeper(program, zstd_server, tmp_path / "repository")


@pytest.fixture
def debian_keeper(program: Path, lone_debian_server: Server, tmp_path: Path) -> Keeper:
    """The command, the server whose archives are compressed by a program of their own, and a place for a repository."""
    return Keeper(program, lone_debian_server, tmp_path / "repository")


@pytest.fixture(scope="session")
def samples(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A sample database on every server."""
    servers = [request.getfixturevalue(name) for name in SERVERS]
    yield {name: make_sample(server, "sample") for name, server in zip(SERVERS, servers)}
    for server in servers:
        server.psql("DROP DATABASE IF EXISTS sample WITH (FORCE)")
