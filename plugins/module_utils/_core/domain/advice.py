# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""What to do about what pg_dump, pg_dumpall and pg_restore say when they fail."""

from __future__ import annotations

import re

_ADVICE = (
    (
        r"due to (statement|lock) timeout.*LOCK TABLE",
        "another session holds a lock on the table: run when it does not, or raise `lock_wait_timeout`",
    ),
    (r"No space left on device|Disk quota exceeded", "free some space there"),
    (r"out of shared memory", "raise max_locks_per_transaction on the server"),
    (
        r"conflict with recovery",
        "let `pause_replay` be true, dump from the primary, or raise max_standby_streaming_delay",
    ),
    (
        r"closed the connection unexpectedly|terminating connection|could not receive data|"
        r"connection to server .* failed",
        "look into the server's log, then run again",
    ),
    (
        r"cache lookup failed|(relation|schema) .* does not exist|could not open relation",
        "run again: it changed meanwhile",
    ),
    (r"permission denied", "GRANT pg_read_all_data to the role, or dump as a superuser"),
)


def advice(said: str) -> str:
    """Given the words with which a client program failed, return what to do, as the end of a message; "" if unknown."""
    return next((f": {todo}" for pattern, todo in _ADVICE if re.search(pattern, said, re.DOTALL)), "")
