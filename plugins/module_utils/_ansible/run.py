# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""From AnsibleModule to the core and back. Nothing else in the collection knows AnsibleModule."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Callable, NoReturn, Protocol

from ansible.module_utils.basic import AnsibleModule

from .._core.adapters.process import Cancellation
from .._core.adapters.server import scrub_environment
from .._core.domain.errors import PgkeepError
from .argspec import argument_spec, values


class Result(Protocol):
    """What a use case returns. `to_json` has the keys that the module documents, the same for every outcome."""

    @property
    def changed(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    @property
    def message(self) -> str: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    @property
    def diff(self) -> Mapping[str, Any] | None: ...

    def to_json(self) -> dict[str, Any]:
        """Return the result as the module and --json show it."""


Clock = Callable[[], datetime]
UseCase = Callable[[dict[str, Any], bool, Clock, Cancellation], Result]


def run(use_case: UseCase, *classes: type, **kwargs: Any) -> NoReturn:
    """Given a use case, the model's classes with its options and more for AnsibleModule, run it and end the module."""
    module = AnsibleModule(argument_spec=argument_spec(*classes), supports_check_mode=True, **kwargs)
    scrub_environment(os.environ)
    problem, result = _outcome(use_case, values(module.params), module.check_mode)
    if result is None:
        module.fail_json(msg=problem)
    for warning in result.warnings:
        module.warn(warning)
    report = {**result.to_json(), "changed": result.changed}
    if result.message:
        report["msg"] = result.message
    if module._diff and result.diff is not None:
        report["diff"] = dict(result.diff)
    if result.failed:
        module.fail_json(**report)
    module.exit_json(**report)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _cancellation() -> Cancellation:
    """Return what asks running work to end when Ansible's timeout, or somebody else, ends this process."""
    cancellation = Cancellation()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: cancellation.cancel(received))
    return cancellation


def _outcome(use_case: UseCase, params: dict[str, Any], check: bool) -> tuple[str, Result | None]:
    """Given a use case and its parameters, return its result, or what went wrong.

    Ansible adds the pending exception to a failure. Its text, its causes and its traceback can contain a secret that
    no_log does not recognise, so nothing of it but type and place leaves this function.
    """
    try:
        return "", use_case(params, check, _now, _cancellation())
    except PgkeepError as error:
        return str(error), None
    except Exception as error:  # noqa: BLE001  (a bug: report what it is and where, and nothing that it says)
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = " < ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in reversed(frames))
        return f"unexpected {type(error).__name__} at {places}: this is a bug in pgkeep, please report it", None
