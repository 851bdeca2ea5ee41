#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup
short_description: Take backups of PostgreSQL databases
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Dumps databases of one PostgreSQL server, and its roles and tablespaces, into a repository on the host.
  - A backup appears in the repository only when it is complete. Every byte was written, synchronised,
    checksummed and read back by the tool that would restore it. A failure leaves nothing behind and touches no
    earlier backup.
  - One database that fails does not stop the others. The task then fails, and the result lists each of them.
  - This module takes backups only. Old ones are removed by M(pgkeep.backup.pg_backup_prune).
  - With O(job) it takes the backups that the job of that name on the host takes.
requirements:
  - Python 3.9 or newer on the host
  - psycopg2 on the host
  - pg_dump, pg_dumpall and pg_restore on the host, not older than the server
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.from_job
  - pgkeep.backup.connection
  - pgkeep.backup.instance
  - pgkeep.backup.selection
  - pgkeep.backup.dump_options
  - pgkeep.backup.encryption_options
  - pgkeep.backup.run_options
  - pgkeep.backup.standby_options
attributes:
  check_mode:
    support: full
    details:
      - Connects, looks for the tools, resolves every pattern and checks the free space as a real run does,
        and says which databases would be dumped with which command.
  diff_mode:
    support: none
    details:
      - A backup adds a file and changes none.
  idempotent:
    support: partial
    details:
      - Only with O(max_age). Without it every run takes a backup.
seealso:
  - module: pgkeep.backup.pg_backup_info
  - module: pgkeep.backup.pg_backup_prune
  - name: pg_dump
    description: Reference of the program that writes the archives.
    link: https://www.postgresql.org/docs/current/app-pgdump.html
notes:
  - Environment variables that libpq reads (C(PGHOST), C(PGPASSWORD) and so on) are ignored. Only options count.
  - On a host with many or large databases, use C(async) or a job of the command C(pgkeep), which cron can run.
"""

EXAMPLES = r"""
- name: Back up every database of the local server, and its roles
  pgkeep.backup.pg_backup:
    repository: /var/backups/postgresql
  become: true
  become_user: postgres

- name: Do nothing where the newest backup is younger than 20 hours
  pgkeep.backup.pg_backup:
    repository: /var/backups/postgresql
    max_age: 20h
  become: true
  become_user: postgres

- name: Before a deployment, what the job main of the host backs up every night
  pgkeep.backup.pg_backup:
    job: main
    label: before-deployment
  become: true

- name: Keep a backup from before the upgrade, whatever retention says
  pgkeep.backup.pg_backup:
    repository: /var/backups/postgresql
    databases:
      - shop
    label: before-upgrade
    pin: Before the upgrade to 19
    pin_until: "2026-01-01"
  become: true
  become_user: postgres

- name: Every database but those of the test suite, four at a time
  pgkeep.backup.pg_backup:
    repository: /var/backups/postgresql
    exclude:
      - test_.*
      - .*_staging
    parallel: 4
  become: true
  become_user: postgres

- name: One large database with eight jobs
  pgkeep.backup.pg_backup:
    repository: /srv/backups
    instance: warehouse
    databases:
      - warehouse
    format: directory
    compression: zstd:3
    jobs: 8
    deadline: 6h
    reserve: 10%

- name: Encrypted for the operators, and for the key in the vault
  pgkeep.backup.pg_backup:
    repository: /var/backups/postgresql
    encryption: age
    recipients:
      - age1u3kfrwkg90thrdh7kmv93xeh4y7sgjfc4rcj8dcv56ac0ku7cyjsgse838
      - /etc/pgkeep/keys/vault
  become: true
  become_user: postgres

- name: A server on another host, over verified TLS, with the password in a file
  pgkeep.backup.pg_backup:
    login_host: db1.example.com
    login_user: backup
    passfile: /etc/pgkeep/pgpass
    ssl_mode: verify-full
    ca_cert: /etc/ssl/certs/example-ca.pem
    repository: /srv/backups
    instance: db1

- name: A server described by a section of the connection service file
  pgkeep.backup.pg_backup:
    service: db1
    service_file: /etc/pgkeep/pg_service.conf
    repository: /srv/backups
    instance: db1

