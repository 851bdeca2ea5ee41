# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encrypted backups: the plain tools get the data back, nothing is written as it is, and no key is where it may not be."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import catalog, encryption
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import Cancellation
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import (
    ConfigurationError,
    DecryptionError,
    PgkeepError,
    RepositoryError,
    ToolError,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.recovery_commands import IDENTITY
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.restore import Restored, contents, restore
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.runbook import runbook
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import Verified, verify

from tests.integration.samples import Engine, bytes_of, make_sample, manifest
from tests.integration.samples import contents as contents_of
from tests.integration.test_runbook import blocks
from tests.keeper import Keeper, finish, until, write_job
from tests.keys import Pair, decrypted, gnupg, make_pair, of_processes, run_gpg
from tests.playbook import run_tasks
from tests.postgres import Installation, Server, quote_identifier

FreshDatabase = Callable[..., str]
METHODS = ("age", "gpg")
UNPACK = {".zst": "zstd", ".gz": "gzip", ".lz4": "lz4"}
MARKER = "Krypto-Marke-4711"

pytestmark = pytest.mark.needs_programs("age", "gpg", "gpg-agent")


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, dict[str, Pair]]]:
    """Two key pairs of each method, the operators' and one that is kept elsewhere, where every user can get at them."""
    directory = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    directory.chmod(0o755)
    os.umask(0o022)  # the engine of a test before may have narrowed it
    yield {method: {name: make_pair(method, directory, name) for name in ("daily", "vault")} for method in METHODS}
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def database(debian_server: Server) -> str:
    """The sample, of which nothing here changes anything."""
    return make_sample(debian_server, "encrypted")


@pytest.fixture
def target(debian_server: Server) -> Iterator[str]:
    name = f"decrypted_{os.urandom(4).hex()}"
    yield name
    debian_server.psql(f"DROP DATABASE IF EXISTS {quote_identifier(name)} WITH (FORCE)")


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """No directory with keys is left in memory, and no agent that serves one."""
    yield
    until(lambda: not list(Path(encryption.MEMORY).glob(f"*{encryption.PREFIX}*")), "nothing is left in memory")
    until(lambda: not [line for line in of_processes(("gpg-agent",)).values() if encryption.PREFIX in line], "no agent")


def archive(item: Backup) -> Path:
    return Path(item.path, manifest(item)["files"][0]["path"])


def reread(item: Backup) -> Backup:
    found = catalog.read_backup(item.path, item.id)
    assert isinstance(found, Backup)
    return found


def verified(engine: Engine, **more: Any) -> Verified:
    return verify({"repository": str(engine.repository), **more}, False, engine.clock)


def restored(engine: Engine, target: str | None, check: bool = False, **more: Any) -> Restored:
    server = engine.server
    place = {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "bin_dir": str(server.bindir)}
    raw = {"repository": str(engine.repository), **place, "target": target, **more}
    return restore({name: value for name, value in raw.items() if value is not None}, check, engine.clock)


def plaintext(item: Backup, pair: Pair) -> bytes:
    """Given a backup and a pair, return what pg_dump wrote, with the plain tools alone."""
    file = archive(item)
    data = decrypted(file, pair.identity)
    program = UNPACK.get(Path(file.stem).suffix)
    return subprocess.run([program, "-dc"], input=data, capture_output=True, check=True).stdout if program else data


