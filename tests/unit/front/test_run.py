# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ServerError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Connection, Repository

SECRET = "hunter2:with\\backslash"


@dataclass(frozen=True)
class Outcome:
    changed: bool = True
    failed: bool = False
    message: str = ""
    warnings: tuple[str, ...] = ()
    diff: dict[str, str] | None = None
    report: dict[str, Any] = field(default_factory=lambda: {"backups": []})

    def to_json(self) -> dict[str, Any]:
        return self.report


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def module(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a use case as a module and returns the module's result."""

    def execute(use_case: Any, **arguments: Any) -> dict[str, Any]:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        with patch_module_args({"repository": "/srv", **arguments}), pytest.raises(SystemExit) as caught:
            run(use_case, Connection, Repository)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        output = capsys.readouterr()
        result: dict[str, Any] = json.loads(output.out)
        assert caught.value.code == (1 if result.get("failed") else 0)
        assert SECRET not in output.out + output.err
        return result

    return execute


def test_a_use_case_gets_what_was_said_and_the_defaults(module: Run) -> None:
    seen = []
    module(lambda params, check, *_unused: seen.append((params, check)) or Outcome(), login_user="backup")
    ((params, check),) = seen
    assert (params["repository"], params["login_user"], params["login_port"]) == ("/srv", "backup", 5432)
    assert "login_password" not in params
    assert check is False


def test_check_mode_reaches_the_use_case(module: Run) -> None:
    seen = []
    module(lambda _params, check, *_unused: seen.append(check) or Outcome(), _ansible_check_mode=True)
    assert seen == [True]


def test_a_good_result_is_the_report_and_whether_anything_changed(module: Run) -> None:
    result = module(lambda *_unused: Outcome(changed=False))
    assert {key: result[key] for key in ("changed", "backups")} == {"changed": False, "backups": []}
    assert "msg" not in result
    assert "failed" not in result


def test_a_failed_result_keeps_the_report_and_has_a_message(module: Run) -> None:
    result = module(lambda *_unused: Outcome(failed=True, message="shop: no"))
    assert {key: result[key] for key in ("failed", "changed", "msg", "backups")} == {
        "failed": True,
        "changed": True,
        "msg": "shop: no",
        "backups": [],
    }


def test_warnings_reach_the_user(module: Run) -> None:
    result = module(lambda *_unused: Outcome(warnings=("look here",)))
    assert "look here" in json.dumps(result["warnings"])


def test_a_diff_is_shown_only_where_it_is_asked_for(module: Run) -> None:
    outcome = Outcome(diff={"before": "a\n", "after": "b\n"})
    assert "diff" not in module(lambda *_unused: outcome)
    assert module(lambda *_unused: outcome, _ansible_diff=True)["diff"] == {"before": "a\n", "after": "b\n"}
    assert "diff" not in module(lambda *_unused: Outcome(), _ansible_diff=True)


def test_an_expected_failure_is_its_message(module: Run) -> None:
    def fail(_params: dict[str, Any], *_unused: Any) -> Outcome:
        raise ServerError("no server at db1: start it")

    result = module(fail)
    assert (result["failed"], result["msg"]) == (True, "no server at db1: start it")


@pytest.mark.parametrize("verbosity", [0, 3])
def test_a_bug_is_reported_by_type_and_place_and_without_the_text_of_the_exception(module: Run, verbosity: int) -> None:
    def fail(params: dict[str, Any], *_unused: Any) -> Outcome:
        try:
            raise KeyError(params["login_password"])
        except KeyError as error:
            raise ValueError(f"cannot parse {params['login_password'][:-1]}") from error

    result = module(fail, login_password=SECRET, _ansible_verbosity=verbosity)
    assert result["msg"].startswith("unexpected ValueError at test_run.py:")
    assert result["msg"].endswith("this is a bug in pgkeep, please report it")
    assert SECRET[:-1] not in json.dumps({key: value for key, value in result.items() if key != "invocation"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_the_use_case_to_end(module: Run, number: int) -> None:
    def interrupted(_params: Any, _check: bool, _clock: Any, cancellation: Any) -> Outcome:
        os.kill(os.getpid(), number)
        cancellation.check()
        return Outcome()

    assert module(interrupted)["failed"] is True


def test_the_clock_of_a_use_case_is_utc(module: Run) -> None:
    result = module(lambda _params, _check, clock, _unused: Outcome(report={"zone": clock().tzname()}))
    assert result["zone"] == "UTC"


def test_variables_of_libpq_do_not_reach_the_use_case(module: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    seen = []
    module(lambda *_unused: seen.append(os.environ.get("PGHOST")) or Outcome())
    assert seen == [None]


def test_a_required_option_is_asked_for_and_an_unknown_one_refused(
    module: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch_module_args({}), pytest.raises(SystemExit):
        run(lambda *_unused: Outcome(), Repository)
    assert "missing required arguments: repository" in json.loads(capsys.readouterr().out)["msg"]
    assert "Unsupported parameters" in module(lambda *_unused: Outcome(), repositry="/srv")["msg"]
