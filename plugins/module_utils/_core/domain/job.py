# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What options say together: combinations that cannot be meant, and the retention policy of a job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import compression, encryption, patterns, schedule
from .errors import ConfigurationError
from .model import JOB_POLICY, RULES, DumpOptions, Policy, StandbyOptions, build, options_of

Raw = Mapping[str, Any]

_DEFAULTS = DumpOptions()
_TLS_ONLY = ("require", "verify-ca", "verify-full")


def policy_of(job: Raw) -> Policy:
    """Given a job, return its retention policy; raise ConfigurationError.

    A job without any retention rule has JOB_POLICY's rules, and its own time zone, minimum and brakes. A rule of 0
    counts as said: who switches every rule off gets an error where the policy is used, not somebody else's rules.
    """
    policy = build(Policy, job)
    if any(job.get(rule) is not None for rule in RULES):
        return policy
    return replace(policy, **{rule: getattr(JOB_POLICY, rule) for rule in RULES})


def missing_problems(raw: Raw, classes: Sequence[type]) -> list[str]:
    """Given what a user wrote and the classes it is for, return a sentence for each required option that is missing."""
    return [
        f"{name} is not set: {option.help}"
        for cls in classes
        for name, option in options_of(cls).items()
        if option.required and raw.get(name) in (None, "")
    ]


def value_problems(raw: Raw, classes: Sequence[type]) -> list[str]:
    """Given what a user wrote, of the right types, return what has no value: times that do not exist and the like."""
    result = []
    for cls in classes:
        try:
            build(cls, raw)
        except ConfigurationError as error:
            result.append(str(error))
    return result


def combination_problems(raw: Raw) -> list[str]:
    """Given what a user wrote, of the right types, return a sentence for each combination that cannot be meant."""
    checks = (
        _connection_problems,
        _selection_problems,
        _dump_problems,
        _text_problems,
        _pin_problems,
        _standby_problems,
        encryption.problems,
    )
    return [problem for check in checks for problem in check(raw)]


def check_combinations(raw: Raw) -> None:
    """Given what a user wrote, of the right types, raise ConfigurationError with all that cannot be meant."""
    found = combination_problems(raw)
    if found:
        raise ConfigurationError("; ".join(found))


def check_connection(raw: Raw) -> None:
    """Given what a user wrote, of the right types, raise ConfigurationError with all of a connection that cannot be
    meant.
    """
    found = list(_connection_problems(raw))
    if found:
        raise ConfigurationError("; ".join(found))


def _connection_problems(raw: Raw) -> Iterator[str]:
    host = raw.get("login_host") or ""
    if raw.get("service_file") and not raw.get("service"):
        yield "service_file is set without service: name the section to use, or leave service_file out"
    if raw.get("login_unix_socket") and host:
        yield "login_unix_socket and login_host are both set: a connection uses only one of them"
    if raw.get("ssl_mode") in _TLS_ONLY and not raw.get("service") and (not host or host.startswith("/")):
        yield (
            f"ssl_mode is {raw['ssl_mode']} but there is no TLS over a Unix socket, where libpq would go on without it:"
            " set login_host, or leave ssl_mode out"
        )
    if re.search(r"[\r\n\0]", raw.get("login_password") or ""):
        yield "login_password contains a newline, which libpq cannot read from a password file: change the password"


def _selection_problems(raw: Raw) -> Iterator[str]:
    if raw.get("databases") and raw.get("include"):
        yield "databases and include are both set: name the databases, or describe them, not both"
    for name in ("include", "exclude"):
        for pattern in raw.get(name) or ():
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                yield f"{name} has {pattern!r}, which is not a regular expression: {error}"


def _dump_problems(raw: Raw) -> Iterator[str]:
    format_name = raw.get("format") or _DEFAULTS.format
    if (raw.get("jobs") or _DEFAULTS.jobs) > 1 and format_name != "directory":
        yield f"jobs is {raw['jobs']} but format is {format_name}: parallel jobs need format directory"
    for name in ("schemas", "exclude_schemas"):
        if raw.get("tables") and raw.get(name):
            yield f"tables and {name} are both set: pg_dump ignores schemas where tables are named; write schema.table"


def _text_problems(raw: Raw) -> Iterator[str]:
    """Yield what is wrong with texts that have a grammar of their own, before a server is asked for anything."""
    written = raw.get("compression")
    try:
        if written and written != "auto":
            compression.parse(written)
    except ConfigurationError as error:
        yield str(error)
    for name in patterns.OPTIONS:
        for pattern in raw.get(name) or ():
            try:
                patterns.parse(pattern, name)
            except ConfigurationError as error:
                yield str(error)
    yield from schedule.problems(raw)


def _pin_problems(raw: Raw) -> Iterator[str]:
    if raw.get("pin_until") and not raw.get("pin"):
        yield "pin_until is set without pin: say in pin why the backups of this run must be kept"


def _standby_problems(raw: Raw) -> Iterator[str]:
    run_on = raw.get("run_on") or StandbyOptions().run_on
    if raw.get("standby_name") and run_on in ("any", "primary"):
        yield f"standby_name is set and run_on is {run_on}: set run_on to standby or prefer_standby"
