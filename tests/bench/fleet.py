# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a fleet costs on which nothing changes: the playbook `site` over SSH, on hosts of molecule with no variable set."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Case, Run, median, ratio, rounds

ROOT = Path(__file__).resolve().parents[2]
TITLE = "A converged fleet"
TIMERS = "recent"  # the host whose jobs systemd starts, not cron
HOSTS = ("one", "deb11", "old", "db12", "db13", TIMERS)
_TOOL = str(ROOT / "tools/molecule.sh")
_PREFIX = "bench-"
# As docs/fleet.md recommends.
_SSH = "-C -o ControlMaster=auto -o ControlPersist=600s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"


@dataclass(frozen=True)
class Cost:
    """What one run sends to each host, on average: tasks that do so at all, and commands."""

    tasks: float
    trips: float


def cost(output: str, hosts: int) -> Cost:
    """Given what a run printed with -vvv and the number of its hosts, return what it sent to each.

    A round trip is a command that ssh or sftp is given. What only the controller does (include, assert, set_fact, skipped
    items) is none, and a task of which that is all does not count.
    """
    blocks = re.split(r"^(?:TASK|PLAY|PLAY RECAP) \[?", output, flags=re.MULTILINE)
    sent = [re.findall(r"^<([^>]+)> SSH: EXEC ", block, re.MULTILINE) for block in blocks]
    return Cost(sum(len(set(block)) for block in sent) / hosts, sum(map(len, sent)) / hosts)


@contextmanager
def _hosts(where: Path) -> Iterator[Path | str]:
    """Make the hosts and log in with a key of our own; yield an inventory, or why there can be none."""
    environment = {**os.environ, "PGKEEP_MOLECULE_PREFIX": _PREFIX, "PGKEEP_NO_SKIP": ""}

    def tool(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [_TOOL, *arguments], env=environment, input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{_TOOL} {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    try:
        said = tool("create", "--scenario-name=default")
        missing = re.search(r"^NOT RUN: .*", said, re.MULTILINE)
        if missing:
            yield missing[0]
            return
        key = where / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        login = "mkdir -p -m 700 /root/.ssh && cat > /root/.ssh/authorized_keys && hostname -I"
        public = key.with_suffix(".pub").read_text()
        addresses = {host: tool("login", host, "sh", "-c", login, stdin=public).split()[0] for host in HOSTS}
        yield _inventory(where, key, addresses)
    finally:
        tool("clean")


def _inventory(where: Path, key: Path, addresses: Mapping[str, str]) -> Path:
    common = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    hosts = {name: {"ansible_host": address} for name, address in addresses.items()}
    hosts[TIMERS]["pgkeep_schedule_method"] = "systemd"
    path = where / "hosts.yml"
    path.write_text(json.dumps({"all": {"hosts": hosts, "vars": common}}))
    return path


def _case(name: str, inventory: Path, pattern: str, *, pipelining: bool = True) -> Case:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", ""),
        "ANSIBLE_HOME": str(ROOT / ".cache/ansible"),
        "ANSIBLE_SSH_ARGS": _SSH,
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(inventory.parent / "ssh"),
        "ANSIBLE_PIPELINING": str(pipelining),
        "ANSIBLE_FORKS": "25",
        "ANSIBLE_NOCOLOR": "1",
    }
    argv = ["ansible-playbook", "-i", str(inventory), "pgkeep.backup.site", "-e", f"pgkeep_hosts={pattern}"]
    return Case(name, argv, environment)


def _counted(case: Case, hosts: int) -> Cost:
    """Given a case, run it once where everything it sends is shown; raise RuntimeError where anything changed."""
    done = subprocess.run(
        [*case.argv, "-vvv"],
        env=dict(case.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or len(re.findall(r"^\S+ +: ok=\d+ +changed=0 ", done.stdout, re.MULTILINE)) != hosts:
        raise RuntimeError(f"{case.name}: the fleet is not converged: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return cost(done.stdout, hosts)


def _row(name: str, hosts: int, costs: Cost, runs: Sequence[Run], against: Sequence[Run]) -> str:
    wall, cpu = median([run.wall for run in runs]), median([run.cpu for run in runs])
    return (
        f"| {name} | {costs.tasks:.0f} | {costs.trips:.0f} | {wall:.1f} | {wall / hosts:.1f} | {cpu / hosts:.1f} |"
        f" {ratio(runs, against)} |"
    )


def section(where: Path, count: int, report: Callable[[str], None]) -> list[str]:
    """Given a directory and a number of rounds, return the lines of the section about the fleet."""
    with _hosts(where) as inventory:
        if isinstance(inventory, str):
            return [f"## {TITLE}", "", f"{inventory}."]
        everyone = ",".join(HOSTS)
        first = _case("converge", inventory, everyone)
        subprocess.run(
            first.argv, env=dict(first.environment), stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
        # With each the number of its hosts, and the row that it is compared with.
        cases = [
            (_case("1 host", inventory, "one"), 1, 0),
            (_case("1 host, without pipelining", inventory, "one", pipelining=False), 1, 0),
            (_case("1 host, timers instead of cron", inventory, TIMERS), 1, 0),
            (_case(f"{len(HOSTS)} hosts", inventory, everyone), len(HOSTS), 3),
            (_case(f"{len(HOSTS)} hosts, without pipelining", inventory, everyone, pipelining=False), len(HOSTS), 3),
        ]
        costs = [_counted(case, hosts) for case, hosts, _base in cases]
        runs = list(rounds([case for case, *_counted in cases], count, report).values())
    rows = [
        _row(case.name, hosts, costs[number], runs[number], runs[base])
        for number, (case, hosts, base) in enumerate(cases)
    ]
    return [
        f"## {TITLE}",
        "",
        "`playbooks/site.yml` again, where nothing changes: no variable set, over SSH as [docs/fleet.md](fleet.md) has it, 25",
        "forks. The hosts are containers on this machine, which has to do their work as well. Tasks are those that send anything",
        "to a host, round trips are the commands that `ssh` and `sftp` are given, both for each host. The last column is the",
        "wall time against the row of as many hosts with pipelining and cron.",
        "",
        "| | tasks | round trips | wall, s | wall per host, s | CPU of the controller per host, s | wall against the first |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
