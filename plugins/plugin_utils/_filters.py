# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection.
"""Functions of the collection as filters of Ansible."""

from __future__ import annotations

from functools import wraps
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError

Filter = Callable[..., Any]


def filters(*functions: Filter) -> dict[str, Filter]:
    """Given functions, return filters of their names, with errors that Ansible knows."""
    return {function.__name__: _translated(function) for function in functions}


def _translated(function: Filter) -> Filter:
    @wraps(function)
    def apply(*arguments: Any, **more: Any) -> Any:
        try:
            return function(*arguments, **more)
        except ConfigurationError as error:
            raise AnsibleFilterError(str(error)) from None

    return apply
