#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_info
short_description: List the backups of a repository, with statistics
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Lists what is in a repository, newest first, with statistics over what is listed.
  - It reads the repository only. No server needs to run, and a copy of a repository on another host will do.
requirements:
  - Python 3.9 or newer on the host
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.info_module
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.repository
  - pgkeep.backup.filter
  - pgkeep.backup.policy
  - pgkeep.backup.listing_options
seealso:
  - module: pgkeep.backup.pg_backup
  - module: pgkeep.backup.pg_backup_prune
notes:
  - The retention options change nothing here. They are for RV(policy), which says in words what they mean.
"""

EXAMPLES = r"""
- name: List everything
  pgkeep.backup.pg_backup_info:
    repository: /var/backups/postgresql
  register: kept

- name: Fail where a database has no backup from the last day
  ansible.builtin.assert:
    that: kept.backups | selectattr('database', 'equalto', item) | selectattr('created', '>', yesterday) | length > 0
    fail_msg: "{{ item }} has no backup since {{ yesterday }}"
  loop: [shop, orders]
  vars:
    yesterday: "{{ '%Y-%m-%dT%H:%M:%SZ' | ansible.builtin.strftime(now(utc=true).timestamp() - 86400, utc=true) }}"

- name: The complete backups of one database on one instance
  pgkeep.backup.pg_backup_info:
    repository: /var/backups/postgresql
    instance: main
    databases: [shop]
    complete: true

- name: The backups of the roles and tablespaces from November
  pgkeep.backup.pg_backup_info:
    repository: /var/backups/postgresql
    databases: ["@globals"]
    after: "2025-11-01"
    before: "2025-12-01"

- name: What retention may not delete
  pgkeep.backup.pg_backup_info:
    repository: /var/backups/postgresql
    pinned: true

- name: Read every byte, and list what is damaged
  pgkeep.backup.pg_backup_info:
    repository: /var/backups/postgresql
    checksum: true
    complete: false

- name: What lies in the repository and is not a backup
  pgkeep.backup.pg_backup_info:
    repository: /var/backups/postgresql
    foreign: true
  register: result

- name: Show it
  ansible.builtin.debug:
    var: result.foreign

- name: Show how much room a database takes
  ansible.builtin.debug:
    msg: "{{ kept.statistics.total_size | human_readable }}"
"""

RETURN = r"""
msg:
  description: What went wrong, or what to know.
  type: str
  returned: when there is something to say
  sample: "main/shop/shop_2025-11-05_14-30-00 is damaged: its file has 4096 bytes instead of 183402112"
