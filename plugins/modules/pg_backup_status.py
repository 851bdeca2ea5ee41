#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_status
short_description: Show how the backup jobs of a host stand
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Returns for every job of the host the newest complete backup of each of its databases, when backups of it were last
    verified and last restored in a drill, how its last runs ended, and when it runs next.
  - Its databases are those that it is for and that have backups, and those that it names.
  - A backup that leaves something out counts only for a job that does so too.
  - The task fails where a job could not be looked at, because its file or its repository cannot be read. What is known
    of the others is returned all the same. A database without a backup, damaged backups, and a last run that failed
    are warnings.
requirements:
  - Python 3.9 or newer on the host
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.attributes.info_module
  - pgkeep.backup.status_options
seealso:
  - module: pgkeep.backup.pg_backup_info
notes:
  - When a job runs next is what its options say. Whether cron or systemd run it is not looked at. A word such as
    V(daily) in a job file stands for its earliest time, as the spread is in what the role wrote.
  - Run it as root, or as the user that runs the jobs. As root it reads each repository as its owner.
"""

EXAMPLES = r"""
- name: Look at the jobs of each host
  pgkeep.backup.pg_backup_status:
  become: true
  register: status

- name: Show the newest backup of each database
  ansible.builtin.debug:
    msg: "{{ item.1.database }}: {{ item.1.created }}, verified {{ item.1.verified }}"
  loop: "{{ status.jobs | subelements('databases') }}"
  loop_control:
    label: "{{ item.0.name }}"

- name: Fail where a database has no backup of the last 26 hours
  ansible.builtin.assert:
    that: item.1.age is not none and item.1.age < 26 * 3600
  loop: "{{ status.jobs | subelements('databases') }}"
  loop_control:
    label: "{{ item.0.name }} {{ item.1.database }}"

- name: Jobs that are configured elsewhere
  pgkeep.backup.pg_backup_status:
    config_dir: /opt/pgkeep/etc
  become: true

- name: The jobs of a user of its own
  pgkeep.backup.pg_backup_status:
    config_dir: /home/backup/.config/pgkeep
  become: true
  become_user: backup

- name: Collect it from every host that can be reached, and judge later
  pgkeep.backup.pg_backup_status:
  become: true
  register: status
  failed_when: false
  ignore_unreachable: true

- name: Show what is known, also where a job could not be looked at
  block:
    - name: Look at the jobs
      pgkeep.backup.pg_backup_status:
      become: true
      register: status
  always:
    - name: Show them
      ansible.builtin.debug:
        var: status.jobs

- name: The status, whatever the host is about to do
  pgkeep.backup.pg_backup_status:
  become: true
  check_mode: true
"""

RETURN = r"""
msg:
  description: Which jobs could not be looked at, and why.
  type: str
  returned: on failure
  sample: "main: the repository /var/backups/postgresql is not a directory: check `repository`"
jobs:
  description: The jobs, by name.
  type: list
  elements: dict
  returned: always, unless it cannot be known which jobs there are
  contains:
    name:
      description: Name of the job.
      type: str
      returned: always
      sample: main
    instance:
      description: Name of its instance. V(null) where its file cannot be used.
      type: str
      returned: always
      sample: main
    repository:
      description: Directory of its repository. V(null) where its file cannot be used.
      type: str
      returned: always
      sample: /var/backups/postgresql
    message:
      description: Why the job could not be looked at. Empty where it could.
      type: str
      returned: always
      sample: ""
    databases:
      description: Its databases. Empty where the job could not be looked at.
      type: list
      elements: dict
      returned: always
      contains:
        database:
          description: Name of the database, or V(@globals).
          type: str
          returned: always
          sample: shop
        newest:
          description: The C(id) of the newest complete backup. V(null) without one.
          type: str
          returned: always
          sample: main/shop/shop_2025-11-05_14-30-00
        created:
          description: Its time (UTC), or V(null).
          type: str
          returned: always
          sample: "2025-11-05T14:30:00Z"
        age:
          description: Its age in seconds, or V(null).
          type: float
          returned: always
          sample: 5400.0
        size:
          description: Its bytes on disk, or V(null).
          type: int
          returned: always
          sample: 183402112
        verified:
          description: When a backup of the database last passed a verification (UTC), or V(null).
          type: str
          returned: always
          sample: "2025-11-02T03:00:00Z"
        verified_level:
          description: The highest level of verification that this backup passed. V(checksum), V(archive), V(restore) or V(null).
          type: str
          returned: always
          sample: archive
        drilled:
          description:
            - When a backup of the database was last restored in a drill and found equal (UTC), or V(null). That backup
              may be gone.
          type: str
          returned: always
          sample: "2025-11-01T04:00:00Z"
        copies:
          description: What each target of the job has. Empty for a job without targets.
          type: list
          elements: dict
          returned: always
          contains:
            target:
              description: Name of the target.
              type: str
              returned: always
              sample: vault
            newest:
              description: The C(id) of the newest backup with a copy there that was found good. V(null) without one.
              type: str
              returned: always
              sample: main/shop/shop_2025-11-05_14-30-00
            age:
              description: The age of that backup in seconds, or V(null).
              type: float
              returned: always
              sample: 5400.0
        count:
          description: Number of complete backups.
          type: int
          returned: always
          sample: 10
        damaged:
          description: Number of damaged backups.
          type: int
          returned: always
          sample: 0
    schedules:
      description: When each action of the job is due.
      type: list
      elements: dict
      returned: always
      contains:
        action:
          description: V(backup), V(prune), V(verify), V(drill), or V(sync) of a job with targets.
          type: str
          returned: always
          sample: backup
        schedule:
          description: Five fields of a crontab, in the time zone of the host, V(never), or V(after_backup).
          type: str
          returned: always
          sample: 12 2 * * *
        next:
          description: When it is next due (UTC). V(null) where it has no time of its own.
          type: str
          returned: always
          sample: "2025-11-06T01:12:00Z"
    runs:
      description:
        - The newest run of each command, the last to end first. Empty for a job without C(log_dir).
      type: list
      elements: dict
      returned: always
      contains:
        command:
          description: What was run, C(run), C(prune), C(verify), C(drill) or another command with this job.
          type: str
          returned: always
          sample: run
        started:
          description: When it began (UTC).
          type: str
          returned: always
          sample: "2025-11-05T01:12:01Z"
        finished:
          description: When it was over (UTC).
          type: str
          returned: always
          sample: "2025-11-05T01:14:10Z"
        exit_code:
          description: Exit code of the command, 0 where all went well.
          type: int
          returned: always
          sample: 0
        message:
          description: What went wrong. Empty where nothing did.
          type: str
          returned: always
          sample: ""
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import StatusOptions
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.status import status


def main() -> None:
    run(status, StatusOptions)


if __name__ == "__main__":
    main()
