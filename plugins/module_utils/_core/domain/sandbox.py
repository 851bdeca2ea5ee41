# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""The sandbox of a restore drill: what a program in it can see, and what that protects against.

Whoever may write to a backed-up database can put code into its dump, which a drill runs as a superuser of the
throw-away server. So a program in the sandbox sees the system's programs and what it is given, and nothing else: not
even what its user may read, such as a live server's data directory, its socket, or a password file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

# What programs need of a host. No secrets, no sockets; what a host does not have of it is left out.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/nsswitch.conf", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies", "/etc/perl",
    "/var/cache/postgresql",  # Debian: dictionaries of the text search
)  # fmt: skip
_EMPTY = ("/tmp", "/var/tmp", "/run", "/home", "/root")  # noqa: S108  (nothing of the host's is in them)


def bwrap_command(
    bwrap: str,
    hidden: Sequence[str],
    readable: Sequence[str],
    writable: Sequence[str],
    uid: int | None,
    gid: int | None,
    passwd: str | None = None,
    *,
    disable_userns: bool = False,
) -> tuple[str, ...]:
    """Given bubblewrap's path and absolute paths without links that exist, return what to put before a command line.

    Of a hidden directory nothing is seen, of a readable or writable one everything; where they are inside each other,
    the innermost decides. With uid and gid the programs believe to be that user; `passwd` is a file to show as the
    host's list of users. With disable_userns, which bubblewrap knows from 0.8 on, they cannot make user namespaces of
    their own, in which they could mount what the kernel lets its root mount; all other options are known to 0.4.
    """
    argv = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if uid is not None or disable_userns:
        argv += ["--unshare-user"]
    if disable_userns:
        argv += ["--disable-userns"]
    if uid is not None:
        argv += ["--uid", str(uid)]
    if gid is not None:
        argv += ["--gid", str(gid)]
    for path in SYSTEM:
        argv += ["--ro-bind-try", path, path]
    argv += ["--dev", "/dev", "--proc", "/proc"]
    for path in _EMPTY:
        argv += ["--tmpfs", path]
    if passwd is not None:
        argv += ["--ro-bind", passwd, "/etc/passwd"]
    # A later mount covers an earlier one, so the outer come first; of two at one place, the one that shows more wins.
    mounts = [(_depth(path), 0, path) for path in hidden]
    mounts += [(_depth(path), 1, path) for path in readable]
    mounts += [(_depth(path), 2, path) for path in writable]
    for _level, kind, path in sorted(set(mounts)):
        argv += (("--tmpfs", path), ("--ro-bind", path, path), ("--bind", path, path))[kind]
    # What was made to hang the mounts into is memory of the host: nobody has to fill it.
    shown = {*readable, *writable}
    for path in sorted({path for path in hidden if path not in shown}):
        argv += ["--remount-ro", path]
    # Whom the kernel knows as root may write to /proc/sys without any capability.
    return (*argv, "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", "/", "--")


def _depth(path: str) -> int:
    return os.path.normpath(path).count("/")


def protections(sandboxed: bool) -> tuple[str, ...]:
    """Given whether there is a sandbox, return in whole sentences what a drill protects against and what not."""
    always = (
        "The throw-away server has no TCP port, and its socket is in a directory that only its user can enter.",
        "The server and its data are removed when the drill ends, and by the next drill where it was killed.",
    )
    if not sandboxed:
        return (
            *always,
            "Without the sandbox, code inside a backup runs with all rights of the user that runs the drill, except"
            " root's: it can read and change that user's files, these backups among them, and use the network.",
        )
    return (
        *always,
        "Code inside a backup sees the system's programs, the backup that is restored and the drill's own directory:"
        " no other backup, no configuration, no home directory and no socket of another server.",
        "It can change only the drill's own directory.",
        "It has no network, no capabilities, and sees no process but the drill's; all of them end with the drill.",
        "It is not kept from using processor time, memory, and disk space where the drill's directory is.",
        "A hole in the kernel is not protected against; keep it up to date.",
    )
