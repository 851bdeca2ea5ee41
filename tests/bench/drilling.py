# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command `pgkeep` from its sources: python drilling.py with|without ...; `without` leaves the content proof out.

Nobody who runs the real command can do that. It is here to measure what the proof costs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins/module_utils"))

from _core import cli  # type: ignore[import-not-found]
from _core.services import drill, restore  # type: ignore[import-not-found]


def _without(_backup: Any, options: Any, *more: Any) -> Any:
    return restore.restore_backup(_backup, replace(options, compare=False), *more)


if __name__ == "__main__":
    if sys.argv[1] == "without":
        drill.restore_backup = _without
    sys.exit(cli.main(sys.argv[2:]))
