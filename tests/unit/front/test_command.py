# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.version import VERSION
from ansible_collections.pgkeep.backup.plugins.plugin_utils._command import build_zip, read_core

ROOT = Path(__file__).resolve().parents[3]
CORE = ROOT / "plugins" / "module_utils" / "_core"
TOOL = ROOT / "tools" / "build_command.py"
CLI = b"import sys\n\ndef main():\n    print('here', sys.flags.isolated, sys.argv[1:])\n    return 3\n"

# Imports everything that the zip in argv[1] contains.
IMPORT_ALL = """
import importlib, sys, zipfile
sys.path.insert(0, sys.argv[1])
for name in zipfile.ZipFile(sys.argv[1]).namelist():
    if name != "__main__.py":
        importlib.import_module(name[:-3].replace("/", ".").replace(".__init__", ""))
"""


def interpreters() -> list[str]:
    """This Python, and the oldest that the command supports where there is one."""
    found = [Path(folder, "python3.9") for folder in os.get_exec_path()]
    found += Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9")
    # pyenv puts programs in the path that only say which version of Python to choose.
    works = [path for path in found if path.exists() and subprocess.run([path, "-c", ""], check=False).returncode == 0]
    return [sys.executable, *map(str, works[:1])]


def install(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_equal_files_give_equal_bytes_in_any_order_and_at_any_time() -> None:
    files = {"b.py": b"2", "a/__init__.py": b"", "a/c.py": b"3"}
    built = build_zip(files, "/usr/bin/python3")
    assert built == build_zip(dict(reversed(files.items())), "/usr/bin/python3")
    # The very bytes: a change here changes the command on every host, although its code is the same.
    assert hashlib.sha256(built).hexdigest() == "12c239b861c72b4ddcdacdc5e1cac68ff08c4dc6c0385cffe2f8521121f4525c"


def test_the_file_is_a_zip_of_python_files_behind_the_line_that_runs_it() -> None:
    built = build_zip({"cli.py": CLI, "a/__init__.py": b""}, "/opt/python/bin/python3")
    assert built.startswith(b"#!/opt/python/bin/python3 -IXutf8\nPK")
    with zipfile.ZipFile(io.BytesIO(built)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["pgkeep/a/__init__.py", "pgkeep/cli.py", "__main__.py"]
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.external_attr >> 16 == 0o100644
            assert entry.compress_type == zipfile.ZIP_STORED


def test_only_python_files_are_taken(tmp_path: Path) -> None:
    for name in ("__init__.py", "a/b.py", "a/__pycache__/b.cpython-39.pyc", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    assert read_core(tmp_path) == {"__init__.py": b"__init__.py", "a/b.py": b"a/b.py"}


def test_every_folder_of_the_engine_is_a_package() -> None:
    names = read_core(CORE).keys()
    folders = {name.rpartition("/")[0] for name in names}
    assert {f"{folder}/__init__.py".lstrip("/") for folder in folders} <= names


@pytest.mark.parametrize("interpreter", interpreters())
def test_everything_in_the_zip_can_be_imported(tmp_path: Path, interpreter: str) -> None:
    path = install(tmp_path / "pgkeep", build_zip(read_core(CORE), interpreter))
    done = subprocess.run([interpreter, "-I", "-c", IMPORT_ALL, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_runs_isolated_and_with_the_interpreters_own_packages(tmp_path: Path) -> None:
    cli = b"import psycopg2\n" + CLI
    path = install(tmp_path / "pgkeep", build_zip({"__init__.py": b"", "cli.py": cli}, sys.executable))
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "psycopg2.py").write_text("raise SystemExit('taken over')")
    environment = {**os.environ, "PYTHONPATH": str(evil)}
    done = subprocess.run([path, "a b"], cwd=evil, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("here 1 ['a b']\n", "", 3)


def test_an_interpreter_that_is_too_old_is_named(tmp_path: Path) -> None:
    path = install(tmp_path / "pgkeep", build_zip({"__init__.py": b"", "cli.py": b"("}, sys.executable))
    old = f"import runpy, sys; sys.version_info = (3, 8, 1); sys.version = '3.8.1 (old)'; runpy.run_path({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"pgkeep needs Python 3.9 or newer; {sys.executable} is 3.8.1\n"


def test_the_tool_builds_what_the_module_installs(tmp_path: Path) -> None:
    path = tmp_path / "bin" / "pgkeep"
    subprocess.run([sys.executable, TOOL, path, "--interpreter", sys.executable], check=True)
    assert path.read_bytes() == build_zip(read_core(CORE), sys.executable)
    assert path.stat().st_mode & 0o777 == 0o755
    assert [item.name for item in path.parent.iterdir()] == ["pgkeep"]


@pytest.mark.parametrize("interpreter", interpreters())
def test_the_command_says_its_version_and_the_checksum_of_its_file(tmp_path: Path, interpreter: str) -> None:
    path = install(tmp_path / "pgkeep", build_zip(read_core(CORE), interpreter))
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    assert VERSION in done.stdout
    assert hashlib.sha256(path.read_bytes()).hexdigest() in done.stdout
