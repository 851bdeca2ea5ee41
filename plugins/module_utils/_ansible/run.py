# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""From AnsibleModule to the core and back. Nothing else in the collection knows AnsibleModule."""

from __future__ import annotations

import json
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Callable, NoReturn, Protocol

from ansible.module_utils.basic import AnsibleModule, _load_params

from .._core.adapters.process import Cancellation, scrub_environment
from .._core.adapters.repository import gives_up_root
from .._core.domain.encryption import is_private
from .._core.domain.errors import PgkeepError
from .._core.domain.text import printable
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


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Clock = Callable[[], datetime]
_Done = dict[str, Any]
UseCase = Callable[[dict[str, Any], bool, Clock, Cancellation], Result]


class _Module(AnsibleModule):
    """A module that writes to the host's journal only what has no secret in it."""

    def _log_invocation(self) -> None:
        """Log the options as Ansible does, but for those that have options inside.

        Ansible logs these as Python writes them, and does not recognise a password with a quote or a backslash then.
        """
        params = self.params
        self.params = {name: value for name, value in params.items() if not isinstance(value, (dict, list))}
        super()._log_invocation()
        self.params = params


def run(use_case: UseCase, *classes: type, **kwargs: Any) -> NoReturn:
    """Given a use case, the model's classes with its options and more for AnsibleModule, run it and end the module."""
    module = _Module(argument_spec=argument_spec(*classes), supports_check_mode=True, **kwargs)
    module.no_log_values.update(_secrets(module.argument_spec, module.params))
    scrub_environment(os.environ)
    params = _params(module)

    def work() -> _Done:
        return _done(*_outcome(use_case, params, module.check_mode))

    # The repository of a job is not known yet.
    done = _in_child(work) if params.get("job") or gives_up_root(params.get("repository", "")) else work()
    for warning in done["warnings"]:
        module.warn(printable(warning))
    report = done["report"]
    if module._diff and done["diff"] is not None:
        report["diff"] = done["diff"]
    if done["failed"]:
        module.fail_json(**report)
    module.exit_json(**report)


def _secrets(spec: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """Given an argument spec and parameters, yield the secrets as they are now; Ansible knows them as they were written,
    a list as a password for example.
    """
    for name, entry in spec.items():
        value = params.get(name)
        if entry.get("no_log") and value:
            yield str(value)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and is_private(item):  # where only a public key may be
                yield item
            if isinstance(item, Mapping):
                yield from _secrets(entry.get("options") or {}, item)


def _params(module: AnsibleModule) -> dict[str, Any]:
    """Given a module, return its parameters; with a job only those that the task says, as the job says the others."""
    params = values(module.params)
    if not params.get("job"):
        return params
    said = values(_load_params())  # AnsibleModule has written every default into its own
    return {name: value for name, value in params.items() if name in said}


def _done(problem: str, result: Result | None) -> _Done:
    """Given what went wrong, or the result, return it as plain values."""
    if result is None:
        return {"failed": True, "report": {"msg": problem}, "warnings": [], "diff": None}
    report = {**result.to_json(), "changed": result.changed}
    if result.message:
        report["msg"] = printable(result.message)
    diff = None if result.diff is None else dict(result.diff)
    return {"failed": result.failed, "report": report, "warnings": list(result.warnings), "diff": diff}


def _in_child(work: Callable[[], _Done]) -> _Done:
    """Given work that gives up root for good, do it in a process of its own and return what it returned.

    This process stays root: AnsibleModule imports more from its own, private archive until the end, and then removes it.
    """
    reading, writing = os.pipe()
    ours, theirs = os.pipe()  # nothing is written: its end says that the other process is gone
    child = os.fork()
    if child == 0:
        try:
            os.close(theirs)
            threading.Thread(target=_watch, args=(ours,), daemon=True).start()
            with open(writing, "wb") as pipe:
                pipe.write(json.dumps(work()).encode())
        finally:
            os._exit(0)
    for number in SIGNALS:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _unused, status = os.waitpid(child, 0)
    done: _Done = json.loads(answer) if answer else _done(f"the work was ended from outside (status {status})", None)
    return done


def _watch(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _cancellation() -> Cancellation:
    """Return what asks running work to end when Ansible's timeout, or somebody else, ends this process."""
    cancellation = Cancellation()
    for number in SIGNALS:
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