backups:
  description: The backups that the filters let through, newest first.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: Instance, folder and name of the backup; its path in the repository.
      type: str
      returned: always
      sample: main/shop/shop_2025-11-05_14-30-00
    instance:
      description: Name of the instance.
      type: str
      returned: always
      sample: main
    kind:
      description: V(database), or V(globals) for roles and tablespaces.
      type: str
      returned: always
      sample: database
    database:
      description: Name of the database. V(null) for globals.
      type: str
      returned: always
      sample: shop
    status:
      description: V(complete) where every file is there at its recorded size and no verification failed, else V(damaged).
      type: str
      returned: always
      sample: complete
    problem:
      description: What is wrong with a damaged backup. Empty for a complete one.
      type: str
      returned: always
      sample: ""
    created:
      description: The time in the name (UTC), by which backups are ordered.
      type: str
      returned: always
      sample: "2025-11-05T14:30:00Z"
    finished:
      description: When the backup was found complete (UTC).
      type: str
      returned: always
      sample: "2025-11-05T14:30:04.120000Z"
    duration:
      description: Seconds from the start of the dump until the backup was found complete.
      type: float
      returned: always
      sample: 4.12
    size:
      description: Bytes on disk.
      type: int
      returned: always
      sample: 183402112
    database_size:
      description: Size of the database in bytes when the dump began. V(null) for globals and for adopted dumps.
      type: int
      returned: always
      sample: 1073741824
    format:
      description: Format of the archive.
      type: str
      returned: always
      sample: custom
    compression:
      description: Method and level, V(none), or V(unknown) for an adopted dump.
      type: str
      returned: always
      sample: zstd:3
    encryption:
      description: V(age) or V(gpg), or V(null) where it is not encrypted.
      type: str
      returned: always
      sample: age
    partial:
      description: Whether an option left something out.
      type: bool
      returned: always
      sample: false
    label:
      description: Label that it was taken with, or V(null).
      type: str
      returned: always
      sample: before-upgrade
    server_version:
      description: Version of the server. V(null) for an adopted dump that does not say.
      type: str
      returned: always
      sample: "18.6"
    pin:
      description: Why retention must keep the backup, and until when. V(null) where there is no pin.
      type: dict
      returned: always
      contains:
        reason:
          description: Reason that was given.
          type: str
          returned: always
          sample: before the upgrade to 19
        until:
          description: End of the pin (UTC). V(null) where it has none.
          type: str
          returned: always
          sample: "2026-01-01T00:00:00Z"
    verified:
      description: When it last passed its highest level of verification (UTC), or V(null).
      type: str
      returned: always
      sample: "2025-11-06T03:00:00Z"
    verified_level:
      description: That level. V(checksum), V(archive), V(restore) or V(null).
      type: str
      returned: always
      sample: restore
    levels:
      description: When it last passed each level (UTC). A failure empties it.
      type: dict
      returned: always
      sample: {checksum: "2025-11-06T03:00:00Z", archive: "2025-11-06T03:00:00Z"}
    failure:
      description: What the newest verification found wrong, V(null) where it found nothing.
      type: dict
      returned: always
      contains:
        at:
          description: When (UTC).
          type: str
          returned: always
          sample: "2025-11-06T03:00:00Z"
        level:
          description: Level of the verification.
          type: str
          returned: always
          sample: checksum
        kind:
          description: V(missing), V(truncated), V(altered), V(unreadable), V(unrestorable), V(differs) or V(unexpected).
          type: str
          returned: always
          sample: altered
        problem:
          description: What it is, in words.
          type: str
          returned: always
          sample: "shop_2025-11-05_14-30-00.dump was altered: its SHA-256 is not the manifest's"
    copies:
      description: Targets that hold a copy which was checked and found good.
      type: list
      elements: str
      returned: always
      sample: [vault]
    path:
      description: Directory of the backup on the host.
      type: str
      returned: always
      sample: /var/backups/postgresql/main/shop/shop_2025-11-05_14-30-00
foreign:
  description: What lies in the repository and is not a backup. Empty without O(foreign).
  type: list
  elements: dict
  returned: always
  contains:
    path:
      description: Where it lies.
      type: str
      returned: always
      sample: /var/backups/postgresql/main/shop/notes.txt
    reason:
      description: Why it is not a backup.
      type: str
      returned: always
      sample: not a backup directory
