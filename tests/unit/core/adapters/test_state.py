# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import state
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.catalog import read_state
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Copy, Pin, State
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ManifestError, RepositoryError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.naming import MANIFEST_NAME, STATE_NAME

from tests.keeper import ROOT, until

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / ".cache/collections")}
START = "import sys; from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import state\n"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup, as far as locks and state know it."""
    path = tmp_path / "shop_2025-11-05_14-30-00"
    path.mkdir()
    (path / MANIFEST_NAME).write_text("{}")
    return path


@contextmanager
def other_process(code: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run code in another process until it says something, and end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


READING = "with state.in_use(sys.argv[1]): print('here', flush=True); sys.stdin.read()"


# --- in use ---


def is_in_use(path: Path) -> bool:
    with state.unused(str(path)) as free:
        return not free


def test_a_backup_is_in_use_while_another_process_reads_it_and_no_longer(backup: Path) -> None:
    assert not is_in_use(backup)
    with other_process(READING, backup), other_process(READING, backup):
        assert is_in_use(backup)
        with state.in_use(str(backup)):
            pass  # nobody waits for another reader
    assert not is_in_use(backup), "they were killed, and let go of it"


def test_a_child_that_inherited_it_keeps_a_backup_in_use(backup: Path) -> None:
    with state.in_use(str(backup)) as fd:
        child = subprocess.Popen(["sleep", "1000"], pass_fds=[fd])
    assert is_in_use(backup)
    child.kill()
    child.wait()
    assert not is_in_use(backup)


def test_asking_changes_nothing(backup: Path) -> None:
    before = sorted(backup.iterdir()), backup.stat().st_mtime_ns
    is_in_use(backup)
    with state.in_use(str(backup)):
        pass
    assert (sorted(backup.iterdir()), backup.stat().st_mtime_ns) == before


def gone(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def a_file(path: Path) -> None:
    gone(path)
    path.write_text("x")


def a_link(path: Path) -> None:
    gone(path)
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("change", [gone, a_file, a_link])
def test_what_is_no_backup_any_more_cannot_be_used(backup: Path, change: Callable[[Path], None]) -> None:
    change(backup)
    with (
        pytest.raises(RepositoryError, match=r"cannot be opened: .*: choose another backup"),
        state.in_use(str(backup)),
    ):
        pass


@pytest.mark.parametrize("meanwhile", [gone, lambda path: (gone(path), path.mkdir())])
def test_a_reader_waits_for_whoever_deletes_it_and_is_told(backup: Path, meanwhile: Callable[[Path], None]) -> None:
    said = []

    def use() -> None:
        with pytest.raises(RepositoryError) as caught, state.in_use(str(backup)):
            pass
        said.append(str(caught.value))

    reader = threading.Thread(target=use)
    with state.unused(str(backup)) as free:
        assert free
        reader.start()
        until(lambda: f"{backup.stat().st_ino} " in waiting_locks(), "the reader waits")
        meanwhile(backup)
    reader.join()
    assert said == [f"{backup} was deleted just now: choose another backup"]


def waiting_locks() -> str:
    """Return the inodes of files whose lock somebody waits for."""
    lines = Path("/proc/locks").read_text().splitlines()
    return " ".join(line.split()[-3].rpartition(":")[2] + " " for line in lines if " -> " in line)


# --- the state ---


def test_a_change_is_written_and_the_rest_stays(backup: Path) -> None:
    pinned = state.change(str(backup), lambda known: replace(known, pin=Pin("why")), "1")
    assert pinned == read_state(str(backup)) == State(pin=Pin("why"))
    copied = state.change(str(backup), lambda known: replace(known, copies=(Copy("nas", NOW, "sha256"),)), "2")
    assert copied == read_state(str(backup)) == State(pin=Pin("why"), copies=(Copy("nas", NOW, "sha256"),))
    assert sorted(path.name for path in backup.iterdir()) == [MANIFEST_NAME, STATE_NAME]
    assert (backup / STATE_NAME).stat().st_mode & 0o777 == 0o600


def test_what_a_killed_change_left_goes_with_the_next_one(backup: Path) -> None:
    (backup / ".new-0123456789abcdef").write_text("half of a st")
    state.change(str(backup), lambda known: replace(known, pin=Pin("why")), "x")
    assert sorted(path.name for path in backup.iterdir()) == [MANIFEST_NAME, STATE_NAME]


def test_a_change_that_fails_leaves_the_state_as_it_was(backup: Path) -> None:
    state.change(str(backup), lambda known: replace(known, pin=Pin("why")), "1")
    before = (backup / STATE_NAME).read_bytes()
    with pytest.raises(ZeroDivisionError):
        state.change(str(backup), lambda known: known.without_copy("a" * (1 // 0)), "2")
    (backup / ".new-3").mkdir()
    with pytest.raises(IsADirectoryError):
        state.change(str(backup), lambda known: State(), "3")
    assert (backup / STATE_NAME).read_bytes() == before


def test_a_state_that_cannot_be_believed_is_not_overwritten(backup: Path) -> None:
    (backup / STATE_NAME).write_text("{")
    with pytest.raises(ManifestError):
        state.change(str(backup), lambda known: State(), "1")
    assert (backup / STATE_NAME).read_text() == "{"


def test_without_a_manifest_there_is_no_state(backup: Path) -> None:
    (backup / MANIFEST_NAME).unlink()
    with pytest.raises(FileNotFoundError):
        state.change(str(backup), lambda known: State(), "1")
    (backup / MANIFEST_NAME).symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        state.change(str(backup), lambda known: State(), "1")
    assert not (backup / STATE_NAME).exists()


@pytest.mark.needs_root
def test_where_nothing_can_be_written_the_state_stays_and_reading_goes_on(backup: Path) -> None:
    state.change(str(backup), lambda known: replace(known, pin=Pin("why")), "1")
    subprocess.run(["mount", "--bind", "-o", "ro", backup, backup], check=True)
    try:
        with pytest.raises(OSError, match="Read-only"):
            state.change(str(backup), lambda known: State(), "2")
        assert read_state(str(backup)).pin == Pin("why")
        with state.in_use(str(backup)):
            assert is_in_use(backup)
    finally:
        subprocess.run(["umount", backup], check=True)


CHANGING = """
from datetime import datetime, timezone
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Copy
print('here', flush=True)
sys.stdin.read(1)
for number in range(100):
    name = f"{sys.argv[0]}-{__import__('os').getpid()}-{number}"
    state.change(sys.argv[1], lambda known: known.with_copy(Copy(name, datetime.now(timezone.utc), "md5")), name)
"""


def test_several_processes_that_change_it_at_once_lose_nothing(backup: Path) -> None:
    with (
        other_process(CHANGING, backup) as first,
        other_process(CHANGING, backup) as second,
        other_process(CHANGING, backup) as third,
    ):
        for process in (first, second, third):
            assert process.stdin
            process.stdin.write("x")
            process.stdin.flush()
        assert [process.wait() for process in (first, second, third)] == [0, 0, 0]
    assert len(set(read_state(str(backup)).targets)) == 300
    assert sorted(path.name for path in backup.iterdir()) == [MANIFEST_NAME, STATE_NAME]


def test_a_change_waits_for_nobody_who_only_reads(backup: Path) -> None:
    with other_process(READING, backup):
        assert state.change(str(backup), lambda known: replace(known, pin=Pin("why")), "1").pin
