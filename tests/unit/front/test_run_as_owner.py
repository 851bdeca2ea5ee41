# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._ansible import run

from tests.keeper import ROOT, until

# The work writes its process id, waits to be asked to end, and says that it was.
MODULE = """
    import os, sys, time
    from pathlib import Path
    from ansible_collections.pgkeep.backup.plugins.module_utils._ansible import run
    def work():
        cancellation = run._cancellation()
        Path(sys.argv[1], "pid").write_text(f"{os.getpid()}\\n")
        while not cancellation.requested:
            time.sleep(0.01)
        Path(sys.argv[1], "ended").touch()
        return {"signal": cancellation.signal_number}
    print(run._in_child(work))
"""


def test_the_result_of_the_work_comes_back_from_the_process_that_gave_up_root() -> None:
    handlers = {number: signal.getsignal(number) for number in run.SIGNALS}
    done = run._in_child(lambda: {"pid": os.getpid(), "text": "\udcff", "list": [1, None]})
    for number, handler in handlers.items():
        signal.signal(number, handler)
    pid = done.pop("pid")
    assert pid != os.getpid()
    assert done == {"text": "\udcff", "list": [1, None]}
    with pytest.raises(ChildProcessError):  # it was waited for
        os.waitpid(pid, os.WNOHANG)


def test_work_that_is_killed_is_a_failure() -> None:
    handlers = {number: signal.getsignal(number) for number in run.SIGNALS}
    done = run._in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[arg-type,return-value]
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert done["failed"] is True
    assert "ended from outside (status 9)" in done["report"]["msg"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_work_is_asked_to_end_when_the_module_is_ended(tmp_path: Path, number: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache" / "collections")}
    module = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MODULE), tmp_path], env=environment, stdout=subprocess.PIPE, text=True
    )
    pid = tmp_path / "pid"
    until(lambda: pid.exists() and pid.read_text().endswith("\n"), "the work has begun")
    module.send_signal(number)
    until((tmp_path / "ended").exists, "the work has ended")
    said, _unused = module.communicate(timeout=60)
    assert said == ("" if number == signal.SIGKILL else f"{{'signal': {int(number)}}}\n")