- name: Definitions and rows, but not the rows of the audit log; no password verifiers in the globals
  pgkeep.backup.pg_backup:
    repository: /var/backups/postgresql
    databases:
      - shop
    exclude_table_data:
      - audit.*
    role_passwords: never
    label: for-developers

- name: On every host of a cluster, a backup of the standby named second, and of the primary where that is gone
  pgkeep.backup.pg_backup:
    repository: /var/backups/postgresql
    run_on: prefer_standby
    standby_name: second
    max_lag: 10m
  become: true
  become_user: postgres

- name: A large server in the background
  pgkeep.backup.pg_backup:
    repository: /srv/backups
    deadline: 10h
  async: 36000
  poll: 60
  register: result

- name: Show what was taken, and how large it is
  ansible.builtin.debug:
    msg: "{{ item.database }}: {{ item.size | human_readable }} in {{ item.duration }} s, {{ item.path }}"
  loop: "{{ result.backups }}"
  loop_control:
    label: "{{ item.id }}"
"""

RETURN = r"""
msg:
  description: What went wrong, or what to know.
  type: str
  returned: when there is something to say
  sample: "orders: permission denied for table invoices"
backups:
  description:
    - The backups that were taken, or that are young enough so that none was needed (O(max_age)).
    - Empty in check mode, except for those that are young enough.
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
databases:
  description: What became of each database that was selected, and of the globals.
  type: list
  elements: dict
  returned: always
  contains:
    database:
      description: Name of the database, or V(@globals).
      type: str
      returned: always
      sample: shop
    kind:
      description: V(database) or V(globals).
      type: str
      returned: always
      sample: database
    status:
      description:
        - V(done), a backup was taken.
        - V(planned), check mode, a backup would be taken.
        - V(fresh), there is one that is not older than O(max_age).
        - V(failed), there is no new backup, and RV(databases[].message) says why.
        - V(locked), another run is at work on this database.
      type: str
      returned: always
      sample: done
    message:
      description: What happened, and what to do next where something went wrong.
      type: str
      returned: always
      sample: 183.4 MB in 4.1s
    warnings:
      description: What could not be taken along, or was not as it should be.
      type: list
      elements: str
      returned: always
      sample: []
    backup:
      description: The C(id) of the backup that was taken or is young enough, or V(null).
      type: str
      returned: always
      sample: main/shop/shop_2025-11-05_14-30-00
    command:
      description: Command line of the dump. It never contains a secret.
      type: list
      elements: str
      returned: always
      sample: [/usr/lib/postgresql/18/bin/pg_dump, --format=custom, --dbname=dbname=shop]
    estimated_size:
      description: Bytes that the backup was expected to need. V(null) where nothing is known of earlier ones.
      type: int
      returned: always
      sample: 190000000
new_databases:
  description: Databases that have no backup from an earlier run.
  type: list
  elements: str
  returned: always
  sample: [orders]
vanished_databases:
  description: Databases that have backups and are no longer on the server.
  type: list
  elements: str
  returned: always
  sample: [shop_old]
for_another_server:
  description:
    - Why the run is for another server than this one (O(run_on), O(standby_name)), so that no backup was taken.
    - Empty where it is for this one.
  type: str
  returned: always
  sample: this server is a standby, and run_on is primary
skipped_databases:
  description: Databases that were left alone, each with the reason.
  type: list
  elements: dict
  returned: always
  contains:
    database:
      description: Name of the database.
      type: str
      returned: always
      sample: template0
    reason:
      description: Why it was left alone.
      type: str
      returned: always
      sample: does not allow connections
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    Connection,
    DumpOptions,
    EncryptionOptions,
    FromJob,
    Instance,
    RunOptions,
    Selection,
    StandbyOptions,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.named_job import backup


def main() -> None:
    run(
        backup, Connection, Instance, Selection, DumpOptions, EncryptionOptions, RunOptions, StandbyOptions, FromJob,
        required_one_of=[("repository", "job")],
    )  # fmt: skip


if __name__ == "__main__":
    main()
