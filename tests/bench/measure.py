# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running whole commands in turn and comparing them pair by pair, because a machine's speed drifts."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One run of one command: seconds of wall time, seconds of CPU of it and its children, peak memory, bytes left."""

    wall: float
    cpu: float
    memory: int
    size: int


@dataclass(frozen=True)
class Case:
    """A command to measure. `clean` runs before each, unmeasured; `size` tells afterwards how much it wrote."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    clean: Callable[[], None] = lambda: None
    size: Callable[[], int] = lambda: 0


def run(case: Case) -> Run:
    """Given a case, run it once; raise RuntimeError with its output when it fails."""
    case.clean()
    os.sync()  # what the run before left to the kernel is not this one's work
    begin = time.monotonic()
    process = subprocess.Popen(
        case.argv,
        env=dict(case.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _unused, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{case.name}: status {process.returncode}: {said.decode(errors='replace')[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, case.size())


def rounds(cases: Sequence[Case], count: int, report: Callable[[str], None]) -> dict[str, list[Run]]:
    """Given cases, run all of them in turn, so many times (and once before, not counted); return the runs by name."""
    result: dict[str, list[Run]] = {case.name: [] for case in cases}
    for number in range(count + 1):
        for case in cases:
            done = run(case)
            report(f"round {number}/{count}: {case.name}: {done.wall:.2f} s")
            if number:
                result[case.name].append(done)
    return result


def median(values: Sequence[float]) -> float:
    """Given values, return their median."""
    return statistics.median(values)


def ratio(runs: Sequence[Run], others: Sequence[Run]) -> str:
    """Given two cases' runs, return the ratio of their wall times, pair by pair: median (smallest to largest)."""
    pairs = sorted(one.wall / other.wall for one, other in zip(runs, others))
    return f"{median(pairs):.2f} ({pairs[0]:.2f} to {pairs[-1]:.2f})"
