# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What a run does about a primary and its standbys: whose turn it is, and replay that stands still while dumps run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..adapters import files, replay, server
from ..adapters.replay import Pause, Place
from ..domain.errors import ServerError
from ..domain.facts import ServerFacts
from ..domain.standby import lag_problem, rights_problem, why_elsewhere
from .preparation import Request, Surroundings

_POLL = 0.1  # seconds
_SECOND_LOOKS = 2  # seconds in which what came just now may be replayed


@dataclass(frozen=True)
class Turn:
    """Whether the run is for this server, and what to know about it."""

    elsewhere: str = ""  # why it is for another one
    notes: tuple[str, ...] = ()


def place_of(request: Request) -> Place:
    """Given a request, return the place where the pause of replay is written down."""
    return Place(os.path.join(request.location.repository, request.location.instance), request.connection)


def take_turn(session: server.Session, request: Request, facts: ServerFacts, check: bool) -> Turn:
    """Given a session in the database to connect to first, end a pause that a killed run left, and return whether the
    run is for this server; raise PgkeepError where the server is a standby that cannot be dumped as asked.
    """
    options = request.standby
    try:
        note = _leftover(session, request, facts, check)
    except OSError as error:
        raise files.describe(error, f"reading {place_of(request).path}") from None
    notes = (note,) if note else ()
    elsewhere = ""
    if options.run_on != "any":
        elsewhere = why_elsewhere(server.replication_facts(session, facts.is_standby), options, facts.role)
    if facts.is_standby and not elsewhere:
        if options.pause_replay and not server.may_pause_replay(session):
            raise ServerError(rights_problem(facts.role, session.database))
        if not (check and note):  # what is behind a pause is replayed when that has ended
            _check_lag(session, request, options.pause_timeout.total_seconds() if note else _SECOND_LOOKS)
    return Turn(elsewhere, notes)


def _leftover(session: server.Session, request: Request, facts: ServerFacts, check: bool) -> str:
    """Return what to know of the pause of a run that was killed, which is over unless `check`; "" if there is none."""
    place = place_of(request)
    if not check:
        settled = replay.recover(place, session)
        resumed = "replay was still paused by a run that was killed: it was resumed first" if settled.resumed else ""
        return settled.note or resumed
    if facts.is_standby and replay.told_of(place, session):
        return "replay is paused by another run, or by one that was killed: the next run then resumes it first"
    return ""


def _check_lag(session: server.Session, request: Request, patience: float) -> None:
    """Raise ServerError where the standby is too far behind, and does not catch up within so many seconds."""
    until = time.monotonic() + patience
    while True:
        problem = lag_problem(server.replay_lag(session), request.standby.max_lag)
        if not problem:
            return
        if time.monotonic() >= until:
            raise ServerError(problem)
        time.sleep(_POLL)


@contextmanager
def standing_replay(around: Surroundings) -> Iterator[Pause]:
    """Given the surroundings, keep replay of a standby paused inside the block, where that is asked for.

    Call it before there are threads. Raise PgkeepError; what goes wrong at the end is in what is yielded.
    """
    options = around.request.standby
    if not around.server.is_standby or not options.pause_replay:
        yield Pause()
        return
    place = place_of(around.request)
    try:
        # It cleans up after a BaseException, which GeneratorExit is; pylint looks for that name alone.
        # pylint: disable-next=contextmanager-generator-missing-cleanup
        with replay.paused(
            place, around.server, options.pause_timeout, around.clock, around.cancellation.check
        ) as pause:
            yield pause
    except OSError as error:
        raise files.describe(error, f"writing {place.path}") from None
    if pause.problems and around.cancellation.requested:
        raise ServerError("; ".join(pause.problems))  # more urgent than that the run was interrupted
