# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import signal
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import encryption
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.job import combination_problems
from hypothesis import given
from hypothesis import strategies as st

AGE = "age1u3kfrwkg90thrdh7kmv93xeh4y7sgjfc4rcj8dcv56ac0ku7cyjsgse838"
SECRET = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2Jhcg== somebody@host"
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk="


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({}, ""),
        ({"encryption": "none"}, ""),
        ({"encryption": "age", "recipients": [AGE, SSH, "/etc/pgkeep/keys/vault"]}, ""),
        ({"encryption": "age", "recipients": ["age1yubikey1q2w3e4r5t"], "format": "tar"}, ""),
        ({"encryption": "gpg", "recipients": ["/etc/pgkeep/keys/vault"]}, ""),
        ({"recipients": [AGE]}, "recipients is set without encryption"),
        ({"encryption": "none", "recipients": [AGE]}, "recipients is set without encryption"),
        ({"encryption": "age"}, "recipients names nobody who could decrypt"),
        ({"encryption": "gpg", "recipients": []}, "recipients names nobody who could decrypt"),
        ({"encryption": "age", "recipients": [AGE], "format": "directory"}, "format is directory"),
        ({"encryption": "age", "recipients": [AGE, "keys/vault"]}, "recipients[1] is neither a public key"),
        ({"encryption": "age", "recipients": [""]}, "recipients[0] is neither a public key"),
        ({"encryption": "age", "recipients": [f"{AGE}\n{AGE}"]}, "recipients[0] is neither a public key"),
        ({"encryption": "age", "recipients": ["--help"]}, "recipients[0] is neither a public key"),
        ({"encryption": "gpg", "recipients": ["somebody@example.com"]}, "`gpg --export KEY > FILE`"),
        ({"encryption": "gpg", "recipients": [AGE]}, "`gpg --export KEY > FILE`"),
    ],
)
def test_what_cannot_be_meant_is_said(said: dict[str, Any], problem: str) -> None:
    found = combination_problems(said)
    assert len(found) == bool(problem)
    assert problem in "".join(found)


@given(st.sampled_from(("age", "gpg")), st.sampled_from((SECRET, SECRET.lower(), PEM, f" {SECRET}", f"/x{SECRET}")))
def test_a_private_key_is_refused_and_not_repeated(method: str, key: str) -> None:
    (said,) = encryption.problems({"encryption": method, "recipients": [key]})
    assert said.startswith("recipients[0] is a private key")
    assert not any(word.lower() in said.lower() for word in ("QQQQ", "b3BlbnN"))


@given(st.text(max_size=80))
def test_whatever_is_no_recipient_is_not_repeated(text: str) -> None:
    (said,) = encryption.problems({"encryption": "age", "recipients": [f"*{text}"]})
    assert said in (
        "recipients[0] is neither a public key of age or SSH nor the absolute path of a file with such keys",
        "recipients[0] is a private key, which does not belong on this host: name its public key, and regard it as known"
        " to others",
    )


def test_a_job_drills_only_where_the_key_is() -> None:
    job = {"encryption": "age", "recipients": [AGE]}
    assert "set drill_schedule to never" in "".join(encryption.job_problems(job))
    assert "set drill_schedule to never" in "".join(encryption.job_problems({**job, "drill_schedule": "weekly"}))
    for fine in ({"drill_schedule": "never"}, {"identity_file": "/root/identity"}, {"encryption": "none"}):
        assert list(encryption.job_problems({**job, **fine})) == []
    assert list(encryption.job_problems({})) == []


def test_a_file_of_recipients_is_read_line_by_line() -> None:
    assert encryption.keys_of(f"# ours\n\n  {AGE}\r\n{SSH}\n", "/keys") == [AGE, SSH]
    for text, problem in ((f"{AGE}\nfoo\n", "/keys:2: not a public key"), ("# none\n", "/keys has no key")):
        with pytest.raises(ConfigurationError, match=problem):
            encryption.keys_of(text, "/keys")
    for text in (f"{AGE}\n{SECRET}\n", f"# {SECRET}\n", PEM):
        with pytest.raises(ConfigurationError, match="/keys has a private key") as caught:
            encryption.keys_of(text, "/keys")
        assert "QQQQ" not in str(caught.value)


KEYS = st.lists(st.binary(min_size=1), min_size=1, max_size=4, unique=True)


@given(KEYS, KEYS)
def test_other_keys_have_another_fingerprint_and_their_order_is_nothing(one: list[bytes], two: list[bytes]) -> None:
    found = encryption.fingerprint("age", one)
    assert found == encryption.fingerprint("age", one[::-1])
    assert (found == encryption.fingerprint("age", two)) == (set(one) == set(two))
    assert found != encryption.fingerprint("gpg", one)
    assert re.fullmatch("age:[0-9a-f]{32}", found)


@pytest.mark.parametrize(
    ("said", "old"),
    [
        ("v0.9.9", True), ("1.0.0-rc1", False), ("v1.0.0", False), ("1.1.1", False), ("v2.0.0", False), ("(devel)", False),
        ("", False),
    ],
)  # fmt: skip
def test_an_age_whose_format_was_not_final_is_too_old(said: str, old: bool) -> None:
    assert encryption.too_old(f"{said}\n") == old


