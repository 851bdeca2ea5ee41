# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it costs to bring a copy elsewhere and to look at it there, beside the bare tool that only copies."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from tests.bench.measure import Case, Run, rounds
from tests.keeper import write_target
from tests.object_store import ObjectStore
from tests.ssh_host import SshHost

ROOT = Path(__file__).resolve().parents[2]
TITLE = "Copies in other places"
REMARK = (
    "One backup of {megabytes:,} MB that does not compress, to targets on this same machine: an sshd, a directory and an S3"
    " server (Ceph's radosgw) with its data in memory. Both ends share the processors, so every byte that is hashed or read"
    " back counts here; over a network it would not. The bare tools copy the same files, synced, and look at nothing."
)
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
_CHUNK = 1024 * 1024


def make_backup(repository: Path, megabytes: int) -> Path:
    """Given the path of a repository to make, write one backup of random bytes into it; return its directory."""
    sys.path.insert(0, str(ROOT / "plugins/module_utils"))
    from _core.domain import manifest, naming  # type: ignore[import-not-found]
    from _core.domain.version import VERSION  # type: ignore[import-not-found]

    created = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
    backup_id = naming.backup_id("main", "database", "shop", created)
    directory = repository / backup_id
    directory.mkdir(mode=0o700, parents=True)
    repository.chmod(0o700)
    data, digest = directory / f"{directory.name}.dump", hashlib.sha256()
    with data.open("wb") as file:
        for _unused in range(megabytes):
            chunk = os.urandom(_CHUNK)
            digest.update(chunk)
            file.write(chunk)
    data.chmod(0o600)
    size = megabytes * _CHUNK
    document = {key.name: None for key in manifest.KEYS}
    document.update(
        manifest_version=1, id=backup_id, instance="main", kind="database", database="shop", created="2025-11-05T14:30:00Z",
        started="2025-11-05T14:30:00Z", finished="2025-11-05T14:30:09Z", duration=9.0, format="custom", compression="zstd:1",
        compressed_by="pg_dump", size=size, files=[{"path": data.name, "size": size, "sha256": digest.hexdigest()}],
        partial=False, left_out=[], warnings=[], options="custom zstd:1", command=["pg_dump"], host="db1",
        collection_version=VERSION,
    )  # fmt: skip
    (directory / "manifest.json").write_bytes(manifest.serialize(document))
    (directory / "manifest.json").chmod(0o600)
    return directory


class _Bench:
    """A repository with one backup, and what brings it elsewhere."""

    def __init__(self, where: Path, command: str, megabytes: int) -> None:
        self.where, self.command, self.etc = where, command, where / "etc"
        self.repository, self.far = where / "offsite", where / "far"
        self.backup = make_backup(self.repository, megabytes)

    def fresh(self) -> None:
        """Forget all copies."""
        (self.backup / "state.json").unlink(missing_ok=True)
        shutil.rmtree(self.far, ignore_errors=True)
        self.far.mkdir(mode=0o700)

    def sync(self, name: str, fresh: Callable[[], None]) -> Case:
        argv = [
            self.command,
            "sync",
            f"--config-dir={self.etc}",
            f"--repository={self.repository}",
            f"--targets={name}",
        ]
        return Case("pgkeep sync", argv, ENVIRONMENT, fresh)

    def ssh(self, host: SshHost) -> list[Case]:
        key = host.authorize(f"{self.command} receive {self.far}")
        write_target(
            self.etc, "vault", type="rsync", host=host.host, port=host.port, user=host.user, key_file=str(key),
            known_hosts_file=str(host.known_hosts),
        )  # fmt: skip
        *ssh, place = host.command()
        bare = [
            "rsync",
            "--archive",
            "--fsync",
            f"--rsh={shlex.join(ssh)}",
            f"{self.repository}/main",
            f"{place}:{self.far}/",
        ]
        return [self.sync("vault", self.fresh), Case("rsync --archive --fsync", bare, ENVIRONMENT, self.fresh)]

    def directory(self) -> list[Case]:
        write_target(self.etc, "nas", type="directory", path=str(self.far / "copies"))
        bare = ["rsync", "--archive", "--fsync", f"{self.repository}/main", f"{self.far}/"]
        return [self.sync("nas", self.fresh), Case("rsync --archive --fsync", bare, ENVIRONMENT, self.fresh)]

    def store(self, store: ObjectStore) -> list[Case]:
        bucket = store.make_bucket()
        config = store.write_rclone_config(self.where / "rclone.conf", store.owner)
        flags = [f"--ca-cert={store.ca_file}"]
        write_target(
            self.etc, "cloud", type="rclone", remote="store", path=f"{bucket}/db1", config_file=str(config), flags=flags
        )  # fmt: skip

        def fresh() -> None:
            self.fresh()
            client = store.client()
            for item in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
                client.delete_object(Bucket=bucket, Key=item["Key"])

        bare = ["rclone", f"--config={config}", *flags, "copy", str(self.repository), f"store:{bucket}/db1"]
        return [self.sync("cloud", fresh), Case("rclone copy", bare, ENVIRONMENT, fresh)]


def _build(where: Path) -> str:
    command = where / "pgkeep-offsite"
    build = [sys.executable, str(ROOT / "tools/build_command.py"), str(command), "--interpreter", sys.executable]
    subprocess.run(build, check=True)
    return str(command)


def section(
    where: Path,
    megabytes: int,
    count: int,
    say: Callable[[str], None],
    table: Callable[[Mapping[str, Sequence[Run]], str], list[str]],
) -> list[str]:
    """Given an empty directory, the size of the backup, the number of rounds, who hears of progress and what makes a
    table, measure; return the lines of the page's section.
    """
    say(f"making a backup of {megabytes} MB")
    bench = _Bench(where, _build(where), megabytes)
    lines = [f"## {TITLE}", "", REMARK.format(megabytes=megabytes)]
    with ExitStack() as stack:
        kinds = (
            ("To an account over SSH", lambda: bench.ssh(stack.enter_context(SshHost()))),
            ("To a directory", bench.directory),
            ("To S3", lambda: bench.store(stack.enter_context(ObjectStore()))),
        )
        for title, cases in kinds:
            results = rounds(cases(), count, say)
            lines += ["", f"{title}:", "", *table(results, next(iter(results)))]
    return lines
