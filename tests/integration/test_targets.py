# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every kind of target does the same: against a directory, a real sshd, and a real S3 server."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.archive import File
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import Cancellation
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.remote import Remote
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.targets import connect
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import (
    ConfigurationError,
    Interrupted,
    LockedCopyError,
    PgkeepError,
    RepositoryError,
    SpaceError,
    ToolError,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Target

from tests.bad_network import BadNetwork
from tests.keeper import until
from tests.object_store import PROGRAMS as STORE_PROGRAMS
from tests.object_store import ObjectStore
from tests.postgres import free_port
from tests.ssh_host import SshHost, find_program

MEGABYTE = 1024 * 1024
ID = "main/sh%20op/sh%20op_2025-11-05_14-30-00"
NAMES = ("shop.dump", "more.dir/toc.dat", "more.dir/1%2E.dat.gz", "empty", "manifest.json")
KINDS = ("directory", "append-only", "account", "rrsync", "local", "sftp", "s3")
OVER_SSH = ("append-only", "account", "rrsync")
PATIENCE = 60


class Stored:
    """What the far side stores, seen from there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        # `pgkeep receive` puts a state beside what it has looked at.
        found = [path for path in self.directory.rglob("*") if path.is_file() and path.name != "state.json"]
        return sorted(str(path.relative_to(self.directory)) for path in found)

    def read(self, path: str) -> bytes:
        return (self.directory / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        (self.directory / path).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / path).write_bytes(data)


class StoredObjects(Stored):
    """The same of a bucket."""

    def __init__(self, store: ObjectStore, bucket: str, prefix: str) -> None:
        self.client, self.bucket, self.prefix = store.client(), bucket, prefix

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix)
        return sorted(item["Key"][len(self.prefix) :] for item in found.get("Contents", ()))

    def read(self, path: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.bucket, Key=self.prefix + path)["Body"].read()
        return data

    def write(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + path, Body=data)


@dataclass
class Case:
    """A target of some kind: as it is written to, as it is read where that is not the same, and what it stores."""

    kind: str
    target: Target
    reader: Target
    stored: Stored

    @property
    def remote(self) -> Any:
        return connect("vault", self.target, Cancellation())


def _rsync(host: SshHost, key: Path, path: str, **options: Any) -> Target:
    return Target(
        type="rsync", host=host.host, port=host.port, user=host.user, key_file=str(key), path=path,
        known_hosts_file=str(host.known_hosts), timeout=timedelta(seconds=20), **options,
    )  # fmt: skip


def _rclone_config(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Case]:
    """Return a function: given a kind, set up a target of it."""

    def directory() -> Path:
        place = tmp_path / "far"
        place.mkdir(exist_ok=True)
        return place

    def over_ssh(kind: str) -> Case:
        host: SshHost = request.getfixturevalue("ssh_host")
        place = directory()
        ordinary = _rsync(host, host.key_file, str(place / "copies"), append_only=False)
        stored = Stored(place / "copies")
        if kind == "account":
            return Case(kind, ordinary, ordinary, stored)
        if kind == "rrsync":
            target = replace(ordinary, key_file=str(host.authorize(f"rrsync {place}")), path="copies")
            return Case(kind, target, target, stored)
        program = request.getfixturevalue("program")
        key = host.authorize(f"{program} receive {place} --reserve 0")
        return Case(kind, _rsync(host, key, "copies"), ordinary, stored)

    def by_rclone(kind: str) -> Case:
        config = tmp_path / "rclone.conf"
        if kind == "s3":
            store: ObjectStore = request.getfixturevalue("object_store")
            bucket, flags = (
                store.make_bucket(),
                (f"--ca-cert={store.ca_file}", "--s3-chunk-size=5Mi", "--s3-upload-cutoff=5Mi"),
            )
            target = Target(
                type="rclone", remote="store", path=f"{bucket}/copies", flags=flags,
                config_file=str(store.write_rclone_config(config)),
            )  # fmt: skip
            owner = str(store.write_rclone_config(tmp_path / "owner.conf", store.owner))
            return Case(kind, target, replace(target, config_file=owner), StoredObjects(store, bucket, "copies/"))
        text, place = "[store]\ntype = local\n", directory()
        if kind == "sftp":
            host: SshHost = request.getfixturevalue("ssh_host")
            text = (
                f"[store]\ntype = sftp\nhost = {host.host}\nport = {host.port}\nuser = {host.user}\n"
                f"key_file = {host.key_file}\nknown_hosts_file = {host.known_hosts}\n"
            )
        target = Target(
            type="rclone", remote="store", path=str(place / "copies"), config_file=_rclone_config(config, text)
        )
        return Case(kind, target, target, Stored(place / "copies"))

    def made(kind: str) -> Case:
        if kind == "directory":
            target = Target(type="directory", path=str(directory() / "copies"))
            return Case(kind, target, target, Stored(tmp_path / "far/copies"))
        return over_ssh(kind) if kind in OVER_SSH else by_rclone(kind)

    return made


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, make: Callable[[str], Case]) -> Case:
    """A target of each kind."""
    return make(request.param)


@dataclass
class Backup:
    """A backup's directory at home."""

    directory: Path

    @property
    def files(self) -> list[File]:
        return [self.file(name) for name in NAMES]

    def file(self, name: str) -> File:
        data = (self.directory / name).read_bytes()
        return File(name, len(data), hashlib.sha256(data).hexdigest())

    def bring(self, remote: Remote, folder: str = ID) -> None:
        remote.put(str(self.directory), folder, [name for name in NAMES if name != "manifest.json"])
        remote.put(str(self.directory), folder, ["manifest.json"])


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    """A backup: a large file, files in a folder, an empty one, a manifest."""
    return make_backup(tmp_path / "home", ID)


def make_backup(home: Path, folder: str, size: int = 6 * MEGABYTE + 7) -> Backup:
    directory = home / folder
    (directory / "more.dir").mkdir(parents=True)
    (directory / "shop.dump").write_bytes(os.urandom(size))
    (directory / "more.dir/toc.dat").write_bytes(b"PGDMP" + os.urandom(1000))
    (directory / "more.dir/1%2E.dat.gz").write_bytes(os.urandom(MEGABYTE))
    (directory / "empty").touch()
    (directory / "manifest.json").write_text('{"pgkeep": 1}\n')
    (directory / "state.json").write_text("{}")
    return Backup(directory)


# --- the contract ---


def test_what_is_put_is_listed_checked_fetched_and_deleted(case: Case, backup: Backup, tmp_path: Path) -> None:
    sizes = {file.path: file.size for file in backup.files}
    with case.remote as remote:
        assert remote.files() == {}
        assert remote.files(ID) == {}
        backup.bring(remote)
        assert remote.files() == {f"{ID}/{name}": size for name, size in sizes.items()}
        assert remote.files(ID) == remote.files()
        assert remote.files("main/other") == {}
        checked = remote.check(str(backup.directory), ID, backup.files)
    assert checked.problem == ""
    assert checked.method in ("sha256", "checksum", "sha1+sample", "md5+sample")
    assert case.stored.names() == sorted(f"{ID}/{name}" for name in NAMES)
    assert case.stored.read(f"{ID}/shop.dump") == (backup.directory / "shop.dump").read_bytes()

    into = tmp_path / "into"
    into.mkdir()
    with connect("vault", case.reader, Cancellation()) as remote:
        remote.get_manifests([ID], str(into))
        assert [str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()] == [f"{ID}/manifest.json"]
        remote.get(ID, [name for name in NAMES if name != "manifest.json"], str(into / ID))
        for name in NAMES:
            assert (into / ID / name).read_bytes() == (backup.directory / name).read_bytes()
            assert (into / ID / name).stat().st_mode & 0o777 == 0o600
        remote.delete(ID, list(NAMES))
        assert remote.files() == {}
    assert case.stored.names() == []


def test_what_is_there_is_never_replaced_and_check_tells(case: Case, backup: Backup) -> None:
    altered = bytearray((backup.directory / "shop.dump").read_bytes())
    altered[0] ^= 1
    case.stored.write(f"{ID}/shop.dump", bytes(altered))
    case.stored.write(f"{ID}/more.dir/toc.dat", b"other")
    with case.remote as remote:
        backup.bring(remote)
        found = {name: remote.check(str(backup.directory), ID, [backup.file(name)]).problem for name in NAMES}
    assert case.stored.read(f"{ID}/shop.dump") == altered
    assert case.stored.read(f"{ID}/more.dir/toc.dat") == b"other"
    assert "shop.dump" in found.pop("shop.dump")
    assert "toc.dat" in found.pop("more.dir/toc.dat")
    assert set(found.values()) == {""}


def test_what_is_missing_or_cut_short_is_found_by_check(case: Case, backup: Backup) -> None:
    data = (backup.directory / "shop.dump").read_bytes()
    case.stored.write(f"{ID}/shop.dump", data[:-1])
    with case.remote as remote:
        remote.put(str(backup.directory), ID, ["empty"])
        assert remote.check(str(backup.directory), ID, [backup.file("empty")]).problem == ""
        assert "shop.dump" in remote.check(str(backup.directory), ID, [backup.file("shop.dump")]).problem
        missing = remote.check(str(backup.directory), ID, [backup.file("empty"), backup.file("manifest.json")]).problem
    assert missing == "manifest.json is missing"


def test_only_what_is_named_is_deleted(case: Case, backup: Backup, tmp_path: Path) -> None:
    other = make_backup(tmp_path / "home", "main/sh%20op/sh%20op_2025-11-06_14-30-00", 1000)
    with case.remote as remote:
        backup.bring(remote)
        other.bring(remote, "main/sh%20op/sh%20op_2025-11-06_14-30-00")
    case.stored.write(f"{ID}/note", b"mine")
    with connect("vault", case.reader, Cancellation()) as remote:
        remote.delete(ID, list(NAMES))
        assert f"{ID}/note" in remote.files()
    left = [name for name in case.stored.names() if not name.startswith("main/sh%20op/sh%20op_2025-11-06")]
    assert left == [f"{ID}/note"]
    assert len(case.stored.names()) == 1 + len(NAMES)


def test_names_that_are_not_ours_are_no_obstacle(case: Case, backup: Backup) -> None:
    for name in ("a b/c [d]/é*", "x", f"{ID}/.shop.dump.a1B2c3"):
        case.stored.write(name, b"1")
    with case.remote as remote:
        backup.bring(remote)
        ours = {path for path in remote.files() if path.startswith("main/")}
    assert {f"{ID}/{name}" for name in NAMES} == ours - {f"{ID}/.shop.dump.a1B2c3"}


# --- what is cut short ---


def _elsewhere(case: Case, port: int, tmp_path: Path) -> Target:
    """Given a case, return its target as it is reached at another port."""
    if case.target.type == "rsync":
        known = tmp_path / "known_hosts"
        words = Path(str(case.target.known_hosts_file)).read_text().split()
        known.write_text(f"[127.0.0.1]:{port} {words[1]} {words[2]}\n")
        return replace(case.target, port=port, known_hosts_file=str(known))
    text = Path(str(case.target.config_file)).read_text()
    text = (
        re.sub(r"127.0.0.1:[0-9]+", f"127.0.0.1:{port}", text)
        if case.kind == "s3"
        else re.sub(r"port = [0-9]+\n", f"port = {port}\n", re.sub("known_hosts_file = .*\n", "", text))
    )
    return replace(case.target, config_file=_rclone_config(tmp_path / "elsewhere.conf", text))


@pytest.fixture(params=["append-only", "account", "sftp", "s3"])
def far(request: pytest.FixtureRequest, make: Callable[[str], Case]) -> Case:
    """A target of each kind that is reached over a network."""
    return make(request.param)


def _server_port(case: Case) -> int:
    if case.target.type == "rsync":
        return case.target.port
    match = re.search(r"(?:127.0.0.1:|port = )([0-9]+)", Path(str(case.target.config_file)).read_text())
    assert match
    return int(match[1])


def _assert_nothing_wrong(case: Case, backup: Backup) -> None:
    """What has its final name is complete, and a repetition completes the copy."""
    for path in case.stored.names():
        if not any(part.startswith(".") for part in path.split("/")):
            assert case.stored.read(path) == (backup.directory / path[len(ID) + 1 :]).read_bytes()
    with case.remote as remote:
        backup.bring(remote)
        assert remote.check(str(backup.directory), ID, backup.files).problem == ""
        assert sorted(remote.files()) == sorted(f"{ID}/{name}" for name in NAMES)


def test_connection_that_is_cut(far: Case, backup: Backup, tmp_path: Path) -> None:
    with BadNetwork(_server_port(far), cut_after=3 * MEGABYTE) as network:
        target = _elsewhere(far, network.port, tmp_path)
        with connect("vault", target, Cancellation()) as remote, pytest.raises(ToolError) as error:
            backup.bring(remote)
        assert network.sent > 3 * MEGABYTE
    assert "connection was lost" in str(error.value) or "failed" in str(error.value)
    _assert_nothing_wrong(far, backup)


def test_connection_that_stalls(far: Case, backup: Backup, tmp_path: Path) -> None:
    begin = time.monotonic()
    with BadNetwork(_server_port(far), stall_after=2 * MEGABYTE) as network:
        target = replace(_elsewhere(far, network.port, tmp_path), timeout=timedelta(seconds=3))
        with connect("vault", target, Cancellation()) as remote, pytest.raises(ToolError):
            backup.bring(remote)
    assert time.monotonic() - begin < PATIENCE
    _assert_nothing_wrong(far, backup)


def _found(pattern: str) -> list[int]:
    """Return the processes whose command line matches."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if re.search(pattern, words) and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def _below(path: Path, pattern: str) -> list[int]:
    """Return the processes whose command line matches and that work in a directory."""
    return [number for number in _found(pattern) if os.path.realpath(f"/proc/{number}/cwd") == str(path)]


@contextmanager
def _killing(find: Callable[[], list[int]], number: int = signal.SIGKILL) -> Iterator[None]:
    """Send a signal to processes as soon as they are found twice: then they are at work."""
    done, killed = threading.Event(), []

    def kill() -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not done.wait(0.2):
            found = find()
            if found:
                time.sleep(0.5)
                for item in find():
                    os.kill(item, number)
                    killed.append(item)
                return

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    done.set()
    thread.join()
    assert killed, "nothing was killed"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "directory"])
def test_sender_that_is_killed(make: Callable[[str], Case], kind: str, backup: Backup) -> None:
    case = make(kind)
    pattern = r"^rclone copy" if case.target.type == "rclone" else r"^rsync --rsh"
    slow = replace(case.target, bandwidth=2 * MEGABYTE)
    mine = str(case.target.config_file or case.target.known_hosts_file)

    def find() -> list[int]:
        return [pid for pid in _found(pattern) if mine in " ".join(_words(pid))]

    with (
        _killing(find),
        connect("vault", slow, Cancellation()) as remote,
        pytest.raises(ToolError, match="ended by signal 9"),
    ):
        backup.bring(remote)
    _assert_nothing_wrong(case, backup)


@pytest.mark.parametrize("kind", ["directory", "account", "s3"])
def test_death_of_the_command_itself(make: Callable[[str], Case], kind: str, backup: Backup) -> None:
    case = make(kind)
    slow = replace(case.target, bandwidth=2 * MEGABYTE)

    def bring() -> None:
        with connect("vault", slow, Cancellation()) as remote:
            backup.bring(remote)

    command = multiprocessing.get_context("fork").Process(target=bring)
    command.start()
    if kind == "s3":
        until(lambda: _found(f"^rclone copy .*{re.escape(str(slow.config_file))}"), "rclone copies")
    else:
        until(lambda: list(case.stored.directory.rglob(".*")), "something is written")
    command.kill()
    command.join()
    assert command.exitcode == -signal.SIGKILL
    _assert_nothing_wrong(case, backup)


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


@pytest.mark.parametrize("kind", OVER_SSH)
def test_receiver_that_is_killed(make: Callable[[str], Case], kind: str, backup: Backup) -> None:
    case = make(kind)
    case.stored.directory.mkdir(parents=True)
    slow, place = replace(case.target, bandwidth=2 * MEGABYTE), case.stored.directory

    def find() -> list[int]:
        return [*_below(place, "rsync --server"), *_below(place.parent, "rsync --server")]

    with _killing(find), connect("vault", slow, Cancellation()) as remote, pytest.raises(ToolError):
        backup.bring(remote)
    _assert_nothing_wrong(case, backup)


def test_cancellation_ends_the_transfer(case: Case, backup: Backup) -> None:
    cancellation = Cancellation()
    timer = threading.Timer(1.5, lambda: cancellation.cancel(signal.SIGTERM))
    timer.start()
    begin = time.monotonic()
    slow = replace(case.target, bandwidth=MEGABYTE)
    with connect("vault", slow, cancellation) as remote, pytest.raises(Interrupted):
        backup.bring(remote)
    assert time.monotonic() - begin < 10
    timer.join()
    _assert_nothing_wrong(case, backup)


@pytest.mark.parametrize("kind", ["directory", "append-only", "local"])
def test_deadline_ends_the_transfer(make: Callable[[str], Case], kind: str, backup: Backup) -> None:
    case = make(kind)
    slow = replace(case.target, bandwidth=MEGABYTE, deadline=timedelta(seconds=2))
    with connect("vault", slow, Cancellation()) as remote, pytest.raises(ToolError, match="deadline"):
        backup.bring(remote)
    _assert_nothing_wrong(case, backup)


# --- no room ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes, where the copies go."""
    place = tmp_path / "far"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["directory", "append-only", "account", "local", "sftp"])