# --- the plain tools are enough ---


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("form", "compression", "suffix"),
    [
        ("custom", "gzip:1", ".dump"),
        ("custom", "zstd:1", ".dump.zst"),  # pg_dump 15 has no zstd inside
        ("plain", "none", ".sql"),
        ("plain", "zstd:1", ".sql.zst"),
        ("tar", "none", ".tar"),
        ("tar", "gzip:1", ".tar.gz"),
    ],
)
def test_either_key_decrypts_with_the_plain_tool_and_the_plain_tool_restores(
    engine: Engine,
    database: str,
    fresh_database: FreshDatabase,
    pairs: dict[str, dict[str, Pair]],
    target: str,
    form: str,
    compression: str,
    suffix: str,
    method: str,
) -> None:
    daily, vault = pairs[method].values()
    recipients = [daily.recipient, vault.recipient]
    taken = engine.take_one(database, format=form, compression=compression, encryption=method, recipients=recipients)
    document = manifest(taken)
    assert document["encryption"] == method
    assert archive(taken).name == Path(taken.path).name + suffix + f".{method}"
    assert hashlib.sha256(archive(taken).read_bytes()).hexdigest() == document["files"][0]["sha256"]
    data = plaintext(taken, daily)
    assert plaintext(taken, vault) == data
    assert hashlib.sha256(data).hexdigest() == document["content_sha256"]

    copy = fresh_database(engine.server)
    tools, place = engine.server.bindir, engine.server.conninfo(copy)
    command = [tools / "pg_restore", "--exit-on-error", "-d", place]
    if form == "plain":
        command = [tools / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", place]
    subprocess.run(command, input=data, capture_output=True, check=True)
    expected = contents_of(engine.server, database)
    assert contents_of(engine.server, copy) == expected

    for pair in (daily, vault):
        result = verified(engine, identity_file=str(pair.identity))
        assert [item.verdict for item in result.verifications] == ["good"], result.message
    done = restored(engine, target, database=database, identity_file=str(vault.identity), compare=True)
    assert done.warnings == ()
    assert contents_of(engine.server, target) == expected


@pytest.mark.parametrize("method", METHODS)
def test_the_globals_are_encrypted_like_the_rest(
    engine: Engine, database: str, pairs: dict[str, dict[str, Pair]], method: str
) -> None:
    pair = pairs[method]["daily"]
    _globals, taken = engine.take(database, globals=True, **pair.encryption)[0:2]
    (item,) = [found for found in (_globals, taken) if found.kind == "globals"]
    assert archive(item).name.endswith(f".sql.{method}")
    assert b"CREATE ROLE" not in archive(item).read_bytes()
    assert b"CREATE ROLE" in decrypted(archive(item), pair.identity)
    assert verified(engine, identity_file=str(pair.identity)).exit_code == 0
    done = restored(engine, None, check=True, database="@globals", identity_file=str(pair.identity))
    assert not done.changed
    for wrong in (None, str(pairs[method]["vault"].identity)):
        with pytest.raises(DecryptionError, match="identity_file"):
            restored(engine, None, check=True, database="@globals", identity_file=wrong)


def test_a_public_ssh_key_and_files_of_keys_are_recipients_of_age(
    engine: Engine, database: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]]
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ssh"], check=True)
    keys = tmp_path / "keys"
    keys.write_text(f"# operators\n\n{pairs['age']['daily'].recipient}\n{(tmp_path / 'ssh.pub').read_text()}")
    taken = engine.take_one(
        database, compression="gzip:1", encryption="age", recipients=[str(keys), pairs["age"]["vault"].recipient]
    )
    for identity in (pairs["age"]["daily"].identity, pairs["age"]["vault"].identity, tmp_path / "ssh"):
        assert decrypted(archive(taken), identity).startswith(b"PGDMP")
        assert verified(engine, identity_file=str(identity)).exit_code == 0


def test_a_gnupg_home_directory_decrypts_also_with_what_its_agent_knows(
    engine: Engine, database: str, target: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]]
) -> None:
    pair = make_pair("gpg", tmp_path, "locked", passphrase="geheim")
    taken = engine.take_one(database, compression="gzip:1", **pair.encryption)
    with pytest.raises(DecryptionError, match="has a passphrase, for which nobody is asked"):
        restored(engine, target, check=True, database=database, identity_file=str(pair.identity))
    with gnupg() as home:
        run_gpg(home, "--passphrase", "geheim", "--import", pair.identity)
        assert run_gpg(home, "--passphrase", "geheim", "-d", archive(taken)).startswith(b"PGDMP")
        assert verified(engine, identity_file=str(home)).exit_code == 0
        assert of_processes(("gpg-agent",)), "it is the user's, and goes on"
    daily = pairs["gpg"]["daily"]
    engine.take_one(database, **daily.encryption)
    with gnupg() as home:
        run_gpg(home, "--import", daily.identity)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
        before = {path.name for path in home.iterdir()}
        assert verified(engine, latest=True, identity_file=str(home)).exit_code == 0
        assert not [line for line in of_processes(("gpg-agent",)).values() if str(home) in line]
        assert {path.name for path in home.iterdir()} >= before