def test_the_command_lines_are_these() -> None:
    assert encryption.age_encrypt("/a", ["k1", "k2"]) == ("/a", "--encrypt", "--recipient", "k1", "--recipient", "k2")
    assert encryption.age_decrypt("/a", "/i") == ("/a", "--decrypt", "--identity", "/i")
    common = ("/g", "--homedir", "/h", "--no-options", "--batch", "--no-tty", "--no-autostart", "--status-fd", "2")
    trusting = (*common, "--trust-model", "always")
    assert encryption.gpg_encrypt("/g", "/h", ["/k1", "/k2"]) == (
        *trusting, "--compress-algo", "none", "--cipher-algo", "AES256", "--recipient-file", "/k1", "--recipient-file", "/k2",
        "--encrypt",
    )  # fmt: skip
    assert encryption.gpg_decrypt("/g", "/h") == (*trusting, "--pinentry-mode", "error", "--decrypt")
    assert encryption.gpg_import("/g", "/h") == (*trusting, "--import")
    assert encryption.gpg_show("/g", "/h", "/k") == (*common, "--with-colons", "--show-keys", "/k")
    assert encryption.gpg_agent("/a", "/h")[:6] == (
        "/a",
        "--homedir",
        "/h",
        "--disable-scdaemon",
        "--no-detach",
        "--daemon",
    )


@pytest.mark.parametrize(
    ("line", "protected"),
    [
        ("[GNUPG:] BEGIN_ENCRYPTION 2 9", True),
        ("[GNUPG:] BEGIN_ENCRYPTION 0 9 2", True),  # AEAD
        ("[GNUPG:] BEGIN_ENCRYPTION 0 9", False),
        ("gpg: something", False),
    ],
)
def test_encryption_without_protection_against_changes_is_noticed(line: str, protected: bool) -> None:
    assert encryption.protects(["[GNUPG:] KEY_CONSIDERED X 0", line]) == protected


OTHER_KEY = "it was encrypted for other keys"
INFO = "[GNUPG:] DECRYPTION_INFO 2 9 0"
FAILED = "[GNUPG:] DECRYPTION_FAILED"


@pytest.mark.parametrize(
    ("method", "status", "lines", "damaged", "words"),
    [
        ("age", 1, ["age: error: failed to decrypt and authenticate payload chunk"], True, "payload chunk"),
        ("age", 1, ["age: error: failed to read header: parsing age header: unexpected intro"], True, "intro"),
        ("age", 1, ["age: error: failed to read header: bad header MAC"], True, "MAC"),
        ("age", 1, ["age: error: no identity matched any of the recipients", "age: report unexpected or unhelpful errors at X"],
         False, OTHER_KEY),
        ("age", 1, ['age: error: reading "/i": failed to read "/i": error at line 1: unknown identity type'], False,
         "the identity file cannot be used"),
        ("age", 1, ['age: error: reading "/i": unexpected EOF'], False, "the identity file cannot be used"),
        ("age", 1, ["age: error: could not read passphrase: no terminal"], False, "has a passphrase"),
        ("age", 2, [], False, "age failed (status 2): it said nothing"),
        ("gpg", 2, [INFO, "gpg: WARNING: encrypted message has been manipulated!", "[GNUPG:] BADMDC", FAILED], True,
         "manipulated"),
        ("gpg", 2, [INFO, FAILED, "gpg: decryption failed: Checksum error"], True, "Checksum"),
        ("gpg", 0, ["[GNUPG:] NODATA 3"], True, "it is not what gpg wrote"),
        ("gpg", 0, ["[GNUPG:] PLAINTEXT 62 1795596770 "], True, "it is not encrypted"),
        ("gpg", 0, [], True, "it is not encrypted"),
        ("gpg", 2, ["[GNUPG:] NO_SECKEY 43", FAILED, "gpg: decryption failed: No secret key"], False, OTHER_KEY),
        ("gpg", 2, ["gpg: public key decryption failed: No pinentry", "[GNUPG:] NO_SECKEY 43", FAILED], False,
         "has a passphrase"),
        ("gpg", 2, ["gpg: fatal: something"], False, "gpg failed (status 2): gpg: fatal: something"),
    ],
)  # fmt: skip
def test_a_damaged_archive_and_a_host_that_cannot_decrypt_are_told_apart(
    method: str, status: int, lines: list[str], damaged: bool, words: str
) -> None:
    found = encryption.trouble(method, status, lines)
    assert found is not None
    assert found.damaged == damaged
    assert words in found.text
    assert "GNUPG" not in found.text


def test_what_decrypts_well_or_is_not_wanted_any_more_is_no_trouble() -> None:
    assert encryption.trouble("age", 0, []) is None
    assert encryption.trouble("gpg", 0, [INFO, "[GNUPG:] DECRYPTION_OKAY", "[GNUPG:] GOODMDC"]) is None
    for method in ("age", "gpg"):
        assert encryption.trouble(method, -signal.SIGPIPE, []) is None
        assert encryption.trouble(method, 2, ["gpg: error writing: Broken pipe"]) is None


def test_what_gpg_says_of_keys_is_counted() -> None:
    assert encryption.listed_keys("pub:-:255:\nsub:-:\npub:e:\nsec:u:\nssb:\n") == (2, 1)
    said = ["gpg: x", "[GNUPG:] IMPORT_RES 1 0 1 0 0 0 0 0 0 3 1 0 0 0 0"]
    assert encryption.secret_keys(said) == 3
    assert encryption.secret_keys(said[:1]) == 0
