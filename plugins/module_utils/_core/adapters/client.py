# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What the client programs need to reach the server that we are connected to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..domain import commands
from ..domain.model import Connection
from .process import SEARCH_PATH, memory_file


def as_connected(connection: Connection, host: str) -> Connection:
    """Given a connection and where it led, return it for the tools: their libpq may look for the socket elsewhere."""
    if connection.login_host or connection.login_unix_socket or connection.service:
        return connection
    return replace(connection, login_unix_socket=host)


@contextmanager
def client_environment(connection: Connection) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Given a connection, yield the environment of the tools and the descriptors that they have to inherit."""
    descriptors: tuple[int, ...] = ()
    if connection.login_password:
        descriptors = (memory_file("passfile", commands.passfile_line(connection.login_password).encode()),)
    try:
        passfile = f"/proc/self/fd/{descriptors[0]}" if descriptors else None
        yield commands.environment(connection, passfile, os.environ.get("HOME", "/"), SEARCH_PATH), descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