def test_full_disk(small_disk: Path, make: Callable[[str], Case], kind: str, backup: Backup) -> None:
    case = make(kind)
    with case.remote as remote, pytest.raises(SpaceError if kind != "sftp" else PgkeepError) as error:
        backup.bring(remote)
    assert "space" in str(error.value) or kind == "sftp"
    assert f"{ID}/shop.dump" not in case.stored.names()
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    _assert_nothing_wrong(case, backup)


def test_full_bucket(make: Callable[[str], Case], object_store: ObjectStore, backup: Backup) -> None:
    case = make("s3")
    bucket = case.target.path.split("/")[0]
    object_store.limit_bucket(bucket, 2 * MEGABYTE)
    with case.remote as remote, pytest.raises(SpaceError, match="takes no more"):
        backup.bring(remote)
    object_store.limit_bucket(bucket, -1)
    _assert_nothing_wrong(case, backup)


# --- links at the far side ---


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "s3"])
def test_link_at_the_far_side_leads_nowhere(
    make: Callable[[str], Case], kind: str, backup: Backup, tmp_path: Path
) -> None:
    case, outside = make(kind), tmp_path / "outside"
    outside.mkdir()
    (outside / "shop.dump").write_bytes((backup.directory / "shop.dump").read_bytes())
    place = case.stored.directory / ID
    place.mkdir(parents=True)
    (place / "shop.dump").symlink_to(outside / "shop.dump")
    with case.remote as remote:
        assert remote.files() == {}
        remote.put(str(backup.directory), ID, ["empty"])
        assert "shop.dump" in remote.check(str(backup.directory), ID, [backup.file("shop.dump")]).problem
        (outside / "shop.dump").write_bytes(b"outside")
        remote.put(str(backup.directory), ID, ["shop.dump"])
        problem = remote.check(str(backup.directory), ID, [backup.file("shop.dump")]).problem
    assert "shop.dump" in problem
    assert (place / "shop.dump").is_symlink()
    assert [path.read_bytes() for path in outside.iterdir()] == [b"outside"]