# --- rotation ---


@pytest.mark.parametrize("method", METHODS)
def test_recipients_can_be_changed(
    engine: Engine, database: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]], method: str
) -> None:
    old, new = pairs[method].values()
    engine.now = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)

    def taken(**more: Any) -> list[str]:
        assert engine.now
        engine.now += timedelta(minutes=1)
        return [item.status for item in engine.run(databases=[database], globals=True, max_age="1d", **more).outcomes]

    assert taken(**old.encryption) == ["done", "done"]
    assert taken(**old.encryption) == ["fresh", "fresh"]
    assert taken(**new.encryption) == ["done", "done"]
    assert taken(encryption=method, recipients=[new.recipient, old.recipient]) == ["done", "done"]
    assert taken(encryption=method, recipients=[old.recipient, new.recipient]) == ["fresh", "fresh"], (
        "the order is nothing"
    )
    assert taken() == ["done", "done"]

    verdicts = [
        item.verdict for item in verified(engine, databases=[database], identity_file=str(old.identity)).verifications
    ]
    assert sorted(verdicts) == ["error", "good", "good", "good"]
    both = tmp_path / "both"
    both.touch(0o600)
    both.write_bytes(old.identity.read_bytes() + new.identity.read_bytes())
    assert {item.verdict for item in verified(engine, identity_file=str(both)).verifications} == {"good"}


def test_another_key_in_the_same_file_is_another_recipient(
    engine: Engine, database: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]]
) -> None:
    daily, vault = pairs["gpg"].values()
    shutil.copy(daily.recipient, tmp_path / "key")
    options = {"encryption": "gpg", "recipients": [str(tmp_path / "key")], "max_age": "1d"}
    engine.take_one(database, **options)
    shutil.copy(vault.recipient, tmp_path / "key")
    (outcome,) = engine.run(databases=[database], **options).outcomes
    assert outcome.status == "done"


# --- it fails before anything is written ---


def refuses(engine: Engine, database: str, error: type[PgkeepError], words: str, **more: Any) -> str:
    """Assert that a backup is refused, in check mode as well, and that nothing is written."""
    said = ""
    for check in (True, False):
        with pytest.raises(error, match=words) as caught:
            engine.run(check, databases=[database], **more)
        said = str(caught.value)
        assert bytes_of(engine.repository) == {}
    return said


@pytest.mark.parametrize("method", METHODS)
def test_without_the_program_there_is_no_backup(
    engine: Engine,
    database: str,
    pairs: dict[str, dict[str, Pair]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    method: str,
) -> None:
    pair = pairs[method]["daily"]
    with monkeypatch.context() as patch:
        patch.setattr(encryption, "SEARCH_PATH", str(tmp_path))
        refuses(engine, database, ToolError, f"install the package {method}", **pair.encryption)
    engine.take_one(database, **pair.encryption)
    with monkeypatch.context() as patch:
        patch.setattr(encryption, "SEARCH_PATH", str(tmp_path))
        (item,) = verified(engine, identity_file=str(pair.identity)).verifications
    assert (item.verdict, item.recorded) == ("error", False)
    assert f"install the package {method}" in item.problem


def test_what_is_no_public_key_is_refused(
    engine: Engine, database: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]]
) -> None:
    age, gpg = pairs["age"]["daily"], pairs["gpg"]["daily"]
    secret = age.identity.read_text().split()[-1]
    junk, empty, open_key, two = (tmp_path / name for name in ("junk", "empty", "open", "two"))
    junk.write_bytes(os.urandom(1000))
    empty.touch()
    open_key.write_bytes(Path(gpg.recipient).read_bytes())
    open_key.chmod(0o666)
    two.write_bytes(Path(gpg.recipient).read_bytes() + Path(pairs["gpg"]["vault"].recipient).read_bytes())
    armored = tmp_path / "armored"
    with gnupg() as home:
        run_gpg(home, "--import", gpg.identity)
        armored.write_bytes(run_gpg(home, "--armor", "--export-secret-keys"))

    def no(error: type[PgkeepError], words: str, method: str, *recipients: object) -> str:
        return refuses(engine, database, error, words, encryption=method, recipients=list(map(str, recipients)))

    for method in METHODS:
        no(ConfigurationError, "cannot be read: No such file", method, tmp_path / "none")
        no(ConfigurationError, "not a regular file", method, tmp_path)
        no(ConfigurationError, "everybody can replace the key", method, open_key)
    assert secret not in no(ConfigurationError, "has a private key", "age", age.identity)
    assert secret not in no(ConfigurationError, r"recipients\[0\] is a private key", "age", secret)
    no(ConfigurationError, "junk:1: not a public key", "age", junk)
    no(ConfigurationError, "has no key", "age", empty)
    no(
        ToolError,
        "cannot encrypt for these recipients",
        "age",
        "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
    )
    no(ConfigurationError, "has no public key", "gpg", junk)
    no(ConfigurationError, "has no public key", "gpg", empty)
    no(ConfigurationError, "has a private key", "gpg", gpg.identity)
    no(ConfigurationError, "has a private key", "gpg", armored)
    no(ConfigurationError, "2 public keys, and gpg takes one from a file", "gpg", two)


