# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A target on another host, reached with rsync over SSH: an account that can only add copies, or an ordinary one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence

from ..domain import naming, receiving, rsync
from ..domain.errors import LockedCopyError, PgkeepError, ToolError
from ..domain.manifest import MAX_BYTES
from ..domain.model import Target
from ..domain.targets import silence
from .archive import File
from .process import SEARCH_PATH, Cancellation, Limits
from .programs import Ended, run
from .remote import Checked, home_problem

_TAKEN_OVER = ("HOME", "SSH_AUTH_SOCK", "LOGNAME", "USER")


class Rsync:
    """A directory on another host, as a Remote."""

    def __init__(self, target: Target, cancellation: Cancellation) -> None:
        self._target, self._cancellation = target, cancellation
        self._environment = {
            "PATH": SEARCH_PATH,
            "LC_ALL": "C",
            **{name: os.environ[name] for name in _TAKEN_OVER if name in os.environ},
        }

    # --- Remote ---

    def files(self, below: str = "") -> dict[str, int]:
        # A state is the far side's own.
        found = self._found(below).items()
        return {path: size for path, size in found if path.rpartition("/")[2] != naming.STATE_NAME}

    def _found(self, below: str) -> dict[str, int]:
        if self._target.append_only:
            text = self._ask(receiving.LIST).text
            found = receiving.parse_list(text, self._target.path)
            return {path: size for path, size in found.items() if not below or path.startswith(f"{below}/")}
        rules = rsync.filters((), (below,)) if below else ""
        options = (*rsync.LIST_OPTIONS, *(("--include-from=-", rsync.EXCLUDE_REST) if below else ()))
        ended = self._run(rsync.rsync_argv(self._target, *options, rsync.place(self._target)), rules)
        if ended.status and not rsync.nothing_there(ended.status, ended.stderr):
            raise self._failure("rsync", ended)
        return {} if ended.status else rsync.parse_listing(ended.text)

    def put(self, source: str, folder: str, names: Sequence[str]) -> None:
        options = (*rsync.put_options(self._target.append_only), _base(source, folder), rsync.place(self._target))
        self._rsync(options, _lines(folder, names))

    def check(self, source: str, folder: str, files: Sequence[File]) -> Checked:
        if self._target.append_only:
            wanted = {receiving.joined(self._target.path, f"{folder}/{file.path}"): file for file in files}
            answers = receiving.parse_hashes(self._ask(receiving.HASH, json.dumps(list(wanted))).text)
            return Checked("sha256", receiving.problem(wanted, answers))
        quiet = silence(sum(file.size for file in files), self._target.timeout)
        argv = rsync.rsync_argv(
            self._target, *rsync.CHECK_OPTIONS, _base(source, folder), rsync.place(self._target), silent=True
        )
        ended = self._run(
            argv, _lines(folder, [file.path for file in files]), Limits(self._target.deadline, quiet, "timeout")
        )
        if ended.status:
            raise self._failure("rsync", ended)
        problem = rsync.parse_changes(ended.text).replace(f"{folder}/", "", 1)
        return Checked("checksum", problem or home_problem(source, files))

    def get(self, folder: str, names: Sequence[str], into: str) -> None:
        self._get([f"{folder}/{name}" for name in names], into, folder)
        missing = [name for name in names if not os.path.isfile(os.path.join(into, name))]
        if missing:
            raise ToolError(f"{folder}/{missing[0]} is not there any more")

    def get_manifests(self, folders: Sequence[str], into: str) -> None:
        if folders:
            paths = [f"{folder}/{naming.MANIFEST_NAME}" for folder in folders]
            self._get(paths, into, "", f"--max-size={MAX_BYTES}")

    def delete(self, folder: str, names: Sequence[str]) -> None:
        if self._target.append_only:
            raise rsync.only_adds(self._target, "deleting copies")
        manifest = [name for name in names if name == naming.MANIFEST_NAME]
        if manifest:
            self._delete(folder, manifest, folder)
        # The rest goes with the folder itself, and with what rsync left there when it was killed.
        self._delete(folder, [name for name in names if name not in manifest], os.path.dirname(folder))

    # --- how ---

    def _get(self, paths: Sequence[str], into: str, folder: str, *more: str) -> None:
        if self._target.append_only:
            raise rsync.only_adds(self._target, "reading copies")
        inside = [path[len(folder) + 1 :] if folder else path for path in paths]
        place = rsync.place(self._target) + (f"{folder}/" if folder else "")
        options = ("--include-from=-", rsync.EXCLUDE_REST, *more, *rsync.GET_OPTIONS, place, f"{into}/")
        self._rsync(options, rsync.filters(inside))

    def _delete(self, folder: str, names: Sequence[str], keep: str) -> None:
        """Given a folder, files in it and the folder above which nothing may go, delete them, and what is empty then."""
        paths = [f"{folder}/{name}" for name in names]
        left_over = {f"{os.path.dirname(path)}/.*" for path in paths}
        rules = rsync.filters([*paths, *sorted(left_over)])
        with tempfile.TemporaryDirectory(prefix="pgkeep-empty-") as empty:
            os.makedirs(os.path.join(empty, keep))
            argv = rsync.rsync_argv(
                self._target,
                "--include-from=-",
                rsync.EXCLUDE_REST,
                *rsync.DELETE_OPTIONS,
                f"{empty}/",
                rsync.place(self._target),
            )
            ended = self._run(argv, rules)
        if "Operation not permitted" in ended.stderr:
            raise LockedCopyError(f"{folder} is held by the storage: {ended.stderr.splitlines()[0]}")
        if ended.status:
            raise self._failure("rsync", ended)
        left = sorted(set(self.files(folder)).intersection(paths))
        if left:
            raise ToolError(
                f"{left[0]} is still there after it was deleted: {ended.stderr or 'look at its owner and mode'}"
            )

    def _rsync(self, options: Sequence[str], stdin: str) -> None:
        ended = self._run(rsync.rsync_argv(self._target, *options), stdin)
        if ended.status:
            raise self._failure("rsync", ended)

    def _ask(self, command: str, stdin: str = "") -> Ended:
        """Given one of our own commands, have it done by the account that can only add; return what it answers."""
        ended = self._run((*rsync.ssh_argv(self._target), str(self._target.host), command), stdin)
        if ended.status:
            raise self._failure("ssh", ended)
        return ended

    def _run(self, argv: Sequence[str], stdin: str, limits: Limits | None = None) -> Ended:
        # rsync and ssh notice silence themselves; ours is for what they do not notice.
        within = limits or Limits(self._target.deadline, self._target.timeout * 2, "timeout")
        return run(argv, self._environment, within, self._cancellation, stdin.encode("utf-8", "surrogateescape"))

    def _failure(self, program: str, ended: Ended) -> PgkeepError:
        return rsync.failure(program, ended.status, ended.stderr, self._target)


def _base(source: str, folder: str) -> str:
    """Given a backup's directory and its id, which it ends with, return the directory above both."""
    base = source[: -len(folder)]
    if f"{base}{folder}" != source or not base.endswith("/"):
        raise ValueError(f"{source} does not end with {folder}")
    return base


def _lines(folder: str, names: Sequence[str]) -> str:
    return "".join(f"{folder}/{name}\n" for name in names)