statistics:
  description: Figures of what is in RV(backups), altogether and for each database.
  type: dict
  returned: always
  contains:
    count:
      description: Complete backups.
      type: int
      returned: always
      sample: 12
    damaged:
      description: Damaged backups. They count nowhere else.
      type: int
      returned: always
      sample: 0
    partial:
      description: Complete backups that leave something out.
      type: int
      returned: always
      sample: 1
    pinned:
      description: Complete backups with a pin that holds.
      type: int
      returned: always
      sample: 1
    verified:
      description: Complete backups that were verified.
      type: int
      returned: always
      sample: 4
    drilled:
      description: Complete backups that were restored in a drill and found equal.
      type: int
      returned: always
      sample: 1
    total_size:
      description: Bytes of all complete backups.
      type: int
      returned: always
      sample: 2200825344
    average_size:
      description: Average size in bytes. V(null) without backups.
      type: int
      returned: always
      sample: 183402112
    average_duration:
      description: Average duration in seconds. V(null) without backups.
      type: float
      returned: always
      sample: 4.12
    newest:
      description: Time of the newest complete backup (UTC), or V(null).
      type: str
      returned: always
      sample: "2025-11-05T14:30:00Z"
    newest_age:
      description: Age of the newest complete backup in seconds, or V(null).
      type: float
      returned: always
      sample: 5400.0
    newest_size:
      description: Bytes of the newest complete backup, or V(null).
      type: int
      returned: always
      sample: 183402112
    newest_verified:
      description: Time of the newest backup that was verified (UTC), or V(null).
      type: str
      returned: always
      sample: "2025-11-05T14:30:00Z"
    newest_drilled:
      description: Time of the newest backup that was restored in a drill and found equal (UTC), or V(null).
      type: str
      returned: always
      sample: "2025-11-01T14:30:00Z"
    oldest:
      description: Time of the oldest complete backup (UTC), or V(null).
      type: str
      returned: always
      sample: "2025-10-06T14:30:00Z"
    databases:
      description: The same for each database, and how it grows.
      type: list
      elements: dict
      returned: always
      contains:
        instance:
          description: Name of the instance.
          type: str
          returned: always
          sample: main
        kind:
          description: V(database) or V(globals).
          type: str
          returned: always
          sample: database
        database:
          description: Name of the database. V(null) for globals.
          type: str
          returned: always
          sample: shop
        count:
          description: Complete backups.
          type: int
          returned: always
          sample: 12
        damaged:
          description: Damaged backups. They count nowhere else.
          type: int
          returned: always
          sample: 0
        partial:
          description: Complete backups that leave something out.
          type: int
          returned: always
          sample: 1
        pinned:
          description: Complete backups with a pin that holds.
          type: int
          returned: always
          sample: 1
        verified:
          description: Complete backups that were verified.
          type: int
          returned: always
          sample: 4
        drilled:
          description: Complete backups that were restored in a drill and found equal.
          type: int
          returned: always
          sample: 1
        total_size:
          description: Bytes of all complete backups.
          type: int
          returned: always
          sample: 2200825344
        average_size:
          description: Average size in bytes. V(null) without backups.
          type: int
          returned: always
          sample: 183402112
        average_duration:
          description: Average duration in seconds. V(null) without backups.
          type: float
          returned: always
          sample: 4.12
        newest:
          description: Time of the newest complete backup (UTC), or V(null).
          type: str
          returned: always
          sample: "2025-11-05T14:30:00Z"
        newest_age:
          description: Age of the newest complete backup in seconds, or V(null).
          type: float
          returned: always
          sample: 5400.0
        newest_size:
          description: Bytes of the newest complete backup, or V(null).
          type: int
          returned: always
          sample: 183402112
        newest_verified:
          description: Time of the newest backup that was verified (UTC), or V(null).
          type: str
          returned: always
          sample: "2025-11-05T14:30:00Z"
        newest_drilled:
          description: Time of the newest backup that was restored in a drill and found equal (UTC), or V(null).
          type: str
          returned: always
          sample: "2025-11-01T14:30:00Z"
        oldest:
          description: Time of the oldest complete backup (UTC), or V(null).
          type: str
          returned: always
          sample: "2025-10-06T14:30:00Z"
        growth:
          description: How the backups grow, where there are at least two that leave nothing out.
          type: dict
          returned: always
          contains:
            per_day:
              description: Bytes per day, or V(null).
              type: int
              returned: always
              sample: 1048576
            ratio:
              description: Size of the newest as a multiple of the oldest, or V(null).
              type: float
              returned: always
              sample: 1.2
policy:
  description: The retention policy that the options describe, in words. V(null) where no rule is set.
  type: str
  returned: always
  sample: keep_daily 7, keep_weekly 4, keep_minimum 1
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    Filter,
    ListingOptions,
    Policy,
    Repository,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing


def main() -> None:
    run(listing, Repository, Filter, Policy, ListingOptions)


if __name__ == "__main__":
    main()
