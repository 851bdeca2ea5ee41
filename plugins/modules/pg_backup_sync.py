#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_sync
short_description: Bring copies of backups to other places, and look at what arrived
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Compares a repository with each target, brings there what is missing, whatever was missed while the target was down, and
    looks at what arrived. A copy that was found good is written down with the backup, which is what O(ignore:require_copies)
    of retention counts.
  - A target is a file of the host's configuration. M(pgkeep.backup.pg_backup_config) writes it.
  - The data of a backup comes first and its manifest last, and a copy without a manifest does not exist. An interrupted run
    leaves nothing that could be taken for a copy, and the next one goes on with what is missing.
  - The newest backup of the database that has been without a copy for the longest time comes first.
  - Nothing is ever replaced or deleted in a target. What it has under the name of a backup and is not that backup is a
    failure.
  - What goes wrong with one target or one backup stops no other.
requirements:
  - Python 3.9 or newer on the host
  - rsync and an SSH client for targets of type V(rsync), rclone for those of type V(rclone)
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.from_job
  - pgkeep.backup.scope
  - pgkeep.backup.sync_options
attributes:
  check_mode:
    support: full
    details:
      - Asks each target what it has, and lists what would be copied.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: pgkeep.backup.pg_backup_config
  - module: pgkeep.backup.pg_backup_prune
  - module: pgkeep.backup.pg_backup_restore
"""

EXAMPLES = r"""
- name: What the job main has not copied yet, now
  pgkeep.backup.pg_backup_sync:
    job: main

- name: All backups of a repository, to one target
  pgkeep.backup.pg_backup_sync:
    repository: /var/backups/postgresql
    targets: [vault]

- name: Which backups have no copy in the bucket?
  pgkeep.backup.pg_backup_sync:
    job: main
    targets: [cloud]
  check_mode: true
  register: result

- name: Only two databases of one instance, and wait for a run that is copying
  pgkeep.backup.pg_backup_sync:
    repository: /var/backups/postgresql
    instance: main
    databases: [shop, "@globals"]
    targets: [vault, cloud]
    wait: 30m

- name: With a configuration in another directory
  pgkeep.backup.pg_backup_sync:
    job: main
    config_dir: /srv/pgkeep/etc

- name: Show what is missing
  ansible.builtin.debug:
    var: result.targets[0].missing
"""

RETURN = r"""
msg:
  description: What went wrong, or what to know.
  type: str
  returned: when there is something to say
  sample: "vault: connection refused by backup.example.com port 22"
targets:
  description: What became of each target. The task fails where any has a failure.
  type: list
  elements: dict
  returned: always
  contains:
    target:
      description: Name of the target.
      type: str
      returned: always
      sample: vault
    present:
      description: Number of copies that were there before.
      type: int
      returned: always
      sample: 28
    copied:
      description: Backups that were brought there, or that were found there and whose copy nobody had written down.
      type: list
      elements: dict
      returned: always
      contains:
        id:
          description: Instance, folder and name of the backup.
          type: str
          returned: always
          sample: main/shop/shop_2025-11-05_14-30-00
        size:
          description: Bytes.
          type: int
          returned: always
          sample: 183402112
        method:
          description:
            - How the copy was found equal. V(sha256) of all its bytes, as the target or a reading of all of them told it;
              V(checksum) where rsync compared both sides; or another checksum of the target, with pieces that were read
              back.
          type: str
          returned: always
          sample: sha256
        duration:
          description: Seconds, the look at it included.
          type: float
          returned: always
          sample: 12.5
        brought:
          description: Whether it was brought there by this run.
          type: bool
          returned: always
          sample: true
    missing:
      description: The C(id) of each backup without a copy there. In check mode, those that would be brought there.
      type: list
      elements: str
      returned: always
      sample: []
    lost:
      description: The C(id) of each backup whose copy had been found good once, and was gone.
      type: list
      elements: str
      returned: always
      sample: []
    not_kept:
      description: Number of backups that were not brought there because the target's retention would let them go at once.
      type: int
      returned: always
      sample: 0
    failures:
      description: What went wrong.
      type: list
      elements: dict
      returned: always
      contains:
        id:
          description: The C(id) of the backup. Empty where the target as a whole is meant.
          type: str
          returned: always
          sample: ""
        message:
          description: Why, and what to do next.
          type: str
          returned: always
          sample: connection refused by backup.example.com port 22
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import FromJob, Scope, SyncOptions
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.named_job import sync


def main() -> None:
    run(sync, Scope, SyncOptions, FromJob, required_one_of=[("repository", "job")])


if __name__ == "__main__":
    main()
