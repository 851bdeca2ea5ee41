# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real S3 server that lives as long as a test: Ceph's, set up by the script that sets up the test host `store` too."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from tests.postgres import free_port

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "curl", "openssl", "setpriv")

_SCRIPT = Path(__file__).resolve().parent.parent / "molecule/resources/object_store.sh"
_PATIENCE = 120  # seconds for a start or a stop, which take one


class StoreFailure(RuntimeError):
    """An object store that does not start, or refuses what it was told; the message carries what it said."""


class Account(NamedTuple):
    """What a user of the store logs in with."""

    access_key: str
    secret_key: str


class ObjectStore:
    """One throw-away S3 server with TLS on 127.0.0.1. Its buckets belong to `owner`, who may do everything.

    `writer` may put, read and list there; it can neither delete nor change or make a bucket. Use it as a context manager.
    Whatever happens, it ends with the process that started it. Start it from the main thread, as a server of PostgreSQL.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"https://127.0.0.1:{self.port}"
        self.owner = Account("owner", secrets.token_hex(16))
        self.writer = Account("writer", secrets.token_hex(16))
        self.directory = Path(tempfile.mkdtemp(prefix="pgkeep-store-", dir="/tmp"))
        self.directory.chmod(0o755)  # clients may run as another user
        self.ca_file = self.directory / "ca.pem"
        self._monitor_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    def __enter__(self) -> ObjectStore:
        try:
            self.start()
            for account in (self.owner, self.writer):
                self._call("user", account.access_key, stdin=account.secret_key)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def start(self) -> None:
        """Start the server, with all that it stored before; return when it answers."""
        log = self.directory / "start.out"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    "setpriv", "--pdeathsig", "TERM",
                    str(_SCRIPT), "run", str(self.directory), f"127.0.0.1:{self.port}", str(self._monitor_port),
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            if "ready\n" in log.read_text():
                return
            time.sleep(0.05)
        self.stop()
        said = [path.read_text(errors="replace")[-2000:] for path in self.directory.glob("*.out")]
        raise StoreFailure("\n".join(["the object store did not start:", *said]))

    def stop(self) -> None:
        """Stop the server and keep what it stored: nobody answers at the endpoint."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def remove(self) -> None:
        """Stop the server if need be and delete all of it; may be called again."""
        atexit.unregister(self.remove)
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def make_bucket(self, kind: Literal["plain", "versioned", "locked"] = "plain") -> str:
        """Make a bucket and return its name. `locked` has versions too, and a version that says so cannot be deleted."""
        name = f"bucket-{secrets.token_hex(6)}"
        self._call("bucket", name, kind, stdin=self.owner.secret_key)
        return name

    def limit_bucket(self, name: str, size: int) -> None:
        """Let a bucket take no more than so many bytes (whole KiB); -1 is no limit."""
        self._call("quota", name, str(size))

    def client(self, account: Account | None = None) -> Any:
        """Return a client of boto3 for an account, usually of the owner: to look at what is stored, and to meddle."""
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        access_key, secret_key = account or self.owner
        # Ceph of Debian 12 knows no checksums but MD5.
        required = "when_required"
        config = Config(
            request_checksum_calculation=required, response_checksum_validation=required, retries={"max_attempts": 0}
        )
        return boto3.client(
            "s3", endpoint_url=self.endpoint, verify=str(self.ca_file), region_name="us-east-1", config=config,
            aws_access_key_id=access_key, aws_secret_access_key=secret_key,
        )  # fmt: skip

    def write_rclone_config(self, path: Path, account: Account | None = None, **options: str) -> Path:
        """Write a configuration of rclone with the remote `store:` for an account, usually of the writer; return the path.

        The certificate authority is an option of the command line: --ca-cert. Options are those of rclone's backend.
        """
        access_key, secret_key = account or self.writer
        options = {
            "type": "s3", "provider": "Ceph", "endpoint": self.endpoint, "no_check_bucket": "true",
            "access_key_id": access_key, "secret_access_key": secret_key, **options,
        }  # fmt: skip
        path.touch(mode=0o600)
        path.write_text("\n".join(["[store]", *(f"{key} = {value}" for key, value in options.items()), ""]))
        return path

    def _call(self, command: str, *arguments: str, stdin: str = "") -> None:
        done = subprocess.run(
            [str(_SCRIPT), command, str(self.directory), *arguments],
            input=f"{stdin}\n", capture_output=True, text=True, check=False, timeout=_PATIENCE,
        )  # fmt: skip
        if done.returncode != 0:
            raise StoreFailure(f"object_store.sh {command} ended with {done.returncode}: {done.stdout}{done.stderr}")