def test_an_expired_key_is_refused(engine: Engine, database: str, tmp_path: Path) -> None:
    with gnupg() as home:
        words = (
            "--faked-system-time",
            "20200101T000000",
            "--passphrase",
            "",
            "--quick-generate-key",
            "old <old@example.com>",
        )
        run_gpg(home, *words, "future-default", "default", "1d")
        (tmp_path / "old.pub").write_bytes(run_gpg(home, "--export", "old@example.com"))
    recipients = [str(tmp_path / "old.pub")]
    refuses(
        engine,
        database,
        ToolError,
        "cannot encrypt for these recipients.*old.pub",
        encryption="gpg",
        recipients=recipients,
    )


def test_an_identity_that_others_can_read_is_refused(
    engine: Engine, database: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]]
) -> None:
    pair = pairs["age"]["daily"]
    engine.take_one(database, **pair.encryption)
    loose = tmp_path / "loose"
    shutil.copy(pair.identity, loose)
    for mode in (0o640, 0o604):
        loose.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"chmod 0600 {loose}"):
            verified(engine, identity_file=str(loose))
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o750)
    with pytest.raises(ConfigurationError, match=f"chmod 0700 {home}"):
        verified(engine, identity_file=str(home))
    with pytest.raises(ConfigurationError, match="identity_file cannot be read: No such file"):
        verified(engine, identity_file=str(tmp_path / "none"))


# --- reading back ---


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("form", "compression"), [("custom", "zstd:1"), ("plain", "none"), ("tar", "none")])
def test_without_the_right_key_nothing_is_known_and_nothing_is_held_against_the_backup(
    engine: Engine,
    database: str,
    target: str,
    pairs: dict[str, dict[str, Pair]],
    tmp_path: Path,
    form: str,
    compression: str,
    method: str,
) -> None:
    pair, other = pairs[method].values()
    taken = engine.take_one(database, format=form, compression=compression, **pair.encryption)
    junk = tmp_path / "junk"
    junk.touch(0o600)
    junk.write_bytes(os.urandom(500))
    another_method = pairs["gpg" if method == "age" else "age"]["daily"].identity
    identities = [None, other.identity, junk, another_method]
    for identity in identities:
        chosen = {} if identity is None else {"identity_file": str(identity)}
        (item,) = verified(engine, **chosen).verifications
        assert (item.verdict, item.recorded, item.ok) == ("error", False, False)
        assert "identity" in item.problem or "private key" in item.problem, item.problem
        assert not Path(taken.path, "state.json").exists()
        for check in (True, False):
            with pytest.raises(DecryptionError):
                restored(engine, target, check, database=database, **chosen)
    assert target not in engine.server.psql("SELECT datname FROM pg_database")
    assert verified(engine, level="checksum").exit_code == 0, "that needs no key"


def sign_again(item: Backup) -> None:
    """Given a backup whose archive was changed, write a manifest that believes it: what only reading can find."""
    document = manifest(item)
    data = archive(item).read_bytes()
    document["files"][0].update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    document["size"] = len(data)
    Path(item.path, "manifest.json").write_text(json.dumps(document))