# --- who does not let us in, and whom we do not believe ---


def _refusal(target: Target) -> str:
    """Given a target that cannot be used, return what is said about it, soon."""
    begin = time.monotonic()
    with pytest.raises(PgkeepError) as error, connect("vault", target, Cancellation()) as remote:
        remote.files()
    assert time.monotonic() - begin < 30
    assert "pgkeep.backup" not in str(error.value)
    return f"{type(error.value).__name__}: {error.value}"


@pytest.mark.parametrize("kind", ["append-only", "account"])
def test_ssh_failures_are_told_apart(make: Callable[[str], Case], kind: str, ssh_host: SshHost, tmp_path: Path) -> None:
    target = make(kind).target
    (tmp_path / "no_key").write_text("no key\n")
    (tmp_path / "no_key").chmod(0o600)
    unknown = tmp_path / "known_none"
    unknown.touch()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    words = (tmp_path / "other.pub").read_text().split()
    changed = tmp_path / "known_other"
    changed.write_text(f"[127.0.0.1]:{ssh_host.port} {words[0]} {words[1]}\n")

    refused = _refusal(replace(target, key_file=str(tmp_path / "other")))
    assert refused.startswith("ConfigurationError")
    assert f"{ssh_host.user}@127.0.0.1 refuses the key {tmp_path}/other" in refused
    assert "authorized_keys" in refused
    assert "cannot be used" in _refusal(replace(target, key_file=str(tmp_path / "no_key")))
    not_known = _refusal(replace(target, known_hosts_file=str(unknown)))
    assert f"ssh-keyscan -p {ssh_host.port} 127.0.0.1 >> {unknown}" in not_known
    other = _refusal(replace(target, known_hosts_file=str(changed)))
    assert "somebody may stand in between" in other
    assert f"ssh-keygen -R '[127.0.0.1]:{ssh_host.port}' -f {changed}" in other
    gone = _refusal(replace(target, port=free_port()))
    assert gone.startswith("ToolError: 127.0.0.1 cannot be reached")
    assert "Connection refused" in gone


