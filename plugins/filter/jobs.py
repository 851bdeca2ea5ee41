# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for roles: when the jobs of a host run, as its job files, its crontab and its timers agree on it, and where their
copies go.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.plugin_utils import _jobs


def _filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Given a function of the collection, return it with errors that Ansible knows."""

    @wraps(function)
    def apply(*arguments: Any, **more: Any) -> Any:
        try:
            return function(*arguments, **more)
        except ConfigurationError as error:
            raise AnsibleFilterError(str(error)) from None

    return apply


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        functions = (_jobs.resolve_jobs, _jobs.named_targets, _jobs.crontab, _jobs.timers)
        return {function.__name__: _filter(function) for function in functions}