def cut(place: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * place)]


def flip(place: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: (at := int(len(data) * place))] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("form", "compression"), [("custom", "none"), ("plain", "zstd:1"), ("plain", "none")])
def test_a_changed_archive_is_found_by_its_checksum_and_without_that_by_its_encryption(
    engine: Engine,
    database: str,
    fresh_database: FreshDatabase,
    pairs: dict[str, dict[str, Pair]],
    form: str,
    compression: str,
    method: str,
) -> None:
    pair = pairs[method]["daily"]
    identity = {"identity_file": str(pair.identity)}
    taken = engine.take_one(database, format=form, compression=compression, **pair.encryption)
    good, signed = archive(taken).read_bytes(), Path(taken.path, "manifest.json").read_bytes()
    another = subprocess.run(
        ["age", "-r", pairs["age"]["daily"].recipient], input=b"not it", capture_output=True, check=True
    ).stdout
    changes = [
        flip(0.5),
        flip(0.99),
        cut(0.5),
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda _data: b"hello",
    ]
    changes += [lambda _data: another] if method == "age" else []
    empty = fresh_database(engine.server)
    for change in changes:
        archive(taken).write_bytes(change(good))
        Path(taken.path, "manifest.json").write_bytes(signed)
        (item,) = verified(engine, level="checksum").verifications
        assert item.verdict in ("altered", "truncated")
        sign_again(taken)
        (item,) = verified(engine, **identity).verifications
        assert item.verdict == "unreadable", item.problem
        # In one transaction, and nobody asked for the checksum; the manifest believes it.
        with pytest.raises(PgkeepError):
            restored(engine, empty, database=database, if_exists="fill", checksum=False, backup=taken.id, **identity)
        assert (
            engine.server.psql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace", empty)
            == "0"
        )


@pytest.mark.parametrize("method", METHODS)
def test_what_is_filled_is_compared_with_its_checksum_whatever_was_asked_for(
    engine: Engine, database: str, fresh_database: FreshDatabase, pairs: dict[str, dict[str, Pair]], method: str
) -> None:
    pair = pairs[method]["daily"]
    taken = engine.take_one(database, format="plain", compression="none", **pair.encryption)
    data = archive(taken).read_bytes()
    archive(taken).write_bytes(flip(0.99)(data))
    empty = fresh_database(engine.server)
    options = {"if_exists": "fill", "checksum": False, "identity_file": str(pair.identity)}
    with pytest.raises(RepositoryError, match="is altered"):
        restored(engine, empty, database=database, **options)
    archive(taken).write_bytes(data)
    restored(engine, empty, database=database, **options)
    assert contents_of(engine.server, empty) == contents_of(engine.server, database)


@pytest.mark.parametrize("method", METHODS)
def test_contents_are_listed_and_several_jobs_restore(
    engine: Engine, database: str, target: str, pairs: dict[str, dict[str, Pair]], tmp_path: Path, method: str
) -> None:
    identity = {"identity_file": str(pairs[method]["daily"].identity)}
    engine.take_one(database, compression="zstd:1", **pairs[method]["daily"].encryption)
    raw = {"repository": str(engine.repository), "database": database, "bin_dir": str(engine.server.bindir)}
    assert "TABLE DATA public customers" in contents({**raw, **identity}, Cancellation())
    with pytest.raises(DecryptionError, match="set identity_file"):
        contents(raw, Cancellation())
    (tmp_path / "work").mkdir()
    options = {"jobs": 2, "work_dir": str(tmp_path / "work"), **identity}
    done = restored(engine, target, database=database, **options)
    assert "--jobs=2" in done.command
    assert [text for text in done.warnings if "unnamed file" in text], done.warnings
    assert list((tmp_path / "work").iterdir()) == []
    assert contents_of(engine.server, target) == contents_of(engine.server, database)


