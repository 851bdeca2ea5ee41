# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The S3 server of the tests does what tests of off-site copies take for granted: here as the distribution's rclone sees it."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from pathlib import Path

import pytest

from tests.object_store import ObjectStore

pytestmark = pytest.mark.needs_programs("rclone")

_LARGE = 6 << 20  # more than one part of an upload in parts


def _rclone(
    store: ObjectStore, config: Path, *arguments: str, ca_file: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [
        "rclone", "--config", str(config), "--ca-cert", str(ca_file or store.ca_file), "--retries=1",
        "--low-level-retries=1", "--s3-upload-cutoff=5Mi", "--s3-chunk-size=5Mi", *arguments,
    ]  # fmt: skip
    # Rclone stumbles over an AWS_CA_BUNDLE that this machine may have for others.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "RCLONE_"))}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def writer(object_store: ObjectStore, tmp_path: Path) -> Path:
    return object_store.write_rclone_config(tmp_path / "writer.conf")


@pytest.mark.parametrize("size", [5, _LARGE])
def test_writer_puts_and_gets(object_store: ObjectStore, writer: Path, tmp_path: Path, size: int) -> None:
    bucket = object_store.make_bucket()
    (tmp_path / "sent").write_bytes(b"x" * size)
    sent = _rclone(object_store, writer, "copyto", str(tmp_path / "sent"), f"store:{bucket}/a/b")
    assert sent.returncode == 0, sent.stderr
    listed = _rclone(object_store, writer, "lsf", "--recursive", "--files-only", "--format=ps", f"store:{bucket}")
    assert listed.stdout == f"a/b;{size}\n"
    got = _rclone(object_store, writer, "copyto", f"store:{bucket}/a/b", str(tmp_path / "got"))
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "got").read_bytes() == b"x" * size
    tag = object_store.client().head_object(Bucket=bucket, Key="a/b")["ETag"]
    assert ("-2" in tag) == (size == _LARGE), tag  # that of an upload in two parts


def test_writer_cannot_delete(object_store: ObjectStore, writer: Path, tmp_path: Path) -> None:
    bucket = object_store.make_bucket()
    object_store.client().put_object(Bucket=bucket, Key="by-owner", Body=b"1")
    object_store.client(object_store.writer).put_object(Bucket=bucket, Key="by-writer", Body=b"2")
    refused = _rclone(object_store, writer, "delete", f"store:{bucket}")
    assert refused.returncode != 0
    assert "AccessDenied" in refused.stderr
    assert "AccessDenied" in _rclone(object_store, writer, "purge", f"store:{bucket}").stderr
    assert "AccessDenied" in _rclone(object_store, writer, "backend", "versioning", f"store:{bucket}", "Enabled").stderr
    owner = object_store.write_rclone_config(tmp_path / "owner.conf", object_store.owner)
    assert _rclone(object_store, owner, "cat", f"store:{bucket}").stdout == "12"


def test_overwriting_leaves_the_older_version(object_store: ObjectStore, writer: Path) -> None:
    bucket = object_store.make_bucket("versioned")
    client = object_store.client(object_store.writer)
    for body in (b"first", b"second"):
        client.put_object(Bucket=bucket, Key="a", Body=body)
    object_store.client().delete_object(Bucket=bucket, Key="a")
    versions = client.list_object_versions(Bucket=bucket)
    assert len(versions["DeleteMarkers"]) == 1
    bodies = [
        client.get_object(Bucket=bucket, Key="a", VersionId=each["VersionId"])["Body"].read()
        for each in versions["Versions"]
    ]
    assert sorted(bodies) == [b"first", b"second"]
    assert _rclone(object_store, writer, "lsf", f"store:{bucket}").stdout == ""


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_nobody_deletes_a_locked_version(object_store: ObjectStore, mode: str) -> None:
    bucket, client = object_store.make_bucket("locked"), object_store.client()
    until = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1)
    version = client.put_object(
        Bucket=bucket, Key="a", Body=b"kept", ObjectLockMode=mode, ObjectLockRetainUntilDate=until
    )["VersionId"]
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key="a", VersionId=version)
    if mode == "GOVERNANCE":
        client.delete_object(Bucket=bucket, Key="a", VersionId=version, BypassGovernanceRetention=True)
    else:
        assert client.get_object(Bucket=bucket, Key="a", VersionId=version)["Body"].read() == b"kept"


def test_bucket_with_a_limit_gets_full(object_store: ObjectStore, writer: Path, tmp_path: Path) -> None:
    bucket = object_store.make_bucket()
    object_store.limit_bucket(bucket, 2 << 20)
    (tmp_path / "small").write_bytes(b"x" * (1 << 20))
    (tmp_path / "large").write_bytes(b"x" * _LARGE)
    assert _rclone(object_store, writer, "copy", str(tmp_path / "small"), f"store:{bucket}").returncode == 0
    assert "QuotaExceeded" in _rclone(object_store, writer, "copy", str(tmp_path / "large"), f"store:{bucket}").stderr
    object_store.limit_bucket(bucket, -1)
    assert _rclone(object_store, writer, "copy", str(tmp_path / "large"), f"store:{bucket}").returncode == 0


def test_certificate_of_another_authority_is_refused(object_store: ObjectStore, writer: Path) -> None:
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    assert system.exists()
    refused = _rclone(object_store, writer, "lsd", "store:", ca_file=system)
    assert refused.returncode != 0
    assert "certificate signed by unknown authority" in refused.stderr
    assert _rclone(object_store, writer, "lsd", "store:").returncode == 0


def test_store_has_the_same_after_an_outage(object_store: ObjectStore, writer: Path) -> None:
    bucket = object_store.make_bucket()
    object_store.client().put_object(Bucket=bucket, Key="a", Body=b"kept")
    object_store.stop()
    try:
        assert "connection refused" in _rclone(object_store, writer, "lsf", f"store:{bucket}").stderr
    finally:
        object_store.start()
    assert _rclone(object_store, writer, "cat", f"store:{bucket}/a").stdout == "kept"
