# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Writing the recovery document of a host, from its repository and its jobs. No server is asked: it may be gone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, config, evidence, files, repository
from ..adapters.process import Cancellation
from ..domain.backups import Backup
from ..domain.errors import DONE, ConfigurationError, ManifestError, RepositoryError
from ..domain.markdown import literal
from ..domain.model import Connection, Copies, Location, Repository, RunbookOptions, Target, build, options_of
from ..domain.recovery_commands import Instance, Kept, to_restore
from ..domain.runbook import Site
from ..domain.runbook import runbook as document_of

MAX_BYTES = 64 * 1024 * 1024  # of a document that is there already

Jobs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Runbook:
    """The document, and what stands in its file."""

    document: str
    path: str | None
    before: str | None  # None: there is no file
    warnings: tuple[str, ...] = ()

    failed = False
    message = ""
    exit_code = DONE

    @property
    def changed(self) -> bool:
        """Return whether the file was written, or would be."""
        return self.path is not None and self.document != self.before

    @property
    def diff(self) -> Mapping[str, str] | None:
        """Return the file before and after."""
        if self.path is None:
            return None
        names = {"before_header": self.path, "after_header": self.path}
        return {"before": self.before or "", "after": self.document, **names}

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {"path": self.path, "document": self.document}


def runbook(
    raw: Mapping[str, Any], check: bool, clock: Callable[[], datetime], cancellation: Cancellation | None = None
) -> Runbook:
    """Given options as a user wrote them, return the recovery document, written to `path` where that is set and it
    differs (`check`: it is not written); raise PgkeepError.
    """
    options = build(RunbookOptions, raw)
    path = os.path.abspath(options.path) if options.path else None
    build(Connection, raw)  # what is wrong with it is said before anything is read
    place = build(Repository, raw).repository
    jobs, warnings = _jobs(options.config_dir)  # before root is given up: a job may be root's alone
    targets = _targets(os.path.normpath(place), options.config_dir, jobs)
    place = repository.open_for_reading(place)
    stop = cancellation or Cancellation()
    instances, more = _instances(place, raw, options.config_dir, jobs, stop)
    notes = [f"the jobs in {literal(options.config_dir)} could not be read: their connections count for nothing here."]
    site = Site(
        repository=place,
        owner=repository.owner(place),
        config_dir=options.config_dir,
        instances=instances,
        notes=(*(notes if warnings else ()), *more),
        targets=targets,
    )
    document = document_of(site, clock())
    result = Runbook(document, path, _read(path) if path else None, warnings)
    if path and result.changed and not check:
        _write(path, document)
    return result


def _jobs(directory: str) -> tuple[Jobs, tuple[str, ...]]:
    """Given the directory of the configuration, return its jobs, and warnings where they cannot be read.

    A document without a job's port is worth more than none.
    """
    if not os.path.isdir(directory):
        return {}, ()
    try:
        return config.load_all(directory), ()
    except ConfigurationError as error:
        return {}, tuple(str(error).split("\n"))


def _targets(place: str, directory: str, jobs: Jobs) -> tuple[tuple[str, Target], ...]:
    """Given a repository, the directory of the configuration and its jobs, return the targets of the repository's jobs."""
    ours = [job for job in jobs.values() if os.path.normpath(build(Location, job).repository) == place]
    names = dict.fromkeys(name for job in ours for name in build(Copies, job).targets)
    return tuple((name, build(Target, config.load_target(directory, name))) for name in names)


