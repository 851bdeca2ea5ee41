#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_verify
short_description: Verify that backups are still what they were, and prove that they restore
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Reads backups of a repository, or of any directory that holds a copy of one, and tells data that is missing,
    truncated, altered or unreadable apart.
  - With O(level=restore) it is the drill. Each backup is restored into a server that is made for it and thrown away
    afterwards. Every row, sequence, large object and definition that is there then is compared with the archive, and
    the answers to O(checks) with what is expected.
  - The result is kept with each backup, is shown by M(pgkeep.backup.pg_backup_info), and decides what retention does.
    A backup that failed counts as damaged, and is neither deleted nor taken for one of those that have to stay.
  - The evidence of each drill is also kept in the file C(drills.jsonl) beside the backups of the database, and outlives
    them.
  - The task fails where a backup is no good, after all of them were verified.
  - With O(job) it verifies the backups of the databases that the job of that name on the host is for, in its
    repository and instance. Of its other options only those of drills count here. Where there is no backup of them at
    all it fails, unless the job's C(run_on) is other than V(any).
requirements:
  - Python 3.9 or newer on the host
  - pg_restore of the version that took the backup, or newer, for O(level=archive)
  - psycopg2, bubblewrap and PostgreSQL's server programs of the version that was backed up, for O(level=restore)
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.from_job
  - pgkeep.backup.filter
  - pgkeep.backup.verify_options
  - pgkeep.backup.decryption
  - pgkeep.backup.drill_options
attributes:
  check_mode:
    support: full
    details:
      - Lists the backups that would be verified. None of them is read, and no server is made.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - With O(max_age) nothing is done until that time has passed. Without it every run verifies.
seealso:
  - module: pgkeep.backup.pg_backup_info
  - module: pgkeep.backup.pg_backup_restore
notes:
  - A backup carries code of whoever could write to its database, and a drill runs it. RV(protections) says what the
    sandbox keeps it from, and what not.
  - A drill needs free space in O(work_dir) for the whole database. For large ones use C(async), or the command
    C(pgkeep drill).
"""

EXAMPLES = r"""
- name: Read all backups to the end
  pgkeep.backup.pg_backup_verify:
    repository: /var/backups/postgresql

- name: A drill of the job main of the host, now
  pgkeep.backup.pg_backup_verify:
    job: main
    level: restore
    latest: true

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

- name: Once a month, prove that the newest backup of each database restores, and ask it what it has to know
  pgkeep.backup.pg_backup_verify:
    repository: /var/backups/postgresql
    level: restore
    latest: true
    max_age: 30d
    checks:
      - query: SELECT count(*) > 1000 FROM orders
        database: shop
      - query: SELECT name, active FROM currencies ORDER BY name LIMIT 2
        expected: |-
          CHF|t
          EUR|t
        database: shop
      - query: SELECT count(*) FROM pg_extension WHERE extname = 'plpgsql'
        expected: "1"
  register: proven

- name: Show how long bringing each database back would take
  ansible.builtin.debug:
    msg: "{{ item.database }}: {{ item.drill.recovery_seconds }} s, {{ item.drill.compared.rows }} rows compared"
  loop: "{{ proven.verifications | selectattr('verdict', 'equalto', 'good') }}"
  loop_control:
    label: "{{ item.id }}"

- name: Every night drill two backups that were not drilled for a month, so that each one has its turn
  pgkeep.backup.pg_backup_verify:
    repository: /var/backups/postgresql
    level: restore
    sample: 2
    max_age: 30d

- name: Drill on another host, which holds a copy and has room for it
  pgkeep.backup.pg_backup_verify:
    repository: /srv/copies/db1
    level: restore
    latest: true
    work_dir: /srv/scratch
    preload: [timescaledb]
    deadline: 6h
  delegate_to: drills.example.com
  become: true

