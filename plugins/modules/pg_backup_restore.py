#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_restore
short_description: Restore a PostgreSQL database from a backup
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Restores one backup of a repository, or of any directory that holds a copy of one, into a new database, into an
    empty one, or in place of a live one. Also restores roles and tablespaces.
  - Everything that is missing (roles, extensions, tablespaces, rights, space, newer programs) is found out first and
    listed at once, before anything is touched.
  - The backup is restored beside what is there, under a temporary name, and gets its own name in the last step. In place
    of a live database both are renamed in one transaction. A failure at any point leaves every database as it was.
  - Encoding, locale, owner, privileges and settings of the database come back as they were recorded.
requirements:
  - Python 3.9 or newer on the host
  - psycopg2 on the host
  - pg_restore and psql on the host, of the server's version, and not older than the pg_dump that took the backup
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.connection
  - pgkeep.backup.from_job
  - pgkeep.backup.choice
  - pgkeep.backup.restore_options
  - pgkeep.backup.decryption
attributes:
  check_mode:
    support: full
    details:
      - Chooses the backup, connects and finds out everything that is missing, as a real run does, and fails where that
        would. The bytes of the backup are not read.
  diff_mode:
    support: full
    details:
      - Shows the databases that change. Of globals, every role, membership, tablespace and right that would be created or
        updated.
  idempotent:
    support: partial
    details:
      - With O(if_exists=skip) nothing is done where the target exists. Globals that are restored again change nothing.
        Without it a second run fails, and with O(replace) it restores again.
seealso:
  - module: pgkeep.backup.pg_backup_info
  - module: pgkeep.backup.pg_backup_verify
  - name: pg_restore
    description: Reference of the program that reads the archives.
    link: https://www.postgresql.org/docs/current/app-pgrestore.html
notes:
  - A database that exists is replaced only where O(replace) names it. The old one stays under a dated name until somebody
    drops it, or with O(drop_old) goes once the restored one is in its place.
  - The database C(@globals) means the roles and tablespaces. Nothing is taken away from the server then. Roles that only
    the server has stay.
  - Environment variables that libpq reads (C(PGHOST), C(PGPASSWORD) and so on) are ignored. Only options count.
  - A backup runs code of whoever could write to its database. Restore only what is trusted on that server, or drill it
    with M(pgkeep.backup.pg_backup_verify) first.
  - For a large database use C(async), or the command C(pgkeep restore).
"""

EXAMPLES = r"""
- name: The newest backup into a new database
  pgkeep.backup.pg_backup_restore:
    repository: /var/backups/postgresql
    database: shop
    target: shop_restored
  become: true
  become_user: postgres

- name: The newest backup in place of the live database, whose sessions are ended
  pgkeep.backup.pg_backup_restore:
    repository: /var/backups/postgresql
    database: shop
    replace: shop
    sessions: terminate
  become: true
  become_user: postgres
  register: result

- name: Show where the old one is
  ansible.builtin.debug:
    msg: "{{ result.target }} is back from {{ result.backup.created }}, what it was is {{ result.old }}"

- name: Back to before the deployment
  pgkeep.backup.pg_backup_restore:
    repository: /var/backups/postgresql
    database: shop
    label: before-deployment
    replace: shop
    sessions: wait
    sessions_timeout: 10m

- name: The last backup before the mistake, which was verified, from a directory that holds a copy
  pgkeep.backup.pg_backup_restore:
    repository: /srv/copies/db1
    instance: main
    database: shop
    before: "2025-11-05T14:00:00Z"
    verified: true
    target: shop_before

- name: Only two tables, into a database that everybody may look at
  pgkeep.backup.pg_backup_restore:
    repository: /var/backups/postgresql
    database: shop
    target: shop_rows
    tables:
      - orders
      - customers
    no_owner: true
    no_privileges: true

- name: Fill a new host, and do nothing where the database is there already
  pgkeep.backup.pg_backup_restore:
    repository: /srv/copies/db1
    database: shop
    if_exists: skip

- name: From the backups of a job of this host, into the server that the job backs up
  pgkeep.backup.pg_backup_restore:
    job: main
    database: shop
    target: shop_restored

- name: A database together with the roles that it needs
  pgkeep.backup.pg_backup_restore:
    repository: /srv/copies/db1
    database: shop
    create_roles: true

