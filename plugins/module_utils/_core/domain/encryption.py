# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Encryption: what recipients may be, the command lines of age and gpg, and what they mean when they fail.

A key that is not where it belongs may be a private one: no sentence here repeats what was written in its place.
"""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ConfigurationError
from .model import ENCRYPTIONS

OLDEST_AGE = (1, 0)  # before, its format was not final

_PUBLIC = re.compile(r"age1[0-9a-z_-]+|ssh-(ed25519|rsa) [A-Za-z0-9+/]+=*( [^\r\n]*)?")
_PRIVATE = re.compile(r"AGE-SECRET-KEY-|AGE-PLUGIN-|PRIVATE KEY", re.IGNORECASE)
_AGE_VERSION = re.compile(r"v?([0-9]+)\.([0-9]+)")
_EXPORTED = "`gpg --export KEY > FILE`"

# Nothing of a user's configuration and of what is trusted there counts, and no agent is started behind our back.
_GPG = ("--no-options", "--batch", "--no-tty", "--no-autostart", "--status-fd", "2")
_TRUSTING = (*_GPG, "--trust-model", "always")
_STATUS = "[GNUPG:] "
_SECRET_KEYS_READ = 9  # which number of the status IMPORT_RES says how many there were

_AGE_DAMAGE = re.compile(
    r"failed to (decrypt and authenticate|read header|parse header|read nonce|read stream)|bad header MAC"
    r"|trailing data|last chunk|unexpected EOF"
)
_AGE_IDENTITY = "age: error: reading "
_GPG_DAMAGE = ("BADMDC", "BADARMOR", "NODATA", "UNEXPECTED")
_OTHER_KEY = "it was encrypted for other keys than those of the identity: set identity_file to another one"
_PASSPHRASE = {
    "age": "the identity file has a passphrase, for which nobody is asked: write it without one, with `age --decrypt`",
    "gpg": (
        "the private key has a passphrase, for which nobody is asked: export it without one, or set identity_file to the"
        " GnuPG home directory of an agent that knows it"
    ),
}


# --- what a user may say ---


def method_of(raw: Mapping[str, Any]) -> str | None:
    """Given what a user wrote, of the right types, return the encryption; None where there is none."""
    said = raw.get("encryption")
    return None if said in (None, ENCRYPTIONS[0]) else str(said)


def problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Given what a user wrote, of the right types, yield a sentence for each thing that cannot be meant."""
    method, recipients = method_of(raw), raw.get("recipients") or ()
    if not method:
        if recipients:
            yield "recipients is set without encryption: set encryption to age or gpg, or leave recipients out"
        return
    if not recipients:
        yield f"encryption is {method}, and recipients names nobody who could decrypt: name the public keys"
    if raw.get("format") == "directory":
        yield (
            f"encryption is {method} and format is directory, whose files pg_dump writes itself, as they are: set format to"
            " custom"
        )
    for number, recipient in enumerate(recipients):
        problem = _recipient_problem(method, recipient)
        if problem:
            yield f"recipients[{number}] {problem}"


def _recipient_problem(method: str, recipient: str) -> str:
    if is_private(recipient):
        return "is a private key, which does not belong on this host: name its public key, and regard it as known to others"
    if recipient.startswith("/") or (method == "age" and _PUBLIC.fullmatch(recipient)):
        return ""
    if method == "age":
        return "is neither a public key of age or SSH nor the absolute path of a file with such keys"
    return f"is not the absolute path of a file with an exported public key: {_EXPORTED}"


def job_problems(job: Mapping[str, Any]) -> Iterator[str]:
    """Given a whole job, of the right types, yield what its schedules cannot do with encrypted backups."""
    if method_of(job) and not job.get("identity_file") and job.get("drill_schedule") != "never":
        yield (
            "backups are encrypted, and drill_schedule wants to restore them where no identity_file is set: set drill_schedule"
            " to never here, and drill where the private key is"
        )


def is_private(text: str) -> bool:
    """Given a text that should be a public key, return whether it is, or has in it, a private one."""
    return _PRIVATE.search(text) is not None


def keys_of(text: str, path: str) -> list[str]:
    """Given the text of a file of age's recipients and its path, return the keys; raise ConfigurationError."""
    if is_private(text):
        raise ConfigurationError(
            f"{path} has a private key, which does not belong on this host: write public keys alone"
        )
    lines = [line.strip() for line in text.splitlines()]
    found = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    wrong = [number for number, line in found if not _PUBLIC.fullmatch(line)]
    if wrong:
        raise ConfigurationError(f"{path}:{wrong[0]}: not a public key of age or SSH")
    if not found:
        raise ConfigurationError(f"{path} has no key: write a public key of age or SSH on each line")
    return [line for _number, line in found]


def fingerprint(method: str, keys: Iterable[bytes]) -> str:
    """Given a method and the public keys, return a word that is another one as soon as one of these is, in any order."""
    digests = sorted(hashlib.sha256(key).digest() for key in keys)
    return f"{method}:{hashlib.sha256(b''.join(digests)).hexdigest()[:32]}"


def too_old(version: str) -> bool:
    """Given what `age --version` prints, return whether it is too old; one that it does not know itself is not."""
    found = _AGE_VERSION.match(version.strip())
    return found is not None and (int(found[1]), int(found[2])) < OLDEST_AGE


# --- command lines ---


def age_encrypt(program: str, keys: Sequence[str]) -> tuple[str, ...]:
    """Given age's path and public keys, return the command that encrypts stdin for them, to stdout."""
    return (program, "--encrypt", *(word for key in keys for word in ("--recipient", key)))


