# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the command pgkeep, as the module pg_backup_command installs it, to a path of this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plugins" / "plugin_utils"))

from _command import build_zip, read_core  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--interpreter", default="/usr/bin/python3")
    arguments = parser.parse_args()
    arguments.path.parent.mkdir(parents=True, exist_ok=True)
    new = arguments.path.with_name(arguments.path.name + ".new")
    new.write_bytes(build_zip(read_core(ROOT / "plugins" / "module_utils" / "_core"), arguments.interpreter))
    new.chmod(0o755)
    new.replace(arguments.path)


if __name__ == "__main__":
    main()
