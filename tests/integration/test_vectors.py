# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encrypted backups of long ago, with the throw-away keys beside them: whoever has the plain tools reads them for ever.

They were made once and never change. Where one of these tests fails, the format has changed: that is the mistake, and
not the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import verify

from tests.integration.samples import contents
from tests.keeper import ROOT
from tests.keys import decrypted, gnupg
from tests.postgres import Server

METHODS = ("age", "gpg")
pytestmark = pytest.mark.needs_programs("age", "gpg", "gpg-agent", "zstd")


class Vector:
    """The backups of one method, copied to where their modes are right."""

    def __init__(self, method: str, directory: Path) -> None:
        shutil.copytree(ROOT / "tests/vectors" / method, directory, dirs_exist_ok=True)
        self.method, self.repository, self.identity = method, directory / "repository", directory / "identity"
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.fixture(params=METHODS)
def vector(request: pytest.FixtureRequest, tmp_path: Path) -> Vector:
    return Vector(request.param, tmp_path / "vector")


@pytest.fixture
def clerk(zstd_server: Server) -> Iterator[None]:
    zstd_server.psql("CREATE ROLE clerk")
    yield
    zstd_server.psql("DROP OWNED BY clerk; DROP ROLE clerk")


def dumped(vector: Vector, suffix: str) -> bytes:
    """Given the end of a file's name, decrypt and unpack that file with the plain tools."""
    (file,) = vector.repository.rglob(f"*{suffix}.{vector.method}")
    data = decrypted(file, vector.identity)
    if suffix.endswith(".zst"):
        data = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    document = json.loads((file.parent / "manifest.json").read_bytes())
    assert document["encryption"] == vector.method
    assert document["content_sha256"] == hashlib.sha256(data).hexdigest()
    return data


@pytest.mark.parametrize("suffix", [".dump", ".sql.zst", ".tar.zst"])
def test_they_decrypt_with_the_plain_tool_and_restore_with_the_plain_tool(
    vector: Vector, clerk: None, zstd_server: Server, fresh_database: Callable[..., str], suffix: str
) -> None:
    name = fresh_database(zstd_server)
    place = zstd_server.conninfo(name)
    command = [zstd_server.bindir / "pg_restore", "--exit-on-error", "-d", place]
    if suffix.startswith(".sql"):
        command = [zstd_server.bindir / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", place]
    subprocess.run(command, input=dumped(vector, suffix), capture_output=True, check=True)
    assert contents(zstd_server, name)["public.orders"][0] == 100
    assert zstd_server.psql("SELECT count(*) FROM orders WHERE what = 'order ' || id", name) == "100"
    assert zstd_server.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'", name) == "clerk"
    zstd_server.psql(f"DROP DATABASE {name}")


def test_their_globals_do_too(vector: Vector) -> None:
    assert b"CREATE ROLE clerk;" in dumped(vector, ".sql")


def test_pgkeep_reads_them(vector: Vector, zstd_server: Server) -> None:
    raw = {"repository": str(vector.repository), "bin_dir": str(zstd_server.bindir)}
    now = datetime(2025, 11, 8, tzinfo=timezone.utc)
    done = verify({**raw, "identity_file": str(vector.identity)}, False, lambda: now)
    assert [(item.verdict, item.problem) for item in done.verifications] == [("good", "")] * 4


# --- the document ---


def commands_of_the_document() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs/encryption.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_what_the_document_says_is_enough_without_pgkeep(
    clerk: None, zstd_server: Server, tmp_path: Path, number: int
) -> None:
    script = commands_of_the_document()[number]
    vector = Vector("gpg" if "gpg" in script else "age", tmp_path / "vector")
    name = f"shop_{os.urandom(4).hex()}"
    for written, ours in (
        ("/srv/copies/db1", str(vector.repository)),
        ("/root/pgkeep-identity", str(vector.identity)),
        ("createdb shop\n", f"createdb {name}\n"),
        ("--dbname=shop\n", f"--dbname={name}\n"),
    ):
        assert written in script
        script = script.replace(written, ours)
    with gnupg() as home:
        environment = {
            "PATH": f"{zstd_server.bindir}:/usr/bin:/bin", "GNUPGHOME": str(home), "LC_ALL": "C", "PGUSER": "postgres",
            "PGHOST": str(zstd_server.socket_dir), "PGPORT": str(zstd_server.port),
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", script], env=environment, cwd="/", capture_output=True, text=True, check=False
        )
    try:
        assert done.returncode == 0, done
        assert zstd_server.psql("SELECT count(*) FROM orders WHERE what = 'order ' || id", name) == "100"
    finally:
        zstd_server.psql(f"DROP DATABASE IF EXISTS {name}")


def test_the_document_has_no_other_commands_of_that_kind() -> None:
    assert len(commands_of_the_document()) == 3
