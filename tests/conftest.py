# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all tests share: the collection's import path, real servers, fresh databases, and an account of skipped tests.

Fixtures: debian_server, embedded_server, zstd_server, fresh_database; object_store, ssh_host.
Markers: needs_root, needs_programs("zstd", ...).
PGKEEP_NO_SKIP=1 makes a run with skipped tests fail, so that continuous integration cannot pass by testing nothing.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import object_store as s3
from tests import ssh_host as ssh
from tests.postgres import CELERP, DEBIAN, EMBEDDED, Server, find_installation, quote_identifier

_ROOT = Path(__file__).resolve().parent.parent
_LONG = (  # a minute or more, the longest first
    "test_targets",
    "test_drill",
    "test_crash",
    "test_encryption",
    "test_sync",
    "test_standby",
    "test_receive",
    "test_runbook",
    "test_demo",
)


def pytest_configure() -> None:
    """Make `ansible_collections.pgkeep.backup` importable from a checkout at any path, without the Makefile too, and let
    hypothesis wait: an example that is late on busy processors says nothing about the code.
    """
    settings.register_profile("patient", settings(), deadline=None)
    settings.load_profile("patient")
    link = _ROOT / ".cache/collections/ansible_collections/pgkeep/backup"
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../../..")
        importlib.invalidate_caches()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the files (make test), let the long ones begin first, so that none is left at the end."""
    if hasattr(config, "workerinput"):
        last = len(_LONG)
        order = {name: place for place, name in enumerate(_LONG)}
        items.sort(key=lambda item: (order.get(item.path.stem, last), "integration" not in item.path.parts))


# --- servers: one of each kind for each process that runs tests, started by the first test that asks ---


@pytest.fixture(scope="session")
def debian_server() -> Iterator[Server]:
    """The distribution's newest PostgreSQL."""
    yield from _server(DEBIAN)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    """PostgreSQL 18; its pg_dump compresses with gzip alone."""
    yield from _server(EMBEDDED)


@pytest.fixture(scope="session")
def zstd_server() -> Iterator[Server]:
    """PostgreSQL 17; its pg_dump compresses with gzip, lz4 and zstd, and it speaks TLS."""
    yield from _server(CELERP)


@pytest.fixture(scope="session")
def lone_debian_server() -> Iterator[Server]:
    """As debian_server, for tests of whole instances: no other test leaves anything in it."""
    yield from _server(DEBIAN)


@pytest.fixture(scope="session")
def lone_zstd_server() -> Iterator[Server]:
    """As zstd_server, for tests of whole instances: no other test leaves anything in it."""
    yield from _server(CELERP)


def _server(source: str) -> Iterator[Server]:
    installation = find_installation(source)
    if installation is None:
        pytest.skip(f"no PostgreSQL server from {source} is installed")
    with Server(installation, tcp=True) as server:
        yield server


@pytest.fixture(scope="session")
def object_store() -> Iterator[s3.ObjectStore]:
    """An S3 server; a test makes buckets of its own."""
    _need(s3.PROGRAMS)
    with s3.ObjectStore() as store:
        yield store


@pytest.fixture(scope="session")
def ssh_host() -> Iterator[ssh.SshHost]:
    """An sshd, where the user who runs the tests may log in."""
    _need(ssh.PROGRAMS)
    with ssh.SshHost() as host:
        yield host


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    """The umask of an ordinary user: the engine narrows that of its process, which in a test of it is ours."""
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.fixture
def fresh_database() -> Iterator[Callable[..., str]]:
    """Return a function: given a server, and perhaps any name, create that empty database and return its name.

    Without a name it invents one. The databases are dropped after the test, whoever is still connected.
    """
    made: list[tuple[Server, str]] = []

    def create(server: Server, name: str | None = None) -> str:
        chosen = f"fresh_{os.urandom(6).hex()}" if name is None else name
        server.psql(f"CREATE DATABASE {quote_identifier(chosen)}")
        made.append((server, chosen))
        return chosen

    yield create
    for server, name in made:
        server.psql(f"DROP DATABASE IF EXISTS {quote_identifier(name)} WITH (FORCE)")


# --- skipping: never silently ---


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that cannot run here."""
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        pytest.skip("needs root")
    for marker in item.iter_markers("needs_programs"):
        _need(marker.args)


def _need(programs: Iterable[str]) -> None:
    missing = [program for program in programs if not ssh.find_program(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}, which is not installed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List every skipped test with its reason."""
    skipped = _skipped(config)
    if skipped:
        terminalreporter.section(f"{len(skipped)} not run")
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            terminalreporter.line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")
        if _no_skip():
            terminalreporter.line("PGKEEP_NO_SKIP=1: this run fails, because all tests have to run here", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let skipped tests fail the run where that is asked for."""
    if _no_skip() and session.exitstatus == 0 and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _no_skip() -> bool:
    return os.environ.get("PGKEEP_NO_SKIP") == "1"


def _skipped(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter else []
