# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Target, options_of
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.targets import (
    flag_problem,
    mount_points,
    target_problems,
    unmounted,
)

DIRECTORY = {"type": "directory", "path": "/srv/copies"}
RSYNC = {"type": "rsync", "host": "vault.example.com"}
RCLONE = {"type": "rclone", "remote": "store", "config_file": "/etc/pgkeep/rclone.conf", "path": "bucket/db1"}


@pytest.mark.parametrize(
    "raw",
    [
        DIRECTORY,
        RSYNC,
        RCLONE,
        {**DIRECTORY, "bandwidth": "10MB", "timeout": "1m", "deadline": "2h", "retries": 0},
        {
            **RSYNC,
            "path": "db1",
            "port": 2222,
            "user": "pgkeep",
            "key_file": "/etc/pgkeep/key",
            "known_hosts_file": "/k",
        },
        {**RSYNC, "path": "/srv/copies", "append_only": False},
        {**RSYNC, "host": "2001:db8::1"},
        {**RSYNC, "host": "fe80::1%eth0"},
        {
            **RCLONE,
            "flags": ["--s3-storage-class=STANDARD_IA", "--transfers=2", "--ca-cert=/etc/ca.pem"],
            "read_back": "full",
        },
        {**RCLONE, "path": "/srv/with a space"},
        # What `build` makes of a document: nothing said is the default.
        *(vars(Target(**raw)) for raw in ({"type": "directory", "path": "/srv/copies"}, RSYNC, RCLONE)),
        {"type": "tape"},
        {},
    ],
)
def test_what_can_be_meant(raw: dict[str, Any]) -> None:
    assert target_problems(raw) == []


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"type": "directory"}, "path is not set: a target of type directory needs it"),
        ({"type": "rsync"}, "host is not set: a target of type rsync needs it"),
        ({"type": "rclone", "path": "b", "config_file": "/c"}, "remote is not set: a target of type rclone needs it"),
        ({"type": "rclone", "path": "b", "remote": "s"}, "config_file is not set"),
        ({"type": "rclone", "config_file": "/c", "remote": "s"}, "path is not set"),
        ({**DIRECTORY, "host": "vault"}, "host is set: a target of type directory does not know it: leave it out"),
        ({**DIRECTORY, "append_only": False}, "append_only is set: a target of type directory"),
        ({**RSYNC, "flags": ["--fast-list"]}, "flags is set: a target of type rsync"),
        ({**RSYNC, "read_back": "full"}, "read_back is set: a target of type rsync"),
        ({**RCLONE, "port": 2222}, "port is set: a target of type rclone"),
        ({**DIRECTORY, "path": "srv/copies"}, "path is 'srv/copies': it must be the absolute path of a directory"),
        ({**DIRECTORY, "path": "/"}, "it must be the absolute path of a directory"),
        ({**DIRECTORY, "path": "/srv/../etc"}, "it must not have a .. in it"),
        ({**RSYNC, "path": "../db2"}, "it must not have a .. in it"),
        ({**RSYNC, "path": "/srv"}, "leave out the first /"),
        ({**RSYNC, "path": "a b"}, "it may have only"),
        ({**RSYNC, "path": "-e sh"}, "must not begin with -"),
        ({**RSYNC, "path": "~/copies"}, "it may have only"),
        ({**RSYNC, "path": "a;id"}, "it may have only"),
        ({**RSYNC, "host": "-oProxyCommand=id"}, "host is '-oProxyCommand=id': it must be"),
        ({**RSYNC, "host": "vault:22"}, "host is 'vault:22'"),
        ({**RSYNC, "host": "root@vault"}, "host is 'root@vault'"),
        ({**RSYNC, "user": "-l root"}, "user is '-l root': it must be the name of an account"),
        ({**RSYNC, "key_file": "/etc/my key"}, "key_file is '/etc/my key'"),
        ({**RSYNC, "key_file": "/etc/%h"}, "key_file is '/etc/%h'"),
        ({**RSYNC, "known_hosts_file": "known"}, "known_hosts_file is 'known'"),
        ({**RSYNC, "port": 70000}, "port is 70000: it must be 65535 or less"),
        ({**RCLONE, "remote": "store:"}, "remote must be the name of a section"),
        ({**RCLONE, "remote": ":s3,access_key_id=x"}, "remote must be the name of a section"),
        ({**RCLONE, "path": "other:bucket"}, "without the remote"),
        ({**RCLONE, "path": "-bucket"}, "must not begin with -"),
        ({**RCLONE, "path": "a/../../b"}, "it must not have a .. in it"),
        ({**RCLONE, "flags": ["--dry-run"]}, "flags: --dry-run is refused"),
    ],
)
def test_what_cannot_be_meant(raw: dict[str, Any], problem: str) -> None:
    (found,) = target_problems(raw)
    assert problem in found


