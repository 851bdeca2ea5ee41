# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # What every module says about itself; each module adds `support` and, where there is something to say, `details`.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), in diff mode.
  idempotent:
    description: When run twice in a row with the same arguments, outside check mode, the second run changes nothing.
  platform:
    description: Target operating systems and families that can be operated against.
    platforms: posix
    support: full
"""

    # For the modules that take part in the action group pgkeep.backup.pg_backup.
    ACTION_GROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/pgkeep.backup.pg_backup) in C(module_defaults) to set defaults for these modules.
    support: full
    membership:
      - pgkeep.backup.pg_backup
"""

    # For the modules that only read.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
  idempotent:
    support: full
    details:
      - This action does not modify state.
"""