def test_key_for_another_purpose(make: Callable[[str], Case]) -> None:
    case, reading = make("append-only"), make("account").target
    assert "set `append_only: true`" in _refusal(replace(reading, key_file=case.target.key_file, path=""))
    wrong = _refusal(replace(case.target, key_file=reading.key_file))
    assert "the key does not run `pgkeep receive`" in wrong


def test_account_that_can_only_add_says_where_the_rest_is_done(make: Callable[[str], Case], tmp_path: Path) -> None:
    with make("append-only").remote as remote:
        for ask in (
            lambda: remote.get(ID, ["shop.dump"], str(tmp_path)),
            lambda: remote.get_manifests([ID], str(tmp_path)),
            lambda: remote.delete(ID, ["shop.dump"]),
        ):
            with pytest.raises(ConfigurationError, match="this account can only add copies"):
                ask()


def test_store_failures_are_told_apart(make: Callable[[str], Case], object_store: ObjectStore, tmp_path: Path) -> None:
    target = make("s3").target
    right = Path(str(target.config_file)).read_text()

    def with_config(name: str, pattern: str, value: str) -> Target:
        return replace(target, config_file=_rclone_config(tmp_path / name, re.sub(pattern, value, right)))

    wrong = _refusal(with_config("secret", "secret_access_key = .*", "secret_access_key = WrongSecretWrongSecret"))
    assert wrong.startswith("ConfigurationError: store refuses the credentials: correct them in ")
    assert "WrongSecret" not in wrong
    assert "refuses the credentials" in _refusal(
        with_config("nobody", "access_key_id = .*", "access_key_id = NOBODYATALL")
    )
    assert "signed by nobody that this host knows" in _refusal(replace(target, flags=()))
    missing = _refusal(replace(target, path="no-such-bucket/copies"))
    assert missing.startswith("ConfigurationError: the bucket no-such-bucket is not there")
    gone = _refusal(with_config("gone", f":{object_store.port}", f":{free_port()}"))
    assert gone.startswith("ToolError: store cannot be reached")
    assert "has no section [other], only these: store" in _refusal(replace(target, remote="other"))
    Path(str(target.config_file)).chmod(0o640)
    assert "chmod 0600" in _refusal(target)


