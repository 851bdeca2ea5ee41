# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo` on a copy of the checkout: it runs, runs again, survives a crash, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


class Demo:
    """A copy of the checkout, and what its demo printed last."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / ".cache" / "demo"

    def make(self, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Given a target of make, return what became of it."""
        argv = ["make", "--no-print-directory", "-C", str(self.root), target, f"PYTHON={sys.executable}"]
        env = {**_environment(), **environment}
        return subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False
        )

    def run(self, **environment: str) -> str:
        """Return what a demo prints that has to succeed."""
        done = self.make("demo", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def backups(self) -> list[dict[str, object]]:
        """Return the backups, the newest first, as the command lists them."""
        argv = [str(self.directory / "pgkeep"), "list", "--json", "--repository", str(self.directory / "backups")]
        found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)["backups"]
        assert isinstance(found, list)
        return found

    def newest_size(self, database: str) -> int:
        """Given a database, return the bytes of its newest backup."""
        size = next(item["size"] for item in self.backups() if item["database"] == database)
        assert isinstance(size, int)
        return size

    def socket(self) -> Path:
        return Path((self.directory / "socket").read_text().strip())

    def server_pid(self) -> int:
        return int((self.directory / "data" / "postmaster.pid").read_text().split("\n")[0])


def _environment() -> dict[str, str]:
    """Return an environment in which nothing of this test run leads the demo elsewhere."""
    kept = {
        name: value for name, value in os.environ.items() if not re.match("PG|ANSIBLE|PYTHON|MAKE|MFLAGS|ARGS", name)
    }
    return {**kept, "LC_ALL": "C.UTF-8"}


