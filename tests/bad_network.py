# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bad network: a proxy on 127.0.0.1 that cuts a connection, or lets it stall, after a number of bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

_PIECE = 16 * 1024


class BadNetwork:
    """What is between a client and the server at a port. Use it as a context manager; `port` is where clients connect."""

    def __init__(self, port: int, *, cut_after: int | None = None, stall_after: int | None = None) -> None:
        """Given the server's port, break every connection after so many bytes that its client sent."""
        self._server_port, self._cut, self._stall = port, cut_after, stall_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0  # by clients, altogether
        self._open: list[socket.socket] = []

    def __enter__(self) -> BadNetwork:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._listener)  # only closed, it would still be listened at
        for item in self._open:
            _end(item)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                passed += len(data)
                if counted:
                    self.sent += len(data)
                    if self._stall is not None and passed > self._stall:
                        return  # the client waits for ever, and so does the server
                    if self._cut is not None and passed > self._cut:
                        break
                sink.sendall(data)
        _end(source)
        _end(sink)


def _end(item: socket.socket) -> None:
    with contextlib.suppress(OSError):
        item.shutdown(socket.SHUT_RDWR)
    item.close()
