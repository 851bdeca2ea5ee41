# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection.
"""Build the command pgkeep: one zip of the engine's files that the interpreter in its first line can run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

PACKAGE = "pgkeep"
PYTHON_FLOOR = (3, 9)

# Written for any Python: an interpreter that is too old must get as far as the message.
MAIN = f"""\
import sys

if sys.version_info < {PYTHON_FLOOR}:
    found = (sys.executable, sys.version.split()[0])
    sys.exit("pgkeep needs Python {PYTHON_FLOOR[0]}.{PYTHON_FLOOR[1]} or newer; %s is %s" % found)

from {PACKAGE}.cli import main

sys.exit(main())
"""


def read_core(directory: Path) -> dict[str, bytes]:
    """Given the directory of the engine, return its Python files by their path in it."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*.py")}


def build_zip(files: Mapping[str, bytes], interpreter: str) -> bytes:
    """Given the engine's files by path and the interpreter, return the command: equal bytes for equal arguments.

    -I keeps PYTHONPATH, the user's site-packages and the current directory out of what cron may run as root. -X utf8
    makes names and messages the same in every locale; it is one word, because a kernel hands on only one.
    """
    buffer = io.BytesIO()
    buffer.write(f"#!{interpreter} -IXutf8\n".encode())
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(_entry(f"{PACKAGE}/{name}"), files[name])
        archive.writestr(_entry("__main__.py"), MAIN.encode())
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix, whatever the controller is
    entry.external_attr = 0o100644 << 16
    return entry