def _processes_in(directory: Path) -> list[int]:
    """Return the processes whose working directory or program is in the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        for link in ("cwd", "exe"):
            try:
                path = str((entry / link).readlink())
            except OSError:  # not a process, gone, or somebody else's
                continue
            if entry.name.isdigit() and path.startswith(f"{directory}/"):
                found.append(int(entry.name))
    return found


def _wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/cwd").exists():  # a zombie has none
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A copy of what git knows of the checkout, or would take."""
    root = tmp_path_factory.mktemp("demo") / "checkout"
    listed = subprocess.run(
        ["git", "-C", str(_ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (_ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, root / name)
    copy = Demo(root)
    yield copy
    copy.make("demo-clean")
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def first_output(demo: Demo) -> str:
    """What the first run prints."""
    return demo.run(ANSIBLE_STDOUT_CALLBACK="json", PGHOST="nowhere.invalid", PGDATABASE="other")


def test_first_run_backs_up_every_database_and_the_globals(demo: Demo, first_output: str) -> None:
    backups = demo.backups()
    assert {item["database"] for item in backups} == {None, "postgres", "shop", 'Café "100%"', "a=b", "archive"}
    assert all(item["status"] == "complete" and not item["partial"] for item in backups)
    assert "failed=0" in first_output
    assert "failed=1" not in first_output


def test_pruning_explains_itself_and_does_what_it_said(demo: Demo, first_output: str) -> None:
    doomed = re.findall(r"^-DELETE  (\S+) +(\S+) .*  keep_last 2 exceeded: 3rd newest$", first_output, re.MULTILINE)
    assert sorted(database for database, _name in doomed) == ["demo/@globals", "demo/shop"]
    kept = demo.backups()
    assert not {item["id"].rpartition("/")[2] for item in kept} & {name for _database, name in doomed}
    labels = [item["label"] for item in kept if item["database"] == "shop"]
    assert labels == ["after-deployment", "before-deployment"]


def test_an_accident_is_undone_and_the_newest_backups_are_proven(demo: Demo, first_output: str) -> None:
    assert re.search(r"restored demo/shop/\S+ into shop, which replaced the old one", first_output)
    assert re.search(r"^The shop has [1-9][0-9]+ orders again$", first_output, re.MULTILINE)
    proven = re.findall(r"^demo/(\S+)/\S+: good \(restore\)", first_output, re.MULTILINE)
    assert proven == ["shop", "@globals"]
    assert re.search(r"[0-9,]{7,} rows of 4 tables compared", first_output)
    runbook = (demo.directory / "runbook.md").read_text()
    assert "## 3. The databases" in runbook
    assert "only-in-the-demo" not in runbook


def test_closing_says_where_the_files_are_how_large_how_long_and_why(demo: Demo, first_output: str) -> None:
    closing = first_output.partition("The backups are in ")[2]
    assert closing.startswith(f"{demo.directory}/backups:\nDATABASE ")
    for item in demo.backups():
        name = re.escape(str(item["id"]).rpartition("/")[2])
        assert re.search(rf"^demo/.* {name} .* [0-9.]+ k?M?B  +[0-9.]+s  ", closing, re.MULTILINE)
        assert re.search(rf"^keep +demo/.* {name} .* keep_last 2: (newest|2nd newest)$", closing, re.MULTILINE)


def test_commands_to_go_on_with_work_when_pasted(first_output: str, tmp_path: Path) -> None:
    commands = re.findall(r"^  (/\S*/pgkeep .*)$", first_output, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["stats", "prune", "verify"]
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "demo/shop" in done.stdout


def test_second_run_uses_the_server_as_it_is_and_shows_growth(demo: Demo, first_output: str) -> None:
    server, before = demo.server_pid(), demo.newest_size("shop")
    output = demo.run()
    assert demo.server_pid() == server
    assert demo.newest_size("shop") > before
    assert re.search(r"shop has 5, the newest .*, 1\.[0-9]+ times the oldest", output)


def test_run_after_a_crash_starts_the_server_again_and_ends_no_other_program(demo: Demo, first_output: str) -> None:
    """After a crash of the machine the process id in the server's pid file may be anybody's."""
    killed = demo.server_pid()
    os.kill(killed, signal.SIGKILL)
    _wait_until_dead(killed)
    pid_file = demo.directory / "data" / "postmaster.pid"
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            pid_file.write_text("\n".join([str(bystander.pid), *pid_file.read_text().split("\n")[1:]]))
            demo.run()
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert demo.server_pid() in _processes_in(demo.root)


def test_clean_stops_the_server_and_leaves_nothing(demo: Demo, first_output: str) -> None:
    socket = demo.socket()
    assert socket.is_dir()
    assert demo.server_pid() in _processes_in(demo.root)
    done = demo.make("demo-clean")
    assert (done.returncode, done.stderr) == (0, "")
    assert not socket.exists()
    assert not (demo.root / ".cache").exists()
    assert not list(demo.root.rglob("__pycache__"))
    assert _processes_in(demo.root) == []
    assert demo.make("demo-clean").returncode == 0


# --- machines on which it cannot run: one clear message ---


def _stub(directory: Path, name: str, script: str) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)
    return {**_environment(), "PATH": f"{directory}:{os.environ['PATH']}"}


def _refusal(environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(_ROOT / "tools" / "demo.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_old_python_is_named(tmp_path: Path) -> None:
    environment = _stub(tmp_path / "bin", "python3", "exit 1")
    assert "Python 3.11 or newer is needed, and python3 is not" in _refusal(environment)


def test_missing_venv_names_the_package(tmp_path: Path) -> None:
    script = f'case $2 in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"'
    message = _refusal(_stub(tmp_path / "bin", "python3", script))
    major, minor = sys.version_info[:2]
    assert message.endswith(f"apt-get install python{major}.{minor}-venv\n")


@pytest.mark.needs_root
def test_root_without_user_namespaces_is_told_what_to_do(tmp_path: Path) -> None:
    environment = {**_stub(tmp_path / "bin", "unshare", "exit 1"), "PYTHON": sys.executable}
    assert "run the demo as an ordinary user" in _refusal(environment)