def _instances(
    place: str, raw: Mapping[str, Any], directory: str, jobs: Jobs, cancellation: Cancellation
) -> tuple[tuple[Instance, ...], list[str]]:
    """Given a repository, what was said and the jobs, return what there is of each instance, and notes on the jobs."""
    groups: dict[tuple[str, str], list[Backup]] = {}
    for found in catalog.scan(place):
        cancellation.check()
        if isinstance(found, Backup):
            groups.setdefault((found.instance, os.path.dirname(found.path)), []).append(found)
    kept: dict[str, list[Kept]] = {}
    for (name, folder), backups in groups.items():
        kept.setdefault(name, []).append(_kept(backups, folder))
    instances: list[Instance] = []
    notes: list[str] = []
    for name in sorted(kept):
        instance, several = _instance(name, kept[name], place, raw, directory, jobs)
        instances.append(instance)
        notes += [several] if several else []
    return tuple(instances), notes


def _kept(backups: list[Backup], folder: str) -> Kept:
    """Given the backups of one database and their folder, return what is known of them."""
    left = backups
    while True:
        best = to_restore(left)
        document = None
        if best:
            try:
                document = catalog.read_manifest(best.path)
            except ManifestError as error:  # pruned just now, or damaged just now
                left = [replace(item, problem=str(error)) if item is best else item for item in left]
                continue
        ordered = sorted(left, key=lambda item: (item.created, item.id), reverse=True)
        return Kept(tuple(ordered), document, tuple(evidence.read(folder)))


def _instance(
    name: str, kept: list[Kept], place: str, raw: Mapping[str, Any], directory: str, jobs: Jobs
) -> tuple[Instance, str]:
    """Given an instance's name and what is kept of it, return it with its connection: what was said, and for the rest
    what the first of its jobs says. With it comes a note where its jobs do not agree.
    """
    ours = {job: options for job, options in jobs.items() if _is_of(options, place, name)}
    reached = {job: _said(options) for job, options in ours.items()}
    first = next(iter(reached), "")
    own, said = reached.get(first, {}), _said(raw)
    if said.keys() & {"login_host", "login_unix_socket"}:  # one of them is the address, and overrules the other
        own = {option: value for option, value in own.items() if option not in ("login_host", "login_unix_socket")}
    password_in = ""
    if raw.get("login_password"):
        password_in = "the variables of whoever wrote this"
    elif ours.get(first, {}).get("login_password"):
        password_in = f"the configuration of its jobs, {literal(directory)}"
    instance = Instance(
        name=name,
        connection=build(Connection, {**own, **said}),
        databases=tuple(item for item in kept if item.backups[0].kind == "database"),
        globals=next((item for item in kept if item.backups[0].kind == "globals"), None),
        bin_dir=ours.get(first, {}).get("bin_dir"),
        password_in=password_in,
    )
    if all(each == reached[first] for each in reached.values()):
        return instance, ""
    note = f"the jobs of instance {literal(name)} reach it in different ways: what follows is that of job {literal(first)}."
    return instance, note


def _is_of(job: Mapping[str, Any], place: str, instance: str) -> bool:
    location = build(Location, job)
    return os.path.normpath(location.repository) == place and location.instance == instance


def _said(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Given options as a user wrote them, return how to connect, without the password and without what is the default:
    a module has every default written out.
    """
    return {
        name: raw[name]
        for name, option in options_of(Connection).items()
        if option.kind != "password" and raw.get(name) not in (None, option.default)
    }


def _read(path: str) -> str | None:
    """Given a path, return the text of the file there, None where there is none; raise RepositoryError."""
    try:
        return files.read_small(path, MAX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None
    except (OSError, RepositoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RepositoryError(
            f"{path} cannot be replaced by the document: {reason}: set `path` to another one"
        ) from None


def _write(path: str, document: str) -> None:
    try:
        files.replace(path, document.encode(), secrets.token_hex(8))
    except OSError as error:
        raise RepositoryError(
            f"the document cannot be written to {path}: {error.strerror}: set `path` to a file in a directory that is"
            " there, and that the owner of the repository may write to"
        ) from None


def line(result: Runbook, check: bool) -> str:
    """Given a document with a file, return what became of the file, in one line for people."""
    if not result.changed:
        return f"{result.path}: nothing to change"
    return f"{result.path}: {'would be written' if check else 'written'}"
