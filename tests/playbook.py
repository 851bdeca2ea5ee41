# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-playbook as a process, with this collection and nothing of the user's own Ansible."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.keeper import ROOT

HERE = ("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")


def run_playbook(
    directory: Path, playbook: Path, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Given a directory that is Ansible's home and working directory, a playbook, more arguments and more variables of
    the environment, run the playbook.
    """
    variables = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        **environment,
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, playbook, *arguments], env=variables, cwd=directory, capture_output=True, text=True, check=False
    )


def run_tasks(
    directory: Path, tasks: Sequence[Mapping[str, Any]], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Given a directory, tasks, more arguments and more variables of the environment, run the tasks on this host, each
    whatever became of those before.
    """
    written = [{**task, "ignore_errors": True} for task in tasks]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": written}
    (directory / "play.yml").write_text(json.dumps([play]))
    return run_playbook(directory, directory / "play.yml", *HERE, *arguments, **environment)


def results(done: subprocess.CompletedProcess[str], number: int) -> list[dict[str, Any]]:
    """Given what `ansible-playbook -v` said of so many tasks, return the result of each, and whether it failed."""
    lines = [line for line in done.stdout.splitlines() if re.match(r"(ok|changed|fatal): .* => \{", line)]
    assert len(lines) == number, done.stdout + done.stderr
    return [{**json.loads(line[line.index("=> ") + 3 :]), "failed": line.startswith("fatal: ")} for line in lines]
