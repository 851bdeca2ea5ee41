# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import archive
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.archive import Archive, Progress, Stages
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import (
    SEARCH_PATH,
    Cancellation,
    Limits,
    Processes,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import RepositoryError, ToolError

Script = Callable[[str, str], tuple[str, ...]]
NEVER = Limits(timedelta(hours=1), timedelta(hours=1))
READ_ALL = "exec cat > /dev/null"


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Return a function: given a program's name and its shell script, return the command that runs it."""

    def write(name: str, text: str) -> tuple[str, ...]:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return (str(path),)

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def write(path: Path, stages: Stages, progress: Progress | None = None) -> Archive:
    """Write an archive."""
    with Processes({"PATH": SEARCH_PATH}, Cancellation()) as processes:
        return archive.write_stream(processes, stages, str(path), NEVER, 0, progress or Progress())


def failure(path: Path, stages: Stages) -> str:
    """Write an archive that goes wrong; return what is said of it."""
    with pytest.raises(ToolError) as caught:
        write(path, stages)
    return str(caught.value)


def many(lines: int) -> str:
    """Return a command that writes so many lines of 100 bytes."""
    return f"yes {'x' * 99} | head -n {lines}"


def content(lines: int) -> bytes:
    return (b"x" * 99 + b"\n") * lines


# --- what goes well ---


@pytest.mark.parametrize("lines", [1, 1000, 200_000])
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_is_what_was_dumped_with_size_and_checksum(
    script: Script, tmp_path: Path, lines: int, packed: bool
) -> None:
    stages = Stages(
        script("pg_dump", many(lines)),
        ("gzip", "-n", "-c") if packed else (),
        ("gzip", "-d", "-c") if packed else (),
        script("pg_restore", READ_ALL),
    )
    progress = Progress()
    written = write(tmp_path / "file", stages, progress)
    data = (tmp_path / "file").read_bytes()
    (file,) = written.files
    assert (gzip.decompress(data) if packed else data) == content(lines)
    assert (file.path, file.size, file.sha256) == ("file", len(data), hashlib.sha256(data).hexdigest())
    assert written.content_sha256 == (hashlib.sha256(content(lines)).hexdigest() if packed else None)
    assert progress.bytes == lines * 100


@pytest.mark.parametrize("packed", [False, True])
def test_a_reader_that_stops_early_and_is_content_is_believed(script: Script, tmp_path: Path, packed: bool) -> None:
    stages = Stages(
        script("pg_dump", many(100_000)),
        ("gzip", "-1c") if packed else (),
        ("gzip", "-dc") if packed else (),
        script("pg_restore", "head -c 1000 > /dev/null"),
        reads_all=False,
    )
    assert write(tmp_path / "file", stages).files[0].size == (tmp_path / "file").stat().st_size


def test_warnings_of_the_dump_are_kept(script: Script, tmp_path: Path) -> None:
    dump = script("pg_dump", "echo x; echo 'pg_dump: warning: circular' >&2; echo 'pg_dump: reading' >&2")
    assert write(tmp_path / "file", Stages(dump)).warnings == ("pg_dump: warning: circular",)


def test_the_version_of_an_archive_is_read_from_its_head(script: Script, tmp_path: Path) -> None:
    dump = script("pg_dump", "printf 'PGDMP\\001\\017\\000more'")
    assert write(tmp_path / "file", Stages(dump)).version == "1.15"
    assert archive.archive_version(b"PGDMP\x01") is None
    assert archive.archive_version(b"xPGDMP\x01\x0f") is None
    assert archive.archive_version(b"t" * 512 + b"PGDMP\x01\x0e") == "1.14"


# --- what does not ---


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("dump", "said"),
    [
        ("echo some; exit 1", "pg_dump failed (status 1)"),
        (
            "echo some; echo 'pg_dump: error: could not write' >&2",
            "pg_dump failed (status 0): pg_dump: error: could not",
        ),
        ("echo some; kill -SEGV $$", "pg_dump was ended by signal 11"),
        ("exit 0", "pg_dump ended with status 0 and wrote nothing"),
        ("exit 1", "pg_dump failed (status 1): it said nothing"),
    ],
)
def test_a_dump_that_fails_in_any_way_is_no_archive(
    script: Script, tmp_path: Path, packed: bool, dump: str, said: str
) -> None:
    compressor, decompressor = (("gzip", "-c"), ("gzip", "-dc")) if packed else ((), ())
    stages = Stages(script("pg_dump", dump), compressor, decompressor, script("pg_restore", READ_ALL))
    assert failure(tmp_path / "file", stages).startswith(said)


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize(
    ("reader", "said"),
    [
        ("exit 1", "the archive cannot be read back: pg_restore failed (status 1)"),
        (f"echo 'pg_restore: error: no' >&2; {READ_ALL}", "pg_restore failed (status 0): pg_restore: error: no"),
        ("head -c 10 > /dev/null; kill -KILL $$", "the archive cannot be read back: pg_restore was killed"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_that_cannot_be_read_back_is_none(
    script: Script, tmp_path: Path, lines: int, reader: str, said: str, packed: bool
) -> None:
    compressor, decompressor = (("gzip", "-1c"), ("gzip", "-dc")) if packed else ((), ())
    stages = Stages(script("pg_dump", many(lines)), compressor, decompressor, script("pg_restore", reader))
    assert said in failure(tmp_path / "file", stages)


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize(
    ("compressor", "said"),
    [
        ("exit 1", "zstd failed (status 1)"),
        ("head -c 50 | gzip -c; echo 'zstd: error: out of memory' >&2; exit 1", "zstd: error: out of memory"),
        ("gzip -1c; exit 2", "zstd failed (status 2)"),
    ],
)
def test_a_compressor_that_fails_makes_no_archive(
    script: Script, tmp_path: Path, lines: int, compressor: str, said: str
) -> None:
    stages = Stages(script("pg_dump", many(lines)), script("zstd", compressor), ("gzip", "-dc"))
    assert said in failure(tmp_path / "file", stages)


def test_a_compressor_that_loses_bytes_and_says_nothing_is_caught(script: Script, tmp_path: Path) -> None:
    stages = Stages(
        script("pg_dump", many(1000)), script("zstd", "head -n 999 | gzip -c; cat > /dev/null"), ("gzip", "-dc")
    )
    with pytest.raises(RepositoryError, match="does not decompress to what was dumped"):
        write(tmp_path / "file", stages)


def test_a_decompressor_that_fails_makes_no_archive(script: Script, tmp_path: Path) -> None:
    stages = Stages(
        script("pg_dump", many(1000)), ("gzip", "-c"), script("unzstd", "cat > /dev/null; exit 3"),
        script("pg_restore", READ_ALL),
    )  # fmt: skip
    assert "unzstd failed (status 3)" in failure(tmp_path / "file", stages)


@pytest.mark.parametrize("packed", [False, True])
def test_text_without_its_end_is_not_complete(script: Script, tmp_path: Path, packed: bool) -> None:
    compressor, decompressor = (("gzip", "-1c"), ("gzip", "-dc")) if packed else ((), ())

    def stages(dump: str) -> Stages:
        return Stages(script("pg_dump", dump), compressor, decompressor, has_end=lambda tail: b"-- complete" in tail)

    assert failure(tmp_path / "a", stages(many(100_000))) == "the dump has no end: it is not complete"
    marked = f"{many(100_000)}; echo '-- complete'; printf '\\n\\n'"
    assert write(tmp_path / "b", stages(marked)).files[0].path == "b"


@pytest.mark.needs_root
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lines", [10_500, 100_000])
def test_a_full_disk_is_what_is_told_and_not_the_program_that_choked_on_it(
    script: Script, small_disk: Path, packed: bool, lines: int
) -> None:
    compressor, decompressor = (("cat",), ("cat",)) if packed else ((), ())
    stages = Stages(script("pg_dump", many(lines)), compressor, decompressor, script("pg_restore", READ_ALL))
    with pytest.raises(OSError, match="No space left on device"):
        write(small_disk / "file", stages)


# --- encrypted ---


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_stored_went_through_the_encryptor_and_what_is_read_back_did_not(
    script: Script, tmp_path: Path, packed: bool
) -> None:
    compressor, decompressor = (("gzip", "-1c"), ("gzip", "-dc")) if packed else ((), ())
    reader = script("pg_restore", f"cat > {tmp_path}/read")
    dump, encryptor = script("pg_dump", many(10_000)), script("age", "od -An -tx1 -v")
    written = write(tmp_path / "file", Stages(dump, compressor, decompressor, reader, encryptor=encryptor))
    stored = bytes.fromhex((tmp_path / "file").read_text())
    content = subprocess.run(dump, capture_output=True, check=True).stdout
    assert (gzip.decompress(stored) if packed else stored) == content
    assert (tmp_path / "read").read_bytes() == content
    (file,) = written.files
    assert file.sha256 == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert written.content_sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("cat; exit 1", "age failed (status 1): it said nothing"),
        ("echo 'age: error: no' >&2; cat", "age failed (status 0): age: error: no"),
        ("head -c 10; exit 3", "age failed (status 3)"),
        ("head -c 10 > /dev/null; kill -KILL $$", "age was killed"),
    ],
)
def test_an_encryptor_that_fails_in_any_way_leaves_no_archive(
    script: Script, tmp_path: Path, packed: bool, lines: int, program: str, said: str
) -> None:
    compressor, decompressor = (("gzip", "-1c"), ("gzip", "-dc")) if packed else ((), ())
    reader = script("pg_restore", READ_ALL)
    stages = Stages(script("pg_dump", many(lines)), compressor, decompressor, reader, encryptor=script("age", program))
    assert said in failure(tmp_path / "file", stages)


@pytest.mark.needs_root
@pytest.mark.parametrize("packed", [False, True])
def test_a_full_disk_is_told_from_an_encryptor_that_choked_on_it(
    script: Script, small_disk: Path, packed: bool
) -> None:
    compressor, decompressor = (("cat",), ("cat",)) if packed else ((), ())
    dump, reader = script("pg_dump", many(100_000)), script("pg_restore", READ_ALL)
    with pytest.raises(OSError, match="No space left on device"):
        write(small_disk / "file", Stages(dump, compressor, decompressor, reader, encryptor=("cat",)))


def test_an_existing_file_is_never_overwritten(script: Script, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", Stages(script("pg_dump", "echo x")))
    assert (tmp_path / "file").read_text() == "precious"


# --- directories ---


def directory(path: Path, stages: Stages) -> Archive:
    """Write an archive that is a directory."""
    with Processes({"PATH": SEARCH_PATH}, Cancellation()) as processes:
        arguments: dict[str, Any] = {"limits": NEVER, "reserve": 0, "progress": Progress()}
        return archive.write_directory(processes, stages, str(path), **arguments)


def test_every_file_of_a_directory_is_listed(script: Script, tmp_path: Path) -> None:
    target = tmp_path / "backup" / "x.dir"
    target.parent.mkdir()
    dump = script("pg_dump", f"mkdir {target}; cd {target}; printf 'PGDMP\\001\\016' > toc.dat; echo 12345 > 1.dat")
    written = directory(target, Stages(dump, reader=script("pg_restore", "exit 0")))
    assert [(item.path, item.size) for item in written.files] == [("x.dir/1.dat", 6), ("x.dir/toc.dat", 7)]
    assert written.files[0].sha256 == hashlib.sha256(b"12345\n").hexdigest()
    assert written.version == "1.14"


@pytest.mark.parametrize(
    ("dump", "reader", "said"),
    [
        ("exit 1", "exit 0", "pg_dump failed (status 1)"),
        ("mkdir {0}; echo 'pg_dump: error: x' >&2", "exit 0", "pg_dump failed (status 0): pg_dump: error: x"),
        ("mkdir {0}; touch {0}/toc.dat", "exit 4", "the archive cannot be read back: pg_restore failed (status 4)"),
        ("mkdir {0}; touch {0}/toc.dat", "echo 'pg_restore: error: x' >&2", "the archive cannot be read back"),
    ],
)
def test_a_directory_that_is_not_written_or_cannot_be_read_is_none(
    script: Script, tmp_path: Path, dump: str, reader: str, said: str
) -> None:
    target = tmp_path / "x.dir"
    stages = Stages(script("pg_dump", dump.format(target)), reader=script("pg_restore", reader))
    with pytest.raises(ToolError) as caught:
        directory(target, stages)
    assert str(caught.value).startswith(said)