@pytest.mark.needs_programs("bwrap")
@pytest.mark.parametrize("method", METHODS)
def test_a_drill_decrypts_outside_of_its_sandbox(
    engine: Engine, database: str, pairs: dict[str, dict[str, Pair]], method: str
) -> None:
    pair = pairs[method]["daily"]
    engine.take(database, globals=True, compression="zstd:1", **pair.encryption)
    looks = [
        f"SELECT pg_read_file('{pair.identity}', 0, 10, true) IS NULL",
        f"SELECT (pg_stat_file('{encryption.MEMORY}/{encryption.PREFIX}', true)).size IS NULL",
        "SELECT count(*) = 0 FROM pg_ls_dir('/dev/shm') AS name",
        f"SELECT encode(pg_read_binary_file('/proc/self/environ'), 'escape') !~ '{pair.identity.name}'",
    ]
    options = {"level": "restore", "bin_dir": str(engine.server.bindir), "work_dir": "/tmp"}
    done = verified(engine, checks=looks, identity_file=str(pair.identity), **options)
    assert [(item.verdict, item.problem) for item in done.verifications] == [("good", "")] * 2
    assert [item.evidence.warnings for item in done.verifications if item.evidence] == [[], []]
    wrong = verified(engine, identity_file=str(pairs[method]["vault"].identity), **options)
    assert {(item.verdict, item.recorded) for item in wrong.verifications} == {("error", False)}
    for item in done.verifications:
        archive(item.backup).write_bytes(flip(0.9)(archive(item.backup).read_bytes()))
        sign_again(item.backup)
    damaged = verified(engine, identity_file=str(pair.identity), **options)
    assert {(item.verdict, item.recorded) for item in damaged.verifications} == {("unreadable", True)}, damaged.message


# --- the recovery document ---


@pytest.mark.parametrize("method", METHODS)
def test_the_recovery_document_brings_encrypted_backups_back(
    lone_zstd_server: Server, program: Path, tmp_path: Path, pairs: dict[str, dict[str, Pair]], method: str
) -> None:
    pair, forms = pairs[method]["daily"], {"inside": "custom", "outside": "plain", "taped": "tar"}
    installation = Installation(lone_zstd_server.major, lone_zstd_server.bindir, lone_zstd_server.source)
    with Server(installation) as lost, Server(installation) as new, Server(installation) as another, gnupg() as home:
        engine = Engine(lost, tmp_path / "repository")
        lost.psql("CREATE ROLE clerk")
        for name, form in forms.items():
            lost.psql(f"CREATE DATABASE {name}")
            lost.psql(f"CREATE TABLE t AS SELECT '{name}'::text AS a; ALTER TABLE t OWNER TO clerk", name)
            engine.take(name, format=form, compression="zstd:1", globals=form == "custom", **pair.encryption)
        shutil.copy(pair.identity, home / "pgkeep-identity")
        (home / "pgkeep-identity").chmod(0o600)
        environment = {
            "PATH": f"{program.parent}:/usr/bin:/bin",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "GNUPGHOME": str(home),
        }
        for server, titles in ((new, ("5. ",)), (another, ("2. ", "3. "))):
            place = {"login_unix_socket": str(server.socket_dir), "login_port": server.port}
            place["config_dir"] = str(tmp_path / "etc")
            document = runbook({"repository": str(engine.repository), **place}, False, engine.clock).document
            assert f"Put them into the file `{IDENTITY}`" in document
            path = [f"export PATH={server.bindir}:$PATH", *blocks(document, "In every shell, first")]
            known = ['gpg --batch --import "$identity"'] if method == "gpg" and "5. " in titles else []
            for block in [item for title in titles for item in blocks(document, title)]:
                script = "\n".join(["set -e", *path, *known, block])
                done = subprocess.run(
                    ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
            for name in forms:
                assert (
                    server.psql("SELECT a, tableowner FROM t, pg_tables WHERE tablename = 't'", name) == f"{name}|clerk"
                )


# --- the command ---


@pytest.fixture
def marked(keeper: Keeper, fresh_database: FreshDatabase) -> str:
    """A database with a word that must be nowhere."""
    name = fresh_database(keeper.server)
    keeper.server.psql(f"CREATE TABLE t AS SELECT i, '{MARKER}' AS word FROM generate_series(1, 2000) i", name)
    return name


def traced(keeper: Keeper, log: Path, command: str, *arguments: str) -> tuple[list[str], str]:
    """Given a command, run it under strace; return every line that writes to something with a path or starts a program,
    and what the command said.
    """
    calls = "trace=write,pwrite64,writev,pwritev,execve"
    prefix = ("strace", "-f", "-y", "-v", "-s", "2000000", "-o", log, "-e", calls)
    done = finish(keeper.start(command, *arguments, prefix=prefix))
    assert done.code == 0, done
    lines = log.read_text(errors="replace").splitlines()
    return [
        line for line in lines if "execve(" in line or re.search(r"write(v|64)?\(\d+</(?!memfd:|dev/null>)", line)
    ], done.out + done.err


@pytest.mark.needs_programs("strace")
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_written_as_it_is_and_no_key_is_written_or_said(
    keeper: Keeper, marked: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]], method: str
) -> None:
    pair = pairs[method]["daily"]
    recipients = (f"--encryption={method}", f"--recipients={pair.recipient}", "--no-globals", "--compression=none")
    identity, tools = f"--identity-file={pair.identity}", f"--bin-dir={keeper.server.bindir}"
    secret = pair.identity.read_text().split()[-1] if method == "age" else "PRIVATE KEY"
    runs = [("backup", marked, "--format=custom", *recipients), ("backup", marked, "--format=plain", *recipients)]
    runs += [("verify", identity, tools)]
    runs += [("restore", marked, f"--target={marked}_again", "--compare", identity, *keeper.connection)]
    try:
        for number, words in enumerate(runs):
            written, said = traced(keeper, tmp_path / f"trace-{number}", *words)
            assert written
            assert [line[:300] for line in written if MARKER in line] == []
            assert [line[:300] for line in written if secret in line and encryption.PREFIX not in line] == []
            assert secret not in said
            assert MARKER not in said
        assert keeper.server.psql("SELECT count(*) FROM t", f"{marked}_again") == "2000"
    finally:
        keeper.server.psql(f"DROP DATABASE IF EXISTS {marked}_again")
    for path in keeper.repository.rglob("*"):
        assert path.is_dir() or MARKER.encode() not in path.read_bytes()


