#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_prune
short_description: Delete the backups that a retention policy no longer keeps
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Decides for every complete backup of a repository, per instance and database, whether the policy keeps it, says why,
    and deletes what it does not keep.
  - The newest complete backups (O(keep_minimum)) and those with a pin always stay. Damaged backups and what is not
    a backup are never deleted. A backup that lies in the future is left alone.
  - A policy without any rule is an error. It never means to delete everything.
  - Partial backups are counted on their own, so that the dump of one table never pushes a full one out.
  - With O(job) it prunes what the job of that name on the host prunes, by its policy, and no other job's backups. A job
    without any rule keeps the newest 10 backups of a database, as long as they are not older than 30 days.
  - With O(target) it prunes what a target of the host holds, by the retention in the target's file, and nothing at home. The
    host needs the right to delete there. Pins of the backups in O(repository) hold in the target too.
requirements:
  - Python 3.9 or newer on the host
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.from_job
  - pgkeep.backup.scope
  - pgkeep.backup.policy
  - pgkeep.backup.prune_options
  - pgkeep.backup.at_target
attributes:
  check_mode:
    support: full
    details:
      - Lists every backup with what would become of it and why. The real run does exactly that.
  diff_mode:
    support: full
    details:
      - Shows the table of backups before and after.
  idempotent:
    support: full
    details:
      - Until the clock has moved on far enough for another backup to fall out of the policy.
seealso:
  - module: pgkeep.backup.pg_backup
  - module: pgkeep.backup.pg_backup_info
"""

EXAMPLES = r"""
- name: Show what would be deleted, and why
  pgkeep.backup.pg_backup_prune:
    repository: /var/backups/postgresql
    keep_last: 10
    keep_days: 30
  check_mode: true
  diff: true

- name: A backup goes as soon as there are ten newer ones, or when it is older than 30 days
  pgkeep.backup.pg_backup_prune:
    repository: /var/backups/postgresql
    keep_last: 10
    keep_days: 30

- name: A backup goes only when there are ten newer ones and it is older than 30 days
  pgkeep.backup.pg_backup_prune:
    repository: /var/backups/postgresql
    keep_last: 10
    keep_days: 30
    limit_mode: both

- name: A week of days, a month of weeks, a year of months; days begin at midnight in Berlin
  pgkeep.backup.pg_backup_prune:
    repository: /var/backups/postgresql
    keep_daily: 7
    keep_weekly: 4
    keep_monthly: 12
    timezone: Europe/Berlin

- name: One database of one instance, and never fewer than three backups
  pgkeep.backup.pg_backup_prune:
    repository: /var/backups/postgresql
    instance: main
    databases: [shop]
    keep_days: 7
    keep_minimum: 3

- name: Only what two other places hold a verified copy of, and at most 20 backups in one go
  pgkeep.backup.pg_backup_prune:
    repository: /var/backups/postgresql
    keep_daily: 14
    require_copies: 2
    max_deletions: 20

- name: What the job main of the host prunes, now
  pgkeep.backup.pg_backup_prune:
    job: main

- name: A bucket, by the retention that the target's file has
  pgkeep.backup.pg_backup_prune:
    target: cloud

- name: Wait for a backup that is just being taken
  pgkeep.backup.pg_backup_prune:
    repository: /var/backups/postgresql
    keep_last: 5
    wait: 30m
  register: result

- name: Show what was deleted
  ansible.builtin.debug:
    msg: "{{ item.id }}: {{ item.reasons | join(', ') }}"
  loop: "{{ result.plan | selectattr('action', 'equalto', 'delete') }}"
  loop_control:
    label: "{{ item.id }}"
"""

RETURN = r"""
msg:
  description: What went wrong, or what to know.
  type: str
  returned: when there is something to say
  sample: "main/shop: another run holds the lock"
plan:
  description: Every backup in scope, with what becomes of it and why.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: Instance, folder and name of the backup; its path in the repository.
      type: str
      returned: always
      sample: main/shop/shop_2025-10-01_14-30-00
    instance:
      description: Name of the instance.
      type: str
      returned: always
      sample: main
    database:
      description: Name of the database, or V(@globals).
      type: str
      returned: always
      sample: shop
    created:
      description: The time in the name (UTC).
      type: str
      returned: always
      sample: "2025-10-01T14:30:00Z"
    size:
      description: Bytes on disk.
      type: int
      returned: always
      sample: 183402112
    action:
      description: V(keep) or V(delete).
      type: str
      returned: always
      sample: delete
    reasons:
      description: The rules that keep it, or the rule that drops it.
      type: list
      elements: str
      returned: always
      sample: [older than 30 days]
deleted:
  description: The C(id) of each backup that was deleted; in check mode, that would be.
  type: list
  elements: str
  returned: always
  sample: [main/shop/shop_2025-10-01_14-30-00]
freed:
  description: Bytes that were freed; in check mode, that would be.
  type: int
  returned: always
  sample: 183402112
failures:
  description: The databases that could not be pruned. The task fails where there is any.
  type: list
  elements: dict
  returned: always
  contains:
    database:
      description: Instance and name of the database.
      type: str
      returned: always
      sample: main/shop
    message:
      description: Why, and what to do next.
      type: str
      returned: always
      sample: another run holds the lock
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    AtTarget,
    FromJob,
    Policy,
    PruneOptions,
    Scope,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.named_job import prune


def main() -> None:
    run(prune, Scope, Policy, PruneOptions, AtTarget, FromJob, required_one_of=[("repository", "job", "target")])


if __name__ == "__main__":
    main()
