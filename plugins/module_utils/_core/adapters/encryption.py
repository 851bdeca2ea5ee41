# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The programs that encrypt and decrypt, and the private keys, which never have a path on a disk of ours.

age gets its identity in an unnamed file. gpg needs a home directory and an agent: both are made in memory, and are gone
with us. A run that is killed has a watcher that removes the directory; what killed that as well is swept by the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from ..domain import encryption
from ..domain.encryption import Trouble, trouble
from ..domain.errors import ConfigurationError, DecryptionError, RepositoryError, ToolError
from ..domain.model import Decryption, EncryptionOptions
from .files import read_small, remove_tree, write_all
from .process import SEARCH_PATH, Process, Processes, memory_file

PREFIX = "pgkeep-keys-"
MEMORY = "/dev/shm"  # noqa: S108  (memory, and what we make there is ours alone)

_ENVIRONMENT = {"PATH": SEARCH_PATH, "HOME": "/", "LC_ALL": "C", "LANGUAGE": "C"}
_MAX_KEYS = 4 * 1024 * 1024  # bytes
_PATIENCE = 30  # seconds for a program that has little to do
_GRACE = 5  # seconds for an agent to end
_TICK = 0.02  # seconds
_PACKAGES = {"age": "age", "gpg": "gpg (RHEL: gnupg2)", "gpg-agent": "gpg-agent (RHEL: gnupg2)"}
_SAMPLE = b"pgkeep"


class _Said(NamedTuple):
    status: int
    out: bytes
    lines: list[str]


def _run(argv: Sequence[str], data: bytes = b"") -> _Said:
    """Given a command and its input, run it to its end; raise ToolError where it cannot be run."""
    try:
        done = subprocess.run(
            argv, env=_ENVIRONMENT, cwd="/", input=data, capture_output=True, timeout=_PATIENCE, check=False
        )
    except OSError as error:
        raise ToolError(f"{argv[0]} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ToolError(
            f"{argv[0]} did not end within {_PATIENCE} s: run again when this host has less to do"
        ) from None
    return _Said(done.returncode, done.stdout, done.stderr.decode(errors="replace").splitlines())


def _program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH_PATH)


# --- encrypting ---


@dataclass(frozen=True)
class Encryptor:
    """How a run encrypts."""

    method: str | None = None  # None: not at all
    command: tuple[str, ...] = ()
    fingerprint: str = ""  # another one as soon as there are other keys


@contextmanager
def encryptor(options: EncryptionOptions) -> Iterator[Encryptor]:
    """Given for whom to encrypt, yield how, tried out; raise ToolError or ConfigurationError where that does not go."""
    method = options.encryption
    if method == "none":
        yield Encryptor()
        return
    program = _program(method)
    if not program:
        raise ToolError(f"encryption {method} is not available on this host: install the package {_PACKAGES[method]}")
    if method == "age":
        yield _age(program, options.recipients)
        return
    keys = [_read_public(path) for path in options.recipients]
    with _home() as home:
        yield _gpg(program, home, options.recipients, keys)


def _age(program: str, recipients: Sequence[str]) -> Encryptor:
    version = _run((program, "--version")).out.decode(errors="replace").strip()
    if encryption.too_old(version):
        raise ToolError(f"age {version} is too old: install version 1.0 or newer")
    keys: list[str] = []
    for recipient in recipients:
        is_path = recipient.startswith("/")
        keys += (
            encryption.keys_of(_read_public(recipient).decode(errors="replace"), recipient) if is_path else [recipient]
        )
    command = encryption.age_encrypt(program, keys)
    done = _run(command, _SAMPLE)
    if done.status or not done.out:
        raise ToolError(f"age cannot encrypt for these recipients: {encryption.reason(done.lines)}: correct them")
    return Encryptor(
        "age", command, encryption.fingerprint("age", (" ".join(key.split()[:2]).encode() for key in keys))
    )