- name: Drill encrypted backups, on the host that has the private key
  pgkeep.backup.pg_backup_verify:
    repository: /srv/copies/db1
    level: restore
    latest: true
    identity_file: /root/pgkeep-identity
  become: true

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
      sample: restore
    verdict:
      description:
        - V(good), or V(planned) in check mode.
        - V(missing), V(truncated), V(altered) or V(unreadable) where the backup is damaged.
        - V(unrestorable) where the server refused it, V(differs) where something else came back than was backed up,
          V(unexpected) where one of the O(checks) was not answered as it has to be.
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
    drill:
      description: Evidence of the drill. V(null) for lower levels, and where the bytes of the backup are no good.
      type: dict
      returned: always
      contains:
        id:
          description: The backup.
          type: str
          returned: always
          sample: main/shop/shop_2025-11-05_14-30-00
        at:
          description: When the drill began (UTC).
          type: str
          returned: always
          sample: "2025-11-06T03:00:00Z"
        finished:
          description: When it ended (UTC).
          type: str
          returned: always
          sample: "2025-11-06T03:01:12.500000Z"
        host:
          description: Host on which it was.
          type: str
          returned: always
          sample: drills.example.com
        verdict:
          description: V(good), V(unreadable), V(unrestorable), V(differs) or V(unexpected).
          type: str
          returned: always
          sample: good
        problem:
          description: What is wrong, in words. Empty where nothing is.
          type: str
          returned: always
          sample: ""
        backup_server_version:
          description: Version of the server that was backed up. V(null) for an adopted dump that does not say.
          type: str
          returned: always
          sample: "18.6"
        server_version:
          description: Version of the throw-away server.
          type: str
          returned: always
          sample: "18.6"
        collection_version:
          description: Version of this collection.
          type: str
          returned: always
          sample: 0.1.0
        sandbox:
          description: Whether the programs ran in the sandbox.
          type: bool
          returned: always
          sample: true
        seconds:
          description:
            - Seconds that each stage took, by its name. C(server), C(globals), C(checksum), C(create), C(restore),
              C(analyze), C(swap), C(compare) and C(checks). Stages that were not reached are missing.
          type: dict
          returned: always
          sample: {server: 1.1, globals: 0.1, create: 0.1, restore: 52.7, analyze: 4.2, swap: 0.1, compare: 11.9}
        recovery_seconds:
          description: Seconds of those stages that bringing the database back has as well.
          type: float
          returned: always
          sample: 57.2
        compared:
          description: How much was compared. Empty for globals, and where it did not come to that.
          type: dict
          returned: always
          contains:
            tables:
              description: Tables.
              type: int
              returned: when contents were compared
              sample: 42
            rows:
              description: Rows of all tables.
              type: int
              returned: when contents were compared
              sample: 5120340
            bytes:
              description: Bytes of all rows and large objects.
              type: int
              returned: when contents were compared
              sample: 912680550
            sequences:
              description: Sequences.
              type: int
              returned: when contents were compared
              sample: 17
            large_objects:
              description: Large objects.
              type: int
              returned: when contents were compared
              sample: 0
            objects:
              description: Definitions of all kinds, such as tables, indexes, functions and privileges.
              type: int
              returned: when contents were compared
              sample: 311
        checks:
          description: The O(checks) that were for this database.
          type: list
          elements: dict
          returned: always
          contains:
            query:
              description: The query.
              type: str
              returned: always
              sample: SELECT count(*) > 1000 FROM orders
            expected:
              description: What it has to return.
              type: str
              returned: always
              sample: t
            returned:
              description: What it returned, or what the server said.
              type: str
              returned: always
              sample: t
            passed:
              description: Whether that is the same.
              type: bool
              returned: always
              sample: true
        warnings:
          description: What a person should know, such as another version of an extension. They are the task's as well.
          type: list
          elements: str
          returned: always
          sample: ["extension postgis has version 3.5.2 here and had 3.4.1"]
not_due:
  description: Number of backups in scope that O(max_age), O(sample) or O(latest) left out.
  type: int
  returned: always
  sample: 20
for_another_server:
  description:
    - Why there is nothing to verify on this host, where it has no backup of the O(job) and the job's C(run_on) leaves
      them to another server, so that this is no failure. Empty otherwise.
  type: str
  returned: always
  sample: ""
protections:
  description: What a drill protects the host against and what not, in whole sentences. Empty for lower levels.
  type: list
  elements: str
  returned: always
  sample: ["It can change only the drill's own directory."]
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    Decryption,
    DrillOptions,
    Filter,
    FromJob,
    VerifyOptions,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.named_job import verify


def main() -> None:
    run(verify, Filter, VerifyOptions, Decryption, DrillOptions, FromJob, required_one_of=[("repository", "job")])


if __name__ == "__main__":
    main()
