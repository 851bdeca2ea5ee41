# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key pairs of age and GnuPG for tests, made, and used to decrypt, with nothing but these programs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """One person's keys: what to encrypt for, and the file that decrypts."""

    method: str
    recipient: str  # as the option takes it
    identity: Path

    @property
    def encryption(self) -> dict[str, object]:
        """Return the options that encrypt for this pair alone."""
        return {"encryption": self.method, "recipients": [self.recipient]}


def make_pair(method: str, directory: Path, name: str, passphrase: str = "") -> Pair:
    """Given age or gpg, a directory and a name, make a pair of keys there."""
    identity = directory / f"{name}.{method}.identity"
    if method == "age":
        subprocess.run(["age-keygen", "--output", identity], capture_output=True, check=True)
        public = subprocess.run(["age-keygen", "-y", identity], capture_output=True, text=True, check=True)
        return Pair(method, public.stdout.strip(), identity)
    public_key = directory / f"{name}.pub"
    with gnupg() as home:
        # Elliptic curves, because a large RSA key takes long to be made.
        words = ("--passphrase", passphrase, "--quick-generate-key", f"{name} <{name}@example.com>", "future-default")
        run_gpg(home, *words, "default", "never")
        public_key.write_bytes(run_gpg(home, "--export", f"{name}@example.com"))
        secret = run_gpg(home, "--passphrase", passphrase, "--export-secret-keys", f"{name}@example.com")
    identity.touch(0o600)
    identity.write_bytes(secret)
    return Pair(method, str(public_key), identity)


@contextmanager
def gnupg() -> Iterator[Path]:
    """Yield a GnuPG home directory of its own; it is gone afterwards, and its agent has ended."""
    home = Path(tempfile.mkdtemp(prefix="gnupg-", dir="/tmp"))  # a socket's path has to be short
    try:
        yield home
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], capture_output=True, check=False)
        subprocess.run(["gpgconf", "--homedir", home, "--remove-socketdir"], capture_output=True, check=False)
        shutil.rmtree(home)


def run_gpg(home: Path, *words: str | Path, data: bytes | None = None) -> bytes:
    """Given a GnuPG home directory, arguments and perhaps input, run gpg and return its output."""
    command = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", *words]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def decrypted(file: Path, identity: Path) -> bytes:
    """Given a file that ends in .age or .gpg and an identity, return what `age -d` or `gpg -d` makes of it."""
    if file.suffix == ".age":
        return subprocess.run(["age", "-d", "-i", identity, file], capture_output=True, check=True).stdout
    with gnupg() as home:
        run_gpg(home, "--import", identity)
        return run_gpg(home, "-d", file)


def of_processes(words: Sequence[str]) -> Mapping[int, str]:
    """Given names of programs, return the command lines of the processes that run one, by number."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if line and Path(line[0].decode(errors="replace")).name in words:
            found[int(process.name)] = b" ".join(line).decode(errors="replace")
    return found