def test_writer_can_neither_delete_nor_replace(make: Callable[[str], Case], backup: Backup) -> None:
    case = make("s3")
    with case.remote as remote:
        backup.bring(remote)
        with pytest.raises(ConfigurationError, match="do not permit it"):
            remote.delete(ID, list(NAMES))
    assert len(case.stored.names()) == len(NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_altered_at_home_is_no_copy_however_equal(
    make: Callable[[str], Case], kind: str, backup: Backup
) -> None:
    path, expected = backup.directory / NAMES[0], backup.file(NAMES[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    case = make(kind)
    with case.remote as remote:
        remote.put(str(backup.directory), ID, [NAMES[0]])
        assert remote.check(str(backup.directory), ID, [expected]).problem


def test_a_bucket_with_versions_is_read_as_it_was_before_somebody_wrote_over_a_copy(
    make: Callable[[str], Case], object_store: ObjectStore, backup: Backup, tmp_path: Path
) -> None:
    case, bucket = make("s3"), object_store.make_bucket("versioned")
    target = replace(case.target, path=f"{bucket}/copies")
    with connect("vault", target, Cancellation()) as remote:
        backup.bring(remote)
    time.sleep(1)  # a time has whole seconds here
    moment = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    time.sleep(1)
    client = object_store.client()
    for name in NAMES:
        client.put_object(Bucket=bucket, Key=f"copies/{ID}/{name}", Body=b"evil")
    past = replace(target, flags=(*target.flags, f"--s3-version-at={moment}"))
    with connect("past", past, Cancellation()) as remote:
        assert set(remote.files().values()) != {4}
        manifests, into = tmp_path / "manifests", tmp_path / "into"
        manifests.mkdir()
        into.mkdir()
        remote.get_manifests([ID], str(manifests))
        assert (manifests / ID / "manifest.json").read_bytes() != b"evil"
        remote.get(ID, list(NAMES), str(into))
        assert {(into / name).read_bytes() == b"evil" for name in NAMES} == {False}
        (into / "new").write_bytes(b"new")
        with pytest.raises(PgkeepError):
            remote.put(str(into), ID, ["new"])


def test_what_a_lock_holds_is_no_failure(
    make: Callable[[str], Case], object_store: ObjectStore, backup: Backup
) -> None:
    """Ceph lets a delete hide a locked version, as others do: so the lock's own words are in the unit tests."""
    case = make("s3")
    bucket = object_store.make_bucket("locked")
    target = replace(case.reader, path=f"{bucket}/copies")
    with connect("vault", target, Cancellation()) as remote:
        backup.bring(remote)
        remote.delete(ID, list(NAMES))
        assert remote.files() == {}
    versions = object_store.client().list_object_versions(Bucket=bucket)
    assert len(versions["Versions"]) == len(versions["DeleteMarkers"]) == len(NAMES)


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["directory", "account"])
def test_what_an_attribute_holds_is_no_failure(make: Callable[[str], Case], kind: str, backup: Backup) -> None:
    case = make(kind)
    with case.remote as remote:
        backup.bring(remote)
        manifest = case.stored.directory / ID / "manifest.json"
        held = subprocess.run(["chattr", "+i", manifest], capture_output=True, check=False)
        if held.returncode:
            pytest.skip("this file system knows no attributes")
        try:
            with pytest.raises(LockedCopyError):
                remote.delete(ID, list(NAMES))
        finally:
            subprocess.run(["chattr", "-i", manifest], check=True)
    assert len(case.stored.names()) == len(NAMES)


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        ("-2h", "ConfigurationError: the clock of this host differs from the one of store"),
        ("-4000d", "ConfigurationError: the certificate of store has expired or is not valid yet"),
    ],
)
def test_clock_and_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: str, said: str) -> None:
    """A store in another time: of two hours ago, and of a time when its certificate was good."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if not library or any(not find_program(name) for name in STORE_PROGRAMS):
        pytest.skip("needs faketime and Ceph, which are not installed")
    with monkeypatch.context() as then:
        for name, value in (("LD_PRELOAD", str(library)), ("FAKETIME", clock), ("DONT_FAKE_MONOTONIC", "1")):
            then.setenv(name, value)
        then.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        store = ObjectStore()
        store.__enter__()
    try:
        target = Target(
            type="rclone", remote="store", path="bucket/copies", flags=(f"--ca-cert={store.ca_file}",),
            config_file=str(store.write_rclone_config(tmp_path / "rclone.conf")),
        )  # fmt: skip
        assert _refusal(target).startswith(said)
    finally:
        store.remove()


# --- a store that lies, and one that cannot tell ---


@pytest.mark.parametrize("place", [0, 3 * MEGABYTE, 6 * MEGABYTE])
def test_everything_read_back_finds_one_bit(make: Callable[[str], Case], backup: Backup, place: int) -> None:
    """The MD5 of an upload in parts is what the uploader said of it: only reading tells."""
    case = make("s3")
    data = bytearray((backup.directory / "shop.dump").read_bytes())
    with case.remote as remote:
        backup.bring(remote)
    stored = case.stored
    assert isinstance(stored, StoredObjects)
    told = stored.client.head_object(Bucket=stored.bucket, Key=f"{stored.prefix}{ID}/shop.dump")["Metadata"]
    data[place] ^= 1
    stored.client.put_object(
        Bucket=stored.bucket, Key=f"{stored.prefix}{ID}/shop.dump", Body=bytes(data), Metadata=told
    )
    with connect("vault", replace(case.target, read_back="full"), Cancellation()) as remote:
        checked = remote.check(str(backup.directory), ID, backup.files)
    assert "shop.dump was altered" in checked.problem


def test_sample_finds_a_file_of_other_content(make: Callable[[str], Case], backup: Backup, tmp_path: Path) -> None:
    """Over WebDAV and the like no checksum is told at all; here the store has one taken away."""
    case = make("sftp")
    text = Path(str(case.target.config_file)).read_text() + "disable_hashcheck = true\n"
    target = replace(case.target, config_file=_rclone_config(tmp_path / "mute.conf", text))
    with connect("vault", target, Cancellation()) as remote:
        backup.bring(remote)
        assert remote.check(str(backup.directory), ID, backup.files).method == "sample"
        assert remote.check(str(backup.directory), ID, backup.files).problem == ""
        for name in ("shop.dump", "more.dir/toc.dat"):
            good = case.stored.read(f"{ID}/{name}")
            case.stored.write(f"{ID}/{name}", os.urandom(len(good)))
            assert f"{name} was altered" in remote.check(str(backup.directory), ID, backup.files).problem
            case.stored.write(f"{ID}/{name}", good)
    with connect("vault", replace(target, read_back="full"), Cancellation()) as remote:
        assert remote.check(str(backup.directory), ID, backup.files).method == "sha256"


# --- mounted storage ---


def test_storage_that_is_not_mounted(tmp_path: Path) -> None:
    target = Target(type="directory", path=str(tmp_path / "mnt/copies"))
    with (
        pytest.raises(RepositoryError, match="mount the storage, or create the directory"),
        connect("vault", target, Cancellation()),
    ):
        pass
    assert not (tmp_path / "mnt").exists()


def test_environment_of_the_job_is_not_the_programs(
    make: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere")
    monkeypatch.setenv("RCLONE_CONFIG_STORE_ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setenv("RSYNC_RSH", "false")
    monkeypatch.setenv("RCLONE_DRY_RUN", "true")
    for kind in ("s3", "account"):
        with make(kind).remote as remote:
            assert remote.files() == {}
