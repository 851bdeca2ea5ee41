#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_config
short_description: Write the configuration of a host
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Writes all that C(pgkeep run) takes from files on a host. These are the jobs, what they have in common, the targets of
    their copies, and the password file.
  - The whole configuration is checked as C(pgkeep check-config) checks it, together with what people wrote by hand, before
    anything is replaced. Where something is wrong, nothing is changed.
  - Each file is replaced in one step. A job that begins meanwhile sees either the configuration of before or the new one. A
    target is written before the jobs that name it, and removed after those that no longer do.
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.configuration
attributes:
  check_mode:
    support: full
    details:
      - A user or group that is not there yet is a warning, because a real run may create it first.
  diff_mode:
    support: full
    details:
      - Passwords are replaced by a word. Where only a password differs, the word says so.
  idempotent:
    support: full
seealso:
  - module: pgkeep.backup.pg_backup_command
notes:
  - Directory and files belong to V(root), and the group may read them. Files with a password belong to O(owner) and have
    mode 0600. Without root everything belongs to whoever runs the module.
  - Files of this module have a comment that says so. A job that was written by hand stays, unless O(jobs) has one of the
    same name; a copy is then kept beside it, with a name that ends in C(.before-ansible). The same goes for targets,
    C(defaults.json) and the password file. Where O(defaults) says nothing, a C(defaults.json) that was written by hand
    counts.
  - A job that was written by hand never changes its meaning. Where it takes something from a C(defaults.json) that was
    written by hand too, and O(defaults) does not say the same, the module fails. It also fails where such a job and one of
    O(jobs) have repository, instance and databases in common and different rules of retention, because one would delete
    what the other keeps.
  - A job cannot say V(null) here, which in a file means that a value of O(defaults) does not count. To switch off a rule of
    retention, say 0.
  - Paths inside O(defaults), O(jobs) and O(targets) are absolute. C(~) is not replaced, because it would be the home of another
    user.
  - Ansible hides passwords in the options that it knows. It cannot know a misspelt one, whose task fails and is shown with
    C(-vvv). Passwords that come from a vault or a variable are safest with C(no_log) on the task.
"""

EXAMPLES = r"""
- name: Back up all databases of this host every night
  pgkeep.backup.pg_backup_config:
    defaults:
      repository: /var/backups/postgresql
    jobs:
      - name: main
  become: true

- name: Two servers, each with its own rules
  pgkeep.backup.pg_backup_config:
    defaults:
      repository: /var/backups/postgresql
      compression: zstd:3
      log_dir: /var/log/pgkeep
    jobs:
      - name: shop
        instance: shop
        login_port: 5432
        keep_daily: 7
        keep_weekly: 4
        keep_monthly: 12
      - name: wiki
        instance: wiki
        login_port: 5433
        exclude: ["test_.*"]
        backup_schedule: every_6_hours
        keep_last: 20
  become: true

- name: A server on another host, whose password is in a file that only the user of the jobs can read
  pgkeep.backup.pg_backup_config:
    defaults:
      repository: /srv/backups
      login_host: db1.example.com
      login_user: backup
      ssl_mode: verify-full
      ca_cert: /etc/ssl/certs/example-ca.pem
    jobs:
      - name: db1
    passwords:
      - host: db1.example.com
        user: backup
        password: "{{ vault_backup_password }}"
    owner: pgkeep
  become: true

- name: A drill that asks the restored database something
  pgkeep.backup.pg_backup_config:
    jobs:
      - name: shop
        repository: /var/backups/postgresql
        databases: [shop]
        drill_schedule: weekly
        checks:
          - query: SELECT count(*) > 0 FROM orders
  become: true

- name: A copy of every backup on mounted storage, and one on another host
  pgkeep.backup.pg_backup_config:
    defaults:
      repository: /var/backups/postgresql
      targets: [shelf, vault]
    jobs:
      - name: main
    targets:
      - name: shelf
        type: directory
        path: /mnt/shelf/db1
        keep_daily: 14
      - name: vault
        type: rsync
        host: vault.example.com
        user: pgkeep
        key_file: /etc/pgkeep/offsite/id_ed25519
        known_hosts_file: /etc/pgkeep/offsite/known_hosts
  become: true

- name: Show what would change
  pgkeep.backup.pg_backup_config:
    defaults:
      repository: /var/backups/postgresql
    jobs:
      - name: main
        keep_days: 60
  become: true
  check_mode: true
  diff: true

- name: Remove the configuration, and none of the backups
  pgkeep.backup.pg_backup_config:
    state: absent
  become: true
"""

RETURN = r"""
msg:
  description: What is wrong. Nothing was changed then, unless it says that a file cannot be written.
  type: str
  returned: on failure
  sample: "job main: jobs is 4 but format is custom: parallel jobs need format directory: correct this; nothing was changed"
config_dir:
  description: Directory of the configuration.
  type: str
  returned: success
  sample: /etc/pgkeep
jobs:
  description: Names of the jobs.
  type: list
  elements: str
  returned: success
  sample: [main]
targets:
  description: Names of the targets.
  type: list
  elements: str
  returned: success
  sample: [vault]
written:
  description: Directories and files that were made or changed, or would be.
  type: list
  elements: str
  returned: success
  sample: [/etc/pgkeep/defaults.json, /etc/pgkeep/jobs.d/main.json]
removed:
  description: Files, and directories that were empty then, that were removed, or would be.
  type: list
  elements: str
  returned: success
  sample: [/etc/pgkeep/jobs.d/old.json]
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import Configuration
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.configure import configure


def main() -> None:
    run(configure, Configuration)


if __name__ == "__main__":
    main()
