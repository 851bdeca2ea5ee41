# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real sshd that lives as long as a test: on 127.0.0.1, with keys and a configuration of its own."""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.postgres import free_port

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "setpriv")

_PATIENCE = 60  # seconds for a start, which takes a tenth of one


class SshFailure(RuntimeError):
    """An sshd that does not start; the message carries what it said."""


def find_program(name: str) -> str | None:
    """Return the path of a program, also of one that ordinary users do not have on their PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


class SshHost:
    """One throw-away sshd. Whoever runs the tests may log in, with a key alone.

    Use it as a context manager; whatever happens, it ends with the process that started it. Start it from the main thread.
    """

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.directory = Path(tempfile.mkdtemp(prefix="pgkeep-ssh-", dir="/tmp"))
        self.known_hosts = self.directory / "known_hosts"
        self.log_file = self.directory / "sshd.log"
        self._authorized_keys = self.directory / "authorized_keys"
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    def __enter__(self) -> SshHost:
        try:
            self._configure()
            self.key_file = self.authorize()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def start(self) -> None:
        """Start sshd, and return when it answers."""
        program = find_program("sshd")
        assert program is not None, "sshd is not installed"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", program, "-D", "-e", "-f", str(self.directory / "sshd_config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise SshFailure(f"sshd did not start:\n{self.log_file.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Stop sshd: nobody answers at the port. Connections that there are live on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE)
            self._process = None

    def remove(self) -> None:
        """Stop sshd if need be and delete all that was made; may be called again."""
        atexit.unregister(self.remove)
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def authorize(self, command: str | None = None, *, options: str = "restrict") -> Path:
        """Make a new key that may log in; return its private file. Given a command, the key is good for that alone.

        The options are those of a line of authorized_keys, besides the command.
        """
        key_file = self._make_key(f"key-{secrets.token_hex(4)}")
        if command is not None:
            options += ',command="{}"'.format(command.replace('"', '\\"'))
        public = key_file.with_suffix(".pub").read_text()
        with self._authorized_keys.open("a") as file:
            file.write(f"{options} {public}")
        return key_file

    def command(self, key_file: Path | None = None) -> list[str]:
        """Return the ssh that logs in here, with everything but the remote command; usually with the key for everything."""
        options = {
            "BatchMode": "yes", "IdentitiesOnly": "yes", "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts), "GlobalKnownHostsFile": "none",
        }  # fmt: skip
        return [
            "ssh", "-F", "none", "-i", str(key_file or self.key_file), "-p", str(self.port), "-l", self.user,
            *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
            self.host,
        ]  # fmt: skip

    def _configure(self) -> None:
        host_key = self._make_key("host_key")
        words = host_key.with_suffix(".pub").read_text().split()
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {words[0]} {words[1]}\n")
        self._authorized_keys.touch(mode=0o600)
        # Strict modes would not accept a file below /tmp. PAM is for root alone.
        (self.directory / "sshd_config").write_text(
            f"""\
ListenAddress {self.host}:{self.port}
HostKey {host_key}
PidFile none
AuthorizedKeysFile {self._authorized_keys}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
MaxStartups 100
Subsystem sftp internal-sftp
"""
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's service makes it, and sshd of root insists

    def _make_key(self, name: str) -> Path:
        path = self.directory / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)],
            stdin=subprocess.DEVNULL, capture_output=True, check=True,
        )  # fmt: skip
        return path
