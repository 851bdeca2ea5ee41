# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Whose turn it is among a primary and its standbys, and whether a standby may be dumped."""

from __future__ import annotations

from datetime import timedelta

from .database_sql import quote_identifier
from .errors import ServerError
from .facts import ReplicationFacts
from .model import StandbyOptions
from .quantities import human_duration

PAUSE_FUNCTIONS = ("pg_wal_replay_pause()", "pg_wal_replay_resume()")
_RESUME = "SELECT pg_wal_replay_resume()"


def why_elsewhere(facts: ReplicationFacts, options: StandbyOptions, role: str) -> str:
    """Given the server, the options and the role, return why the run is for another server; "" where it is for this one.

    Raise ServerError where the role may not see what decides it.
    """
    asked = options.run_on
    if asked == "any":
        return ""
    if facts.is_standby:
        return _why_not_this_standby(facts, options)
    if asked == "standby":
        return "this server is a primary, and run_on is standby"
    return _why_a_standby(facts, options, role) if asked == "prefer_standby" else ""


def _why_not_this_standby(facts: ReplicationFacts, options: StandbyOptions) -> str:
    if options.run_on == "primary":
        return "this server is a standby, and run_on is primary"
    if options.standby_name not in (None, facts.cluster_name):
        own = f"has the cluster_name {facts.cluster_name!r}" if facts.cluster_name else "has no cluster_name"
        return f"this standby {own}, and standby_name is {options.standby_name!r}"
    return ""


def _why_a_standby(facts: ReplicationFacts, options: StandbyOptions, role: str) -> str:
    if facts.streaming is None:
        raise ServerError(
            f"role {role} may not see whether a standby streams from this primary, which decides where the run is"
            f" (run_on: prefer_standby): GRANT pg_read_all_stats TO {quote_identifier(role)}, or set run_on to primary"
        )
    names = [name for name in facts.streaming if options.standby_name in (None, name)]
    if not names:
        return ""
    return f"this server is a primary, run_on is prefer_standby, and a standby streams from it ({', '.join(names)})"


def lag_problem(lag: timedelta | None, limit: timedelta) -> str:
    """Given how far a standby is behind (None: it cannot tell) and the limit, return why it is not dumped, or ""."""
    if lag is None:
        return (
            "it is not known how far this standby is behind its primary: it is not connected to it, and has replayed no"
            " transaction since it was started: look into its log, and run again when it has caught up"
        )
    if lag > limit:
        return (
            f"this standby is {human_duration(lag)} behind its primary, more than {human_duration(limit)} (`max_lag`):"
            " look whether it is connected and whether somebody paused replay, run again when it has caught up, or"
            " raise `max_lag`"
        )
    return ""


def rights_problem(role: str, database: str) -> str:
    """Given a role that may not pause replay, and the database that it connects to first, return what to do."""
    return (
        f"role {role} may not pause replay on this standby: run, on its primary and in database {database!r}, GRANT"
        f" EXECUTE ON FUNCTION {', '.join(PAUSE_FUNCTIONS)} TO {quote_identifier(role)}; or set `pause_replay` to false:"
        " replay can then cancel dumps"
    )


def still_paused(instance: str, reason: str) -> str:
    """Given an instance and why the replay of its standby could not be resumed, return the message."""
    return (
        f"replay of instance {instance} may still be paused, so that it falls behind: {reason}: run {_RESUME} there;"
        " the next run tries it as well, and a restart of the server ends the pause"
    )


def over(address: str) -> str:
    """Given where a standby was whose replay we paused, return what to know when the server there now has another start."""
    return (
        f"the standby {address}, whose replay was paused, was restarted, which ended the pause; or the connection now"
        f" leads to another server: then run {_RESUME} on the first"
    )
