# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import rsync, targets
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import (
    ConfigurationError,
    PgkeepError,
    SpaceError,
    ToolError,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Target

TARGET = Target(type="rsync", host="vault", timeout=timedelta(minutes=2))
FULL = replace(TARGET, port=2222, user="pgkeep", key_file="/etc/key", known_hosts_file="/etc/known", path="db1/")


def test_ssh_asks_nobody_and_believes_nobody() -> None:
    words = " ".join(rsync.ssh_argv(FULL))
    for said in (
        "BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=120", "ServerAliveInterval=40", "ForwardAgent=no",
        "IdentitiesOnly=yes", "IdentityFile=/etc/key", "UserKnownHostsFile=/etc/known", "GlobalKnownHostsFile=none",
        "-p 2222", "-l pgkeep", "ClearAllForwardings=yes",
    ):  # fmt: skip
        assert said in words
    assert "IdentityFile" not in " ".join(rsync.ssh_argv(TARGET))
    assert "KnownHostsFile" not in " ".join(rsync.ssh_argv(TARGET))
    assert not re.search(r"['\"\\]", words)


def test_places() -> None:
    assert rsync.place(TARGET) == "vault:./"
    assert rsync.place(FULL) == "vault:db1/"
    assert rsync.place(replace(TARGET, path="/")) == "vault:/"
    assert rsync.place(replace(TARGET, path="/srv/x")) == "vault:/srv/x/"
    assert rsync.place(replace(TARGET, host="2001:db8::1", path="x")) == "[2001:db8::1]:x/"


def test_nothing_is_told_to_rsync_that_leaves_parts_or_replaces() -> None:
    for append_only in (True, False):
        options = rsync.put_options(append_only)
        assert "--ignore-existing" in options
        assert ("--fsync" in options) != append_only
        assert not re.search("partial|inplace|append|delete|backup|update|temp", " ".join(options))


def test_limits_are_passed_on() -> None:
    assert "--timeout=120" in rsync.rsync_argv(TARGET)
    assert not [word for word in rsync.rsync_argv(TARGET, silent=True) if word.startswith("--timeout")]
    assert "--bwlimit=1024" in rsync.rsync_argv(replace(TARGET, bandwidth=1024 * 1024))
    assert "--bwlimit=1" in rsync.rsync_argv(replace(TARGET, bandwidth=1))
    assert targets.silence(10_000_000, timedelta(seconds=5)) == timedelta(seconds=6)


def test_filters_name_the_folders_above() -> None:
    assert rsync.filters(["a/b/c", "a/d"]).split() == ["/a/", "/a/b/", "/a/b/c", "/a/d"]
    assert rsync.filters([], ["a/b"]).split() == ["/a/", "/a/b/***"]
    assert rsync.filters([]) == ""


def test_listing() -> None:
    text = """drwx------        4096 2025/11/05 14:30:00 .
drwx------        4096 2025/11/05 14:30:00 main
-rw-------       12345 2025/11/05 14:30:00 main/a%20b/x
-rw-r--r--+          0 2025/11/05 14:30:00 main/with a space
-rw-------           7 2025/11/05 14:30:00 main/.x.dump.a1B2c3
-rw-------           7 2025/11/05 14:30:00 .trash/x
lrwxrwxrwx          11 2025/11/05 14:30:00 main/link -> /etc/passwd
prw-------           0 2025/11/05 14:30:00 main/pipe
Welcome to vault!
"""
    assert rsync.parse_listing(text) == {"main/a%20b/x": 12345, "main/with a space": 0}


def test_changes() -> None:
    assert rsync.parse_changes("") == ""
    assert rsync.parse_changes("cd+++++++++ main/\n<f+++++++++ main/x\n") == "main/x is missing"
    assert rsync.parse_changes("<fcs....... main/y\n<f+++++++++ main/x\n") == "main/y was altered: its checksum differs"


@pytest.mark.parametrize(
    ("status", "said", "kind", "message"),
    [
        (
            255,
            "pgkeep@vault: Permission denied (publickey).",
            ConfigurationError,
            "pgkeep@vault refuses the key /etc/key",
        ),
        (255, "Host key verification failed.", ConfigurationError, "ssh-keyscan -p 2222 vault >> /etc/known"),
        (
            255,
            "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nHost key verification failed.",
            ConfigurationError,
            "somebody may stand in between",
        ),
        (255, "ssh: connect to host vault port 2222: Connection refused", ToolError, "vault cannot be reached"),
        (255, "ssh: Could not resolve hostname vault: Name or service not known", ToolError, "vault cannot be reached"),
        (12, "rsync: connection unexpectedly closed (0 bytes received so far)", ToolError, "the connection was lost"),
        (11, 'rsync: write failed on "x": No space left on device (28)', SpaceError, "vault takes no more"),
        (11, 'rsync: write failed on "x": File too large (27)', SpaceError, "vault takes no more"),
        (12, "pgkeep: error: the quota of 4.0 MB is used up\nunexpectedly closed", SpaceError, "the quota of 4.0 MB"),
        (12, "pgkeep: error: /srv/x is not there: create it", ConfigurationError, "vault says: /srv/x is not there"),
        (23, 'rsync: mkdir "/srv" failed: Permission denied (13)', ConfigurationError, "check owner, mode and mount"),
        (30, "rsync error: timeout in data send/receive", ToolError, "was silent for too long"),
        (127, "bash: rsync: command not found", ConfigurationError, "a program is missing on vault"),
        (127, "bash: line 1: pgkeep: command not found", ConfigurationError, "does not run `pgkeep receive`"),
        (1, "rsync: --fsync: unknown option", ConfigurationError, "too old: 3.2.4 or newer"),
        (
            12,
            "rrsync error: option --delete has been disabled on this server.",
            ConfigurationError,
            "forced command refuses",
        ),
        (
            12,
            "rrsync error: reading from write-only server is not allowed",
            ConfigurationError,
            "set `append_only: true`",
        ),
        (12, "rrsync error: sending to read-only server is not allowed", ConfigurationError, "may only read"),
        (-9, "", ToolError, "out of memory"),
        (99, "", ToolError, "it said nothing"),
    ],
)
def test_failures_say_what_to_do(status: int, said: str, kind: type[PgkeepError], message: str) -> None:
    error = rsync.failure("rsync", status, said, FULL)
    assert error.__class__ is kind
    assert message in str(error)
    assert "@@" not in str(error)
    assert "\n" not in str(error)


def test_what_is_not_there_yet() -> None:
    assert rsync.nothing_there(23, 'rsync: [sender] change_dir "/srv/x" failed: No such file or directory (2)')
    assert rsync.nothing_there(
        12, "/usr/bin/rrsync error: post-realpath open failed (race detected): x/ No such file or directory"
    )
    assert not rsync.nothing_there(23, 'rsync: change_dir "/srv/x" failed: Permission denied (13)')
    assert not rsync.nothing_there(0, "")
