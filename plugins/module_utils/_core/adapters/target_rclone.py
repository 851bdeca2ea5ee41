# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A target that rclone speaks to: S3 and everything alike, and whatever else it knows.

In a store with versions deleting a copy only hides it: the store's own lifecycle rules take the versions away. What an
object lock holds is reported as such, and is no failure of the copies.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any

from ..domain import naming, rclone
from ..domain.errors import ConfigurationError, LockedCopyError, PgkeepError, ToolError
from ..domain.model import Target
from ..domain.targets import silence
from .archive import File
from .files import CHUNK
from .process import SEARCH_PATH, Cancellation, Limits, Process
from .programs import Ended, run
from .remote import Checked, altered_at_home, home_problem

# What leads to the store through a network of somebody's, and nothing that could name another store.
_TAKEN_OVER = (
    "HOME", "SSH_AUTH_SOCK", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
_READERS = 4  # pieces that are read back at a time
_NOT_THERE = 3  # rclone's exit code for a directory that does not exist
_CONFIG_LIMIT = 1024 * 1024


class Rclone:
    """A place that rclone speaks to, as a Remote."""

    def __init__(self, target: Target, cancellation: Cancellation, config: str) -> None:
        """Given the target, what asks the work to end, and the text of rclone's configuration."""
        self._target, self._cancellation = target, cancellation
        self._secrets = rclone.secrets(config)
        self._environment = {
            "PATH": SEARCH_PATH,
            "LC_ALL": "C",
            "RCLONE_S3_NO_CHECK_BUCKET": "true",  # a key that may only write cannot make buckets, nor ask for one
            "RCLONE_SFTP_SKIP_LINKS": "true",  # as on a disk of this host
            **{name: os.environ[name] for name in _TAKEN_OVER if name in os.environ},
        }
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._digests: dict[str, Future[Mapping[str, str]]] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """End what still runs."""
        self._closed.set()
        self._hasher.shutdown()

    # --- Remote ---

    def files(self, below: str = "") -> dict[str, int]:
        prefix = f"{below}/" if below else ""
        return {f"{prefix}{path}": int(item["Size"]) for path, item in self._listed(below).items()}

    def put(self, source: str, folder: str, names: Sequence[str]) -> None:
        there = self._listed(folder)
        missing = [name for name in names if name not in there]
        if not missing:
            return
        if self._hash:
            for name in missing:
                self._begin_digest(os.path.join(source, name))
        if self._has_buckets or not self._can_move:
            self._copy(source, rclone.place(self._target, folder), missing)
            return
        # Others write under the final name from the first byte on. What was cut short there would stay for ever.
        staging = rclone.place(self._target, rclone.STAGING)
        waiting = f"{staging}/{folder}"
        self._do("purge", waiting, missing_is_fine=True)
        self._copy(source, waiting, missing)
        if not self._add("move", waiting, rclone.place(self._target, folder), missing):
            self._do("purge", waiting, missing_is_fine=True)
        self._do("rmdirs", staging, missing_is_fine=True)

    def check(self, source: str, folder: str, files: Sequence[File]) -> Checked:
        quiet = silence(sum(file.size for file in files), self._target.timeout)
        there = self._listed(folder, self._hash, quiet)
        for file in files:
            problem = _size_problem(file, there.get(file.path))
            if problem:
                return Checked("size", problem)
        by_hash = self._hash_problem(source, files, there)
        if by_hash or self._hash == "sha256":
            return Checked(self._hash, by_hash)
        if self._target.read_back == "full":
            return Checked("sha256", self._whole_problem(folder, files))
        small = [file for file in files if file.size <= rclone.WHOLE]
        large = [file for file in files if file.size > rclone.WHOLE]
        untold = [file for file in files if not (self._hash and _told(there[file.path], self._hash))]
        problem = (
            self._whole_problem(folder, small)
            or self._sample_problem(source, folder, large)
            or home_problem(source, [file for file in large if file in untold])
        )
        return Checked("sample" if untold else f"{self._hash}+sample", problem)

    def get(self, folder: str, names: Sequence[str], into: str) -> None:
        self._fetch(folder, names, into)
        missing = [name for name in names if not os.path.isfile(os.path.join(into, name))]
        if missing:
            raise ToolError(f"{folder}/{missing[0]} is not there any more")

    def get_manifests(self, folders: Sequence[str], into: str) -> None:
        self._fetch("", [f"{folder}/{naming.MANIFEST_NAME}" for folder in folders], into)

    def delete(self, folder: str, names: Sequence[str]) -> None:
        place = rclone.place(self._target, folder)
        there = self._listed(folder)
        if naming.MANIFEST_NAME in names and naming.MANIFEST_NAME in there:
            self._do("deletefile", f"{place}/{naming.MANIFEST_NAME}")
        rest = [name for name in names if name in there and name != naming.MANIFEST_NAME]
        if rest:
            self._do("delete", "--files-from-raw=-", place, stdin=_lines(rest))
        if not self._has_buckets:
            self._do("rmdirs", place, missing_is_fine=True)
        left = sorted(set(self._listed(folder)).intersection(names))
        if left:
            raise LockedCopyError(f"{folder}/{left[0]} is still there: {self._target.remote} holds on to it")

    # --- how ---

    @cached_property
    def _features(self) -> tuple[bool, bool, tuple[str, ...]]:
        return rclone.parse_features(self._do("backend", "features", rclone.place(self._target)).text)

    @property
    def _has_buckets(self) -> bool:
        return self._features[0]

    @property
    def _can_move(self) -> bool:
        return self._features[1]

    @property
    def _hash(self) -> str:
        return rclone.best_hash(self._features[2])

    def _listed(self, folder: str, hash_name: str = "", stall: timedelta | None = None) -> dict[str, dict[str, Any]]:
        options = ("--hash", f"--hash-type={hash_name}") if hash_name else ()
        words = (*rclone.LIST_OPTIONS, *options, rclone.place(self._target, folder))
        ended = self._run(rclone.rclone_argv(self._target, "lsjson", *words), "", stall)
        if ended.status == _NOT_THERE and not self._has_buckets:
            return {}
        if ended.status == _NOT_THERE:
            raise ConfigurationError(
                f"the bucket {rclone.bucket(self._target)} is not there: create it; it is never made here"
            )
        if ended.status:
            raise self._failure(ended)
        return rclone.parse_listing(ended.text)

    def _copy(self, source: str, place: str, names: Sequence[str]) -> None:
        self._add("copy", source, place, names)

    def _add(self, how: str, source: str, place: str, names: Sequence[str]) -> bool:
        """Given copy or move, and what to do it with, add the files; return whether none of the names was taken."""
        ended = self._run(rclone.rclone_argv(self._target, how, *rclone.COPY_OPTIONS, source, place), _lines(names))
        if ended.status and not rclone.only_stays(ended.stderr):
            raise self._failure(ended)
        return ended.status == 0

    def _fetch(self, folder: str, names: Sequence[str], into: str) -> None:
        if not names:
            return
        self._do("copy", *rclone.FETCH_OPTIONS, rclone.place(self._target, folder), into, stdin=_lines(names))
        for name in names:
            path = os.path.join(into, name)
            if os.path.isfile(path):
                os.chmod(path, 0o600)

    def _do(self, *words: str, stdin: str = "", missing_is_fine: bool = False) -> Ended:
        ended = self._run(rclone.rclone_argv(self._target, *words), stdin)
        if ended.status and not (missing_is_fine and ended.status == _NOT_THERE):
            raise self._failure(ended)
        return ended

    def _run(self, argv: Sequence[str], stdin: str, stall: timedelta | None = None) -> Ended:
        limits = Limits(self._target.deadline, stall or self._target.timeout * 2, "timeout")
        data = stdin.encode("utf-8", "surrogateescape")
        return run(argv, self._environment, limits, self._cancellation, data, counter=_counter)

    def _failure(self, ended: Ended) -> PgkeepError:
        return rclone.failure(ended.status, ended.stderr, self._target, self._secrets)

    # --- what is compared ---

    def _begin_digest(self, path: str) -> None:
        if path not in self._digests:
            self._digests[path] = self._hasher.submit(_digests, path, self._hash, self._closed)

    def _hash_problem(self, source: str, files: Sequence[File], there: Mapping[str, Mapping[str, Any]]) -> str:
        """Given files at home and what the target says of them, return what is wrong by the target's own checksum."""
        for file in files:
            told = _told(there[file.path], self._hash) if self._hash else ""
            if not told:
                continue
            if self._hash != "sha256":
                path = os.path.join(source, file.path)
                self._begin_digest(path)
                own = self._digests.pop(path).result()
                if own["sha256"] != file.sha256:
                    return altered_at_home(file)
            if told != (file.sha256 if self._hash == "sha256" else own[self._hash]):
                return f"{file.path} was altered: its {self._hash.upper()} differs"
        return ""

    def _whole_problem(self, folder: str, files: Sequence[File]) -> str:
        """Given files, read all of them back; return what is wrong with the first, or ""."""
        if not files:
            return ""
        words = ("hashsum", "SHA256", "--download", "--files-from-raw=-", rclone.place(self._target, folder))
        ended = self._run(rclone.rclone_argv(self._target, *words), _lines([file.path for file in files]))
        if "unknown flag" in ended.stderr:  # before 1.56
            sums = {file.path: self._sha256(folder, file.path) for file in files}
        elif ended.status:
            raise self._failure(ended)
        else:
            sums = rclone.parse_sums(ended.text)
        for file in files:
            if sums.get(file.path) != file.sha256:
                return f"{file.path} was altered: its SHA-256 is not the manifest's"
        return ""

    def _sha256(self, folder: str, name: str) -> str:
        digest = hashlib.sha256()
        argv = rclone.rclone_argv(self._target, "cat", rclone.place(self._target, f"{folder}/{name}"))
        limits = Limits(self._target.deadline, self._target.timeout * 2, "timeout")
        ended = run(argv, self._environment, limits, self._cancellation, seen=digest.update, counter=_counter)
        if ended.status:
            raise self._failure(ended)
        return digest.hexdigest()

    def _sample_problem(self, source: str, folder: str, files: Sequence[File]) -> str:
        """Given large files, read pieces of each back; return what is wrong with the first, or ""."""
        wanted = [
            (file, place)
            for file in files
            for place in rclone.places(file.size, secrets.randbelow, max(1, rclone.PLACES * 8 // max(8, len(files))))
        ]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="sample") as readers:
            found = [readers.submit(self._piece_problem, source, folder, file, *place) for file, place in wanted]
            try:
                return next((item for item in (future.result() for future in found) if item), "")
            finally:
                for future in found:
                    future.cancel()

    def _piece_problem(self, source: str, folder: str, file: File, offset: int, count: int) -> str:
        place = rclone.place(self._target, f"{folder}/{file.path}")
        ended = self._do("cat", f"--offset={offset}", f"--count={count}", place)
        with open(os.path.join(source, file.path), "rb", buffering=0) as here:
            if os.pread(here.fileno(), count, offset) != ended.stdout:
                return f"{file.path} was altered: what it has from byte {offset} on differs"
        return ""


@contextmanager
def connected(target: Target, cancellation: Cancellation) -> Iterator[Rclone]:
    """Given a target and what asks the work to end, yield it ready for use; raise ConfigurationError."""
    text = _configuration(str(target.config_file))
    problem = rclone.config_problem(text, target)
    if problem:
        raise ConfigurationError(problem)
    remote = Rclone(target, cancellation, text)
    try:
        yield remote
    finally:
        remote.close()


def _configuration(path: str) -> str:
    """Given the path of rclone's configuration, return its text; raise ConfigurationError where others can read it."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_CONFIG_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigurationError(f"config_file {path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"config_file {path} has credentials, and others may use it: chmod 0600 {path}")
    return text


def _counter(process: Process) -> int:
    return rclone.moved(process.last)


def _lines(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def _size_problem(file: File, item: Mapping[str, Any] | None) -> str:
    if item is None:
        return f"{file.path} is missing"
    return "" if item["Size"] == file.size else f"{file.path} has {item['Size']} bytes instead of {file.size}"


def _told(item: Mapping[str, Any], name: str) -> str:
    """Given what the target says of a file, return its checksum, or ""; after an upload in parts some have none."""
    return str((item.get("Hashes") or {}).get(name, ""))


def _digests(path: str, name: str, closed: threading.Event) -> Mapping[str, str]:
    """Given a file and the checksum that the target tells, return that one and the SHA-256 of the file."""
    found = {"sha256": hashlib.sha256()}
    if name != "sha256":
        found[name] = hashlib.new(name, usedforsecurity=False)
    with open(path, "rb", buffering=0) as file:
        while True:
            data = file.read(CHUNK)
            if not data or closed.is_set():
                return {key: digest.hexdigest() for key, digest in found.items()}
            for digest in found.values():
                digest.update(data)