def test_every_option_belongs_to_a_type() -> None:
    said = {**dict.fromkeys(options_of(Target), "x"), "port": 1, "flags": [], "append_only": False}
    for kind in ("directory", "rsync", "rclone"):
        foreign = {line.split(" ")[0] for line in target_problems({**said, "type": kind}) if "does not know it" in line}
        assert "type" not in foreign
        assert "path" not in foreign


@pytest.mark.parametrize(
    "flag",
    [
        "--s3-storage-class=STANDARD_IA", "--s3-server-side-encryption=aws:kms", "--s3-sse-kms-key-id=arn:aws:kms:x",
        "--s3-acl=private", "--s3-chunk-size=64Mi", "--s3-upload-concurrency=8", "--gcs-storage-class=NEARLINE",
        "--azureblob-access-tier=Cool", "--b2-chunk-size=96M", "--sftp-key-file=/etc/key", "--transfers=8", "--fast-list",
        "--header-upload=X-Amz-Object-Lock-Mode: GOVERNANCE", "--ca-cert=/etc/ca.pem", "--client-key=/etc/client.key",
        "--user-agent=x", "--tpslimit=10", "--swift-chunk-size=1G", "--s3-no-check-bucket",
    ],
)  # fmt: skip
def test_flags_that_say_how(flag: str) -> None:
    assert flag_problem(flag) == ""


@pytest.mark.parametrize(
    "flag",
    [
        "--inplace", "--ignore-checksum", "--ignore-size", "--ignore-existing", "--ignore-times", "--dry-run", "-n", "-vv",
        "--config=/tmp/x", "--delete-before", "--delete-excluded", "--delete-during", "--backup-dir=x", "--suffix=.old",
        "--log-file=/etc/passwd", "--rc", "--rc-no-auth", "--size-only", "--update", "--max-delete=1", "--no-check-dest",
        "--dump=headers", "--dump-bodies", "--verbose", "--log-level=DEBUG", "--no-check-certificate", "--files-from=x",
        "--exclude=*", "--min-age=1d", "--max-size=1", "--filter=- *", "--immutable=false", "--retries=100", "--bwlimit=1",
        "--s3-no-head", "--s3-disable-checksum", "--local-no-check-updated", "--sftp-disable-hashcheck",
        "--s3-secret-access-key=x", "--s3-access-key-id=x", "--s3-session-token=x", "--s3-sse-customer-key=x", "--b2-key=x",
        "--azureblob-key=x", "--azureblob-sas-url=x", "--gcs-service-account-credentials=x", "--swift-key=x",
        "--sftp-pass=x", "--crypt-password=x", "--drive-token=x", "--drive-client-secret=x", "--webdav-bearer-token=x",
        "--password-command=id", "--use-json-log", "--stats=0", "--no-update-modtime", "--checksum", "--metadata",
        "--cutoff-mode=soft", "--max-transfer=1", "--track-renames", "--copy-dest=x", "--compare-dest=x", "--temp-dir=/x",
    ],
)  # fmt: skip
def test_flags_that_would_do_something_else(flag: str) -> None:
    problem = flag_problem(flag)
    assert problem.startswith("flags: ")
    assert flag.split("=", maxsplit=1)[0] in problem
    assert not problem.endswith("x")


@pytest.mark.parametrize(
    "flag", ["", "x", "--", "--transfers 2", "--s3-acl=a\nb", "s3-acl=private", "--S3-ACL=x", "--=x"]
)
def test_flags_that_are_none(flag: str) -> None:
    assert "it must be written --NAME=VALUE" in flag_problem(flag)


@pytest.mark.parametrize(
    "flag", ["--s3-secret-access-key=TopSecret", "TopSecret", "--x TopSecret", "--s3 secret=TopSecret"]
)
def test_a_secret_is_not_said_again(flag: str) -> None:
    assert "=TopSecret" not in flag_problem(flag)
    assert "x TopSecret" not in flag_problem(flag)


# --- storage that should be mounted ---

FSTAB = """# device  mount point  type
UUID=1 / ext4 defaults 0 1
nas:/backup /mnt/nas nfs4 _netdev 0 0
/dev/sdb1 /mnt/with\\040space ext4 noauto 0 0
#old /mnt/old ext4
UUID=2 none swap sw 0 0
"""


def test_mount_points() -> None:
    assert mount_points(FSTAB) == ["/", "/mnt/nas", "/mnt/with space"]
    assert mount_points("") == []


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/mnt/nas/db1", "/mnt/nas"), ("/mnt/nas", "/mnt/nas"), ("/mnt/nas2/db1", ""), ("/srv/db1", ""),
        ("/mnt/with space/db1", "/mnt/with space"), ("/mnt", ""),
    ],
)  # fmt: skip
def test_storage_that_is_not_mounted(path: str, point: str) -> None:
    assert unmounted(path, FSTAB, {"/": True, "/mnt/nas": False, "/mnt/with space": False}) == point
    assert unmounted(path, FSTAB, {"/": True, "/mnt/nas": True, "/mnt/with space": True}) == ""