- name: A backup by its id, over verified TLS, with four jobs
  pgkeep.backup.pg_backup_restore:
    login_host: db2.example.com
    login_user: restore
    passfile: /etc/pgkeep/pgpass
    ssl_mode: verify-full
    ca_cert: /etc/ssl/certs/example-ca.pem
    repository: /srv/backups
    backup: main/shop/shop_2025-11-05_14-30-00
    target: shop_copy
    jobs: 4

- name: An encrypted backup, on a host that has the private key
  pgkeep.backup.pg_backup_restore:
    repository: /srv/copies/db1
    database: shop
    identity_file: /root/pgkeep-identity

- name: Show what restoring the roles and tablespaces would change
  pgkeep.backup.pg_backup_restore:
    repository: /srv/copies/db1
    database: "@globals"
  check_mode: true
  diff: true

- name: Create the roles and tablespaces that are missing, leave the others as they are
  pgkeep.backup.pg_backup_restore:
    repository: /srv/copies/db1
    database: "@globals"
"""

RETURN = r"""
msg:
  description: What was done, or what went wrong and what to do about it.
  type: str
  returned: always
  sample: restored main/shop/shop_2025-11-05_14-30-00 into shop_restored in 41.3 s
backup:
  description: The backup that was chosen.
  type: dict
  returned: on success
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
target:
  description: Name of the database that was restored into, or V(@globals).
  type: str
  returned: on success
  sample: shop_restored
action:
  description:
    - V(create), the target did not exist.
    - V(fill), it existed and was empty.
    - V(replace), it took the place of a live one.
    - V(skip), it existed and nothing was done.
    - V(globals), roles and tablespaces were restored.
  type: str
  returned: on success
  sample: create
old:
  description: Name under which the replaced database is kept. V(null) where there is none.
  type: str
  returned: on success
  sample: shop_2025-11-06_09-12-00
command:
  description: Command line of the restore. It never contains a secret.
  type: list
  elements: str
  returned: on success
  sample: [/usr/lib/postgresql/18/bin/pg_restore, --exit-on-error, --jobs=4, --dbname=dbname=shop_restored]
seconds:
  description:
    - Seconds that each stage took, by its name. C(checksum), C(roles), C(create), C(restore), C(analyze) and C(swap), or
      C(globals). Stages that were not needed are missing.
  type: dict
  returned: on success
  sample: {checksum: 0.4, create: 0.1, restore: 38.2, analyze: 2.5, swap: 0.1}
changes:
  description:
    - What is done to roles and tablespaces. Empty for a database without O(create_roles).
  type: list
  elements: dict
  returned: on success
  contains:
    kind:
      description: V(role), V(membership), V(tablespace) or V(parameter).
      type: str
      returned: always
      sample: role
    name:
      description: Name of the role, tablespace or parameter. For a membership the role and its member.
      type: str
      returned: always
      sample: shop_owner
    action:
      description:
        - V(create) or V(update).
        - V(leave), it exists and differs, and O(existing_roles) is V(leave).
        - V(skip), it cannot be on this server.
      type: str
      returned: always
      sample: create
    details:
      description: What that means, in words. No secret is in them.
      type: list
      elements: str
      returned: always
      sample: ["login: yes", password]
compared:
  description: How much was compared with the archive. V(null) without O(compare), and in check mode.
  type: dict
  returned: on success
  contains:
    tables:
      description: Tables.
      type: int
      returned: with O(compare)
      sample: 42
    rows:
      description: Rows of all tables.
      type: int
      returned: with O(compare)
      sample: 5120340
    bytes:
      description: Bytes of all rows and large objects.
      type: int
      returned: with O(compare)
      sample: 610244731
    sequences:
      description: Sequences.
      type: int
      returned: with O(compare)
      sample: 12
    large_objects:
      description: Large objects.
      type: int
      returned: with O(compare)
      sample: 0
    objects:
      description: Definitions, by kind, schema and name.
      type: int
      returned: with O(compare)
      sample: 310
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    Choice,
    Connection,
    Decryption,
    FromJob,
    RestoreOptions,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.named_job import restore


def main() -> None:
    run(restore, Connection, Choice, RestoreOptions, Decryption, FromJob, required_one_of=[("repository", "job")])


if __name__ == "__main__":
    main()
