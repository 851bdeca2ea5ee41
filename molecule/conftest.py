# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of all scenarios share: the hosts, reached by another door than Ansible's, and as root.

Fixtures: host_named, sql, pgkeep, playbook, until.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

_ROOT = Path(__file__).resolve().parent.parent
_ENGINE = os.environ.get("PGKEEP_MOLECULE_ENGINE", "podman")
_PREFIX = os.environ.get("PGKEEP_MOLECULE_PREFIX", "pgkeep-")


@pytest.fixture(scope="session")
def host_named() -> Callable[[str], Host]:
    """Return a function: given a name of the inventory, return that host."""
    return lambda name: testinfra.get_host(f"{_ENGINE}://root@{_PREFIX}{name}")


@pytest.fixture(scope="session")
def sql(host_named: Callable[[str], Host]) -> Callable[..., str]:
    """Return a function: given a host's name and a query, return what psql prints, without spaces around values.

    The query runs as postgres on the host; port and database have the usual defaults.
    """

    def query(name: str, statement: str, *, database: str = "postgres", port: int = 5432) -> str:
        command = "cd / && runuser --user=postgres -- psql -XAtq -v ON_ERROR_STOP=1 -p %s -d %s -c %s"
        return host_named(name).check_output(command, str(port), database, statement)

    return query


@pytest.fixture(scope="session")
def pgkeep(host_named: Callable[[str], Host]) -> Callable[..., Any]:
    """Return a function: given a host's name and the command line of a pgkeep that has to succeed, return what its --json
    says. It runs as root, as an operator would type it.
    """

    def call(name: str, *arguments: str, path: str = "/usr/local/bin/pgkeep") -> Any:
        return json.loads(
            host_named(name).check_output(" ".join(["%s"] * (len(arguments) + 2)), path, *arguments, "--json")
        )

    return call


@pytest.fixture(scope="session")
def playbook() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function: given a playbook of the collection, a pattern of hosts, more arguments and variables, run it;
    return what became of it. It has to end with the given code.
    """

    def run(
        name: str, hosts: str, *arguments: str, code: int = 0, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        variables["pgkeep_hosts"] = hosts
        command = [
            "ansible-playbook", f"--inventory={_ROOT}/molecule/resources/inventory/hosts.yml", f"pgkeep.backup.{name}",
            *arguments, "--extra-vars", json.dumps(variables),
        ]  # fmt: skip
        environment = {**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": "20", "ANSIBLE_NOCOLOR": "1"}
        environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "yaml"
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=_ROOT)
        print(done.stdout[-20000:])  # shown where the test fails
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Return a function: given a condition and what it is, wait until it holds and return its value; fail where it does not
    within so many seconds.
    """

    def wait(condition: Callable[[], Any], what: str, seconds: float = 180) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.5)
        raise AssertionError(f"waited in vain until {what}")

    return wait