def _gpg(program: str, home: str, recipients: Sequence[str], keys: Sequence[bytes]) -> Encryptor:
    """Given gpg, a home directory, paths and the keys that are in them, return how to encrypt for these keys, whatever
    becomes of the files.
    """
    copies = []
    for number, (path, key) in enumerate(zip(recipients, keys)):
        copies.append(os.path.join(home, f"{number}.key"))
        fd = os.open(copies[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0):
            write_all(fd, key)
        _check_one_key(program, home, copies[-1], path)
    command = encryption.gpg_encrypt(program, home, copies)
    done = _run(command, _SAMPLE)
    if done.status or not done.out:
        why = encryption.reason(done.lines)
        for copy, path in zip(copies, recipients):
            why = why.replace(copy, path)
        raise ToolError(f"gpg cannot encrypt for these recipients: {why}: correct them")
    if not encryption.protects(done.lines):
        raise ToolError("gpg would encrypt without protection against changes: install GnuPG 2.2 or newer")
    return Encryptor("gpg", command, encryption.fingerprint("gpg", keys))


def _check_one_key(program: str, home: str, copy: str, path: str) -> None:
    done = _run(encryption.gpg_show(program, home, copy))
    public, private = encryption.listed_keys(done.out.decode(errors="replace"))
    if private:
        raise ConfigurationError(f"{path} has a private key, which does not belong on this host: export the public one")
    if public != 1:  # gpg would take the last one and leave the others out
        there = "no public key" if not public else f"{public} public keys, and gpg takes one from a file"
        raise ConfigurationError(f"{path} has {there}: write each with `gpg --export KEY` to a file of its own")


def _read_public(path: str) -> bytes:
    """Given the path of a file with public keys, return what is in it; raise ConfigurationError."""
    data, status = _read(path, "recipients")
    if status.st_mode & stat.S_IWOTH:
        raise ConfigurationError(f"everybody can replace the key in {path}: chmod o-w {path}")
    if encryption.is_private(data.decode(errors="replace")):
        raise ConfigurationError(f"{path} has a private key, which does not belong on this host: export the public one")
    return data


def _read(path: str, name: str) -> tuple[bytes, os.stat_result]:
    """Given a file that an option names, return what is in it and its status; raise ConfigurationError."""
    try:
        real = os.path.realpath(path)
        return read_small(real, _MAX_KEYS), os.stat(real)
    except (OSError, RepositoryError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{path} of {name} cannot be read: {why}: correct the path, or its rights") from None


# --- decrypting ---


class Keys:
    """The private keys of a run. Used as a context: what is made of them is gone afterwards.

    Make it before root is given up: the file may be root's alone.
    """

    def __init__(self, options: Decryption) -> None:
        """Given what decrypts, read it; raise ConfigurationError where it cannot be used, or others can read it."""
        self._path = options.identity_file
        self._secret: bytes | None = None  # None: there is no identity, or it is a directory
        self._home = ""  # that directory
        self._gnupg = ""  # the home directory that gpg uses, once there is one
        self._made = ExitStack()
        self._making = threading.Lock()
        if self._path is None:
            return
        with suppress(OSError):
            if stat.S_ISDIR(os.stat(self._path).st_mode):
                self._home = self._path
        if self._home:
            _check_private(self._path, os.stat(self._path))
        else:
            self._secret, status = _read(self._path, "identity_file")
            _check_private(self._path, status)

    def __enter__(self) -> Keys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.close()

    def start(self, processes: Processes, method: str, source: int) -> Process:
        """Given programs, an encryption and the descriptor of what is encrypted, start what writes it decrypted to its
        stdout, outside of any sandbox; raise DecryptionError.
        """
        program = self._check(method)
        if method == "age":
            if self._secret is None:
                raise DecryptionError(f"{self._path} is a directory: set identity_file to an identity file of age")
            fd = memory_file("identity", self._secret)
            try:
                return processes.start_outside(encryption.age_decrypt(program, f"/proc/self/fd/{fd}"), source, (fd,))
            finally:
                os.close(fd)
        with self._making:  # an archive is read for its proof at the same time
            if not self._gnupg:
                self._prepare(program)
        return processes.start_outside(encryption.gpg_decrypt(program, self._gnupg), source)

    def _check(self, method: str) -> str:
        if method not in _PACKAGES:
            raise DecryptionError(f"it is encrypted with {method}, which this pgkeep does not know: update pgkeep")
        if self._path is None:
            raise DecryptionError(
                f"it is encrypted with {method}, and no identity is set: set identity_file on the host that has the private"
                " key; only level checksum needs none"
            )
        program = _program(method)
        if not program:
            raise DecryptionError(
                f"it is encrypted with {method}, which is not here: install the package {_PACKAGES[method]}"
            )
        return program

    def _prepare(self, program: str) -> None:
        with ExitStack() as made:
            home = self._home or made.enter_context(_home())
            if not os.access(home, os.R_OK | os.X_OK):
                raise DecryptionError(f"{self._home} is closed to the user that owns the backups: change its owner")
            made.enter_context(_agent(home, remove=not self._home))
            if self._secret is not None:
                done = _run(encryption.gpg_import(program, home), self._secret)
                if not encryption.secret_keys(done.lines):
                    raise DecryptionError(
                        f"{self._path} has no private key that gpg can read: write it with `gpg --export-secret-keys KEY`"
                    )
            self._made, self._gnupg = made.pop_all(), home


def explain(method: str, process: Process) -> Trouble | None:
    """Given an encryption and the program that decrypted, wait for its end; return why it did not, as `trouble` does."""
    status = process.wait()
    if status < 0 and status != -signal.SIGPIPE:
        return Trouble(process.failure(status), False)
    return trouble(method, status, list(process.lines))


def _check_private(path: str, status: os.stat_result) -> None:
    if status.st_mode & 0o077:
        mode = "0700" if stat.S_ISDIR(status.st_mode) else "0600"
        raise ConfigurationError(
            f"{path} of identity_file has mode {stat.S_IMODE(status.st_mode):04o}, others can get at the private key:"
            f" chmod {mode} {path}"
        )


# --- GnuPG's home directory and its agent ---


@contextmanager
def _home() -> Iterator[str]:
    """Yield a new private directory in memory, which is gone afterwards; raise ToolError.

    It has its name once we hold its lock, which the kernel frees when we end: a sweep takes only what nobody holds.
    """
    sweep()
    try:
        unnamed = tempfile.mkdtemp(prefix=f".{PREFIX}", dir=MEMORY)
    except OSError as error:
        raise ToolError(f"gpg needs a directory in memory, and {MEMORY} cannot have one: {error.strerror}") from None
    path = os.path.join(MEMORY, os.path.basename(unnamed)[1:])
    fd = os.open(unnamed, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.rename(unnamed, path)
        yield path
    finally:
        _remove(path)
        os.close(fd)


def sweep() -> None:
    """Remove the private directories that killed runs of this user left in memory."""
    with suppress(OSError):
        for name in sorted(os.listdir(MEMORY)):
            if name.startswith(PREFIX):
                _sweep(os.path.join(MEMORY, name))


def _sweep(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # gone in the meantime, or another user's
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_uid == os.geteuid():
            _remove(path)
    except OSError:
        pass  # a run that lives
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    """Given a home directory, remove it and what GnuPG made for its sockets elsewhere; raise OSError."""
    gpgconf = _program("gpgconf")
    if gpgconf and os.path.isdir(path):
        with suppress(ToolError):
            _run((gpgconf, "--homedir", path, "--remove-socketdir"))
    with suppress(FileNotFoundError):
        remove_tree(path)


@contextmanager
def _agent(home: str, *, remove: bool) -> Iterator[None]:
    """Given a home directory, have an agent serve it, the one that does already or one that ends with us, and then,
    where we are killed, removes the directory if that was asked for; raise DecryptionError.
    """
    agent, gpgconf = _program("gpg-agent"), _program("gpgconf")
    if not agent or not gpgconf:
        raise DecryptionError(
            f"gpg decrypts with gpg-agent, which is not here: install the package {_PACKAGES['gpg-agent']}"
        )
    place = (
        _run((gpgconf, "--homedir", home, "--list-dirs", "agent-socket")).out.decode(errors="surrogateescape").strip()
    )
    if _answers(place):
        yield
        return
    # Not one of the programs that end with a thread: the thread that decrypts first may not be the last to do so.
    with subprocess.Popen(
        encryption.gpg_agent(agent, home),
        env=_ENVIRONMENT,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    ) as watcher:
        try:
            if remove and watcher.stdin:
                watcher.stdin.write(os.fsencode(home) + b"\0")
            until = time.monotonic() + _PATIENCE
            while not _answers(place):
                if _ended(watcher) or time.monotonic() > until:
                    raise DecryptionError(f"gpg-agent does not start for {home}: {_last_words(watcher)}")
                time.sleep(_TICK)
            yield
        finally:
            _last_words(watcher)


def _answers(place: str) -> bool:
    """Given the path of a socket, return whether somebody listens there."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_GRACE)
            client.connect(place)
            return True
    except (OSError, ValueError):
        return False


def _ended(watcher: subprocess.Popen[bytes]) -> bool:
    """Return whether the program has ended; it is not reaped, so that its group's number stays its own."""
    return os.waitid(os.P_PID, watcher.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _last_words(watcher: subprocess.Popen[bytes]) -> str:
    """Given the leader of an agent's process group, end the group; return what was said last."""
    said = b""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if watcher.returncode is None:
            os.killpg(watcher.pid, number)
        with suppress(subprocess.TimeoutExpired):
            said = watcher.communicate(timeout=_GRACE)[1]  # its end is that of the agent, too
            break
    return encryption.reason(said.decode(errors="replace").splitlines())