def test_a_private_key_as_recipient_is_nowhere_in_what_ansible_says(
    keeper: Keeper, tmp_path: Path, pairs: dict[str, dict[str, Pair]]
) -> None:
    secret = pairs["age"]["daily"].identity.read_text().split()[-1]
    found = "{{ lookup('ansible.builtin.env', 'PGKEEP_TEST_SECRET') }}"
    wrong = {"encryption": "age", "recipients": [found], "drill_schedule": "never"}
    place = {"login_unix_socket": str(keeper.server.socket_dir), "login_port": keeper.server.port}
    backup = {"repository": str(keeper.repository), "encryption": "age", "recipients": [found], **place}
    jobs = [{"name": "night", "repository": str(keeper.repository), **wrong}]
    tasks = [
        {"pgkeep.backup.pg_backup": backup, "ignore_errors": True},
        {"pgkeep.backup.pg_backup_config": {"config_dir": str(tmp_path / "etc"), "jobs": jobs}, "ignore_errors": True},
    ]
    environment = {"ANSIBLE_LOG_PATH": str(tmp_path / "log"), "PGKEEP_TEST_SECRET": secret}
    done = run_tasks(tmp_path, tasks, "-vvv", "--diff", **environment)
    said = done.stdout + done.stderr + (tmp_path / "log").read_text()
    assert said.count("is a private key, which does not belong on this host") >= 2
    assert secret not in said
    assert secret[20:] not in said
    assert not (tmp_path / "etc/jobs.d/night.json").exists()
    assert bytes_of(keeper.repository) == {}


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.needs_programs("bwrap")
def test_a_run_that_is_ended_leaves_no_key_and_no_agent(
    keeper: Keeper, marked: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]], ending: signal.Signals
) -> None:
    pair = pairs["gpg"]["daily"]
    assert keeper.backup(marked, "--encryption=gpg", f"--recipients={pair.recipient}").code == 0
    work = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    options = (f"--bin-dir={keeper.server.bindir}", f"--work-dir={work}", f"--identity-file={pair.identity}")
    memory = Path(encryption.MEMORY)
    try:
        running = keeper.start("drill", *options, "--checks", "SELECT pg_sleep(60) IS NULL")
        until(lambda: list(memory.glob(f"{encryption.PREFIX}*/private-keys-v1.d/*")), "the key is there")
        until(lambda: list(work.glob("pgkeep-drill-*/server/data/postmaster.pid")), "the throw-away server runs")
        assert [path.stat().st_mode & 0o777 for path in memory.glob(f"{encryption.PREFIX}*")] == [0o700]
        running.send_signal(ending)
        assert finish(running).code in (-ending, 128 + ending)
        until(lambda: not list(memory.glob(f"{encryption.PREFIX}*")), "the keys are gone, without another run")
        # The next one removes what is left of a drill.
        assert keeper.run("drill", *options).code == 0
        assert list(work.iterdir()) == []
    finally:
        shutil.rmtree(work)