def age_decrypt(program: str, identity: str) -> tuple[str, ...]:
    """Given age's path and that of an identity file, return the command that decrypts stdin, to stdout."""
    return (program, "--decrypt", "--identity", identity)


def gpg_encrypt(program: str, home: str, keys: Sequence[str]) -> tuple[str, ...]:
    """Given gpg's path, a home directory and the paths of exported keys, return the command that encrypts stdin for
    them, to stdout. What is compressed already is not compressed again.
    """
    chosen = ("--compress-algo", "none", "--cipher-algo", "AES256")
    recipients = (word for key in keys for word in ("--recipient-file", key))
    return (program, "--homedir", home, *_TRUSTING, *chosen, *recipients, "--encrypt")


def gpg_show(program: str, home: str, path: str) -> tuple[str, ...]:
    """Given gpg's path, a home directory and a file, return the command that lists the keys in it for a program."""
    return (program, "--homedir", home, *_GPG, "--with-colons", "--show-keys", path)


def gpg_import(program: str, home: str) -> tuple[str, ...]:
    """Given gpg's path and a home directory, return the command that takes keys from stdin into it."""
    return (program, "--homedir", home, *_TRUSTING, "--import")


def gpg_decrypt(program: str, home: str) -> tuple[str, ...]:
    """Given gpg's path and a home directory with the keys, return the command that decrypts stdin, to stdout."""
    return (program, "--homedir", home, *_TRUSTING, "--pinentry-mode", "error", "--decrypt")


def gpg_agent(program: str, home: str) -> tuple[str, ...]:
    """Given the path of gpg-agent and a home directory, return the command that serves this directory until its stdin
    ends, and then removes the directories that were written to its stdin, each ended by a NUL character.

    That end comes when we close the pipe or end ourselves, however that happens: a killed run leaves no key behind.
    """
    agent = (program, "--homedir", home, "--disable-scdaemon", "--no-detach", "--daemon")
    return (*agent, "--", "xargs", "--null", "--no-run-if-empty", "rm", "-rf", "--")


# --- what they say ---


def listed_keys(said: str) -> tuple[int, int]:
    """Given what gpg lists of a file, return how many public and how many private keys are in it."""
    kinds = [line.partition(":")[0] for line in said.splitlines()]
    return kinds.count("pub"), kinds.count("sec")


def protects(lines: Iterable[str]) -> bool:
    """Given the lines of a gpg that encrypted, return whether a change of what it wrote will be noticed."""
    words = next((line.split() for line in lines if line.startswith(f"{_STATUS}BEGIN_ENCRYPTION ")), [])
    return len(words) > 4 or (len(words) > 2 and words[2] != "0")  # the cipher's own way, or a hash beside the data


def secret_keys(lines: Iterable[str]) -> int:
    """Given the lines of a gpg that imported keys, return how many of these were private ones."""
    found = next((line.split()[2:] for line in lines if line.startswith(f"{_STATUS}IMPORT_RES ")), [])
    return int(found[_SECRET_KEYS_READ]) if len(found) > _SECRET_KEYS_READ else 0


def reason(lines: Sequence[str], unsaid: str = "it said nothing") -> str:
    """Given the lines of a program that failed, return why, for people; `unsaid` where it does not say."""
    told = [line for line in lines if not line.startswith(_STATUS) and "unhelpful errors" not in line]
    return "; ".join(told[-3:]) or unsaid


@dataclass(frozen=True)
class Trouble:
    """Why something was not decrypted, and whether that is because of what was to be decrypted."""

    text: str
    damaged: bool


def trouble(method: str, status: int, lines: Sequence[str]) -> Trouble | None:
    """Given how age or gpg ended and what it said, return why it did not decrypt; None where it did, or where whoever
    took what came of it did not want any more.
    """
    if status == -signal.SIGPIPE or any("roken pipe" in line for line in lines):
        return None
    return _age_trouble(status, lines) if method == "age" else _gpg_trouble(status, lines)


def _age_trouble(status: int, lines: Sequence[str]) -> Trouble | None:
    if not status:
        return None
    said = reason(lines)
    if "passphrase" in said:
        return Trouble(_PASSPHRASE["age"], False)
    if said.startswith(_AGE_IDENTITY):
        return Trouble("the identity file cannot be used: set identity_file to one of age, or to an SSH key", False)
    if "no identity matched" in said:
        return Trouble(_OTHER_KEY, False)
    damaged = _AGE_DAMAGE.search(said) is not None
    return Trouble(said if damaged else f"age failed (status {status}): {said}", damaged)


def _gpg_trouble(status: int, lines: Sequence[str]) -> Trouble | None:
    told = [words for words in (line[len(_STATUS) :].split() for line in lines if line.startswith(_STATUS)) if words]
    words = {item[0] for item in told}
    if status >= 0 and not words.isdisjoint(_GPG_DAMAGE):
        about = [line for line in lines if "encrypted with" not in line and not line.startswith(" ")]
        return Trouble(reason(about, "it is not what gpg wrote"), True)
    if not status:
        return None if "DECRYPTION_OKAY" in words else Trouble("it is not encrypted", True)
    if status > 0 and "DECRYPTION_INFO" in words:  # a key was found, so it is the data
        return Trouble(reason(lines), True)
    if any("No pinentry" in line or "assphrase" in line for line in lines):
        return Trouble(_PASSPHRASE["gpg"], False)
    if "NO_SECKEY" in words:
        return Trouble(_OTHER_KEY, False)
    return Trouble(f"gpg failed (status {status}): {reason(lines)}", False)
