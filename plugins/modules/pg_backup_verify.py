#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_verify
short_description: Verify that backups are still what they were, and that they can be read
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Reads backups of a repository, or of any directory that holds a copy of one, and tells data that is missing,
    truncated, altered or unreadable apart.
  - The result is kept with each backup, is shown by M(pgkeep.backup.pg_backup_info), and decides what retention does.
    A backup that failed counts as damaged, and is neither deleted nor taken for one of those that have to stay.
  - The task fails where a backup is no good, after all of them were verified.
requirements:
  - Python 3.9 or newer on the host
  - pg_restore of the version that took the backup, or newer, for O(level=archive)
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.repository
  - pgkeep.backup.filter
  - pgkeep.backup.verify_options
attributes:
  check_mode:
    support: full
    details:
      - Lists the backups that would be verified. None of them is read.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - With O(max_age) nothing is done until that time has passed. Without it every run verifies.
seealso:
  - module: pgkeep.backup.pg_backup_info
  - module: pgkeep.backup.pg_backup_restore
"""

EXAMPLES = r"""
- name: Read all backups to the end
  pgkeep.backup.pg_backup_verify:
    repository: /var/backups/postgresql

- name: The newest backup of each database, every byte
  pgkeep.backup.pg_backup_verify:
    repository: /var/backups/postgresql
    level: checksum
    latest: true

- name: Every day ten backups that were not verified for a month, so that none is forgotten
  pgkeep.backup.pg_backup_verify:
    repository: /var/backups/postgresql
    sample: 10
    max_age: 30d

- name: A copy on another host
  pgkeep.backup.pg_backup_verify:
    repository: /srv/copies/db1
    databases: [shop]

- name: Look again at what was found damaged
  pgkeep.backup.pg_backup_verify:
    repository: /var/backups/postgresql
    complete: false
  register: result
  ignore_errors: true

- name: Show what is wrong
  ansible.builtin.debug:
    msg: "{{ item.id }}: {{ item.verdict }}: {{ item.problem }}"
  loop: "{{ result.verifications | rejectattr('verdict', 'equalto', 'good') }}"
  loop_control:
    label: "{{ item.id }}"
"""

RETURN = r"""
msg:
  description: What is no good.
  type: str
  returned: when there is something to say
  sample: "main/shop/shop_2025-11-05_14-30-00: truncated: shop_2025-11-05_14-30-00.dump has 1 bytes instead of 2"
verifications:
  description: Each backup that was verified.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: Instance, folder and name of the backup; its path in the repository.
      type: str
      returned: always
      sample: main/shop/shop_2025-11-05_14-30-00
    database:
      description: Name of the database, or V(@globals).
      type: str
      returned: always
      sample: shop
    level:
      description: Level of the verification.
      type: str
      returned: always
      sample: archive
    verdict:
      description:
        - V(good), or V(planned) in check mode.
        - V(missing), V(truncated), V(altered) or V(unreadable) where the backup is damaged.
        - V(error) where it could not be found out; nothing is then kept with the backup.
      type: str
      returned: always
      sample: good
    problem:
      description: What is wrong, in words. Empty where nothing is.
      type: str
      returned: always
      sample: ""
    duration:
      description: Seconds that it took.
      type: float
      returned: always
      sample: 1.5
    recorded:
      description: Whether the result was kept with the backup.
      type: bool
      returned: always
      sample: true
not_due:
  description: Number of backups in scope that O(max_age), O(sample) or O(latest) left out.
  type: int
  returned: always
  sample: 20
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Filter, Repository, VerifyOptions
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import verify


def main() -> None:
    run(verify, Repository, Filter, VerifyOptions)


if __name__ == "__main__":
    main()