def test_what_was_left_in_memory_is_swept_and_what_lives_is_left(
    engine: Engine, database: str, pairs: dict[str, dict[str, Pair]]
) -> None:
    pair = pairs["gpg"]["daily"]
    engine.take_one(database, **pair.encryption)
    dead, alive = (Path(tempfile.mkdtemp(prefix=encryption.PREFIX, dir=encryption.MEMORY)) for _unused in range(2))
    (dead / "private-keys-v1.d").mkdir()
    (dead / "private-keys-v1.d/key").write_text("secret")
    holder = os.open(alive, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        assert verified(engine, identity_file=str(pair.identity)).exit_code == 0
        assert (dead.exists(), alive.exists()) == (False, True)
    finally:
        os.close(holder)
        alive.rmdir()


def test_a_job_with_encrypted_backups_and_no_identity_verifies_what_it_can(
    keeper: Keeper, marked: str, tmp_path: Path, pairs: dict[str, dict[str, Pair]]
) -> None:
    pair = pairs["age"]["daily"]
    place = {
        "repository": str(keeper.repository), "bin_dir": str(keeper.server.bindir), "reserve": "0", "databases": [marked],
        "login_unix_socket": str(keeper.server.socket_dir), "login_port": keeper.server.port, "globals": False,
    }  # fmt: skip
    option = write_job(tmp_path / "etc", "night", **place, **pair.encryption)
    refused = keeper.run("run", option, "night")
    assert refused.code == 2
    assert "set drill_schedule to never here, and drill where the private key is" in refused.err
    write_job(tmp_path / "etc", "night", **place, **pair.encryption, drill_schedule="never")
    assert keeper.run("run", option, "night").code == 0
    assert keeper.run("verify", option, "--job=night").code == 0
    assert keeper.listed()[0]["verified_level"] == "checksum"
    assert keeper.run("verify", option, "--job=night", "--level=archive").code == 1
    assert keeper.run("verify", option, "--job=night", f"--identity-file={pair.identity}").code == 0
    assert keeper.listed()[0]["verified_level"] == "archive"
    write_job(tmp_path / "etc", "night", **place, **pair.encryption, identity_file=str(pair.identity))
    assert keeper.run("verify", option, "--job=night").code == 0
    listed = keeper.run("restore", option, "--job=night", "--list", marked)
    assert "TABLE DATA public t" in listed.out, listed


@pytest.mark.needs_root
@pytest.mark.parametrize("method", METHODS)
def test_root_reads_an_identity_that_the_owner_of_the_backups_cannot(
    keeper: Keeper, marked: str, pairs: dict[str, dict[str, Pair]], method: str
) -> None:
    pair = pairs[method]["daily"]
    public = pair.recipient
    directory = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    shutil.chown(directory, "nobody", "nogroup")
    keeper.repository = directory
    try:
        assert keeper.backup(marked, f"--encryption={method}", f"--recipients={public}").code == 0
        assert pair.identity.stat().st_uid == 0
        tools = f"--bin-dir={keeper.server.bindir}"
        done = keeper.run("verify", tools, f"--identity-file={pair.identity}")
        assert done.code == 0, done
        etc = directory / "etc"
        option = write_job(
            etc, "night", repository=str(directory), databases=[marked], bin_dir=str(keeper.server.bindir), globals=False,
            identity_file=str(pair.identity), **pair.encryption,
        )  # fmt: skip
        done = keeper.run("verify", option, "--job=night")
        assert done.code == 0, done
    finally:
        shutil.rmtree(directory)
