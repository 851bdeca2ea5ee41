# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command `pgkeep` from its sources: python drilling.py with|without ...; `without` leaves the content proof out.

Nobody who runs the real command can do that. It is here to measure what the proof costs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins/module_utils"))

from _core import cli  # type: ignore[import-not-found]
from _core.services import drill  # type: ignore[import-not-found]


class _NothingRead:
    """Takes the place of what reads the archive."""

    def __init__(self, *_unused: Any) -> None: ...

    def __enter__(self) -> _NothingRead:
        return self

    def __exit__(self, *_unused: Any) -> None: ...

    def finish(self) -> None: ...


if __name__ == "__main__":
    if sys.argv[1] == "without":
        drill._Reading = _NothingRead
        drill._compare = lambda *_unused: None
    sys.exit(cli.main(sys.argv[2:]))
