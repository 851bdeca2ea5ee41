#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_runbook
short_description: Write the recovery document of a host
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Writes in Markdown how the databases of a host are brought back. What is backed up, where the copies are, which keys
    are needed, the exact commands in their order, how long the last drill of each database took, and what was never
    proven.
  - It reads the repository, and the jobs of the host for how to reach the server. No server needs to run.
  - The document contains no password. It changes only when the repository does, or when the newest backup of a database
    has become old.
requirements:
  - Python 3.9 or newer on the host
extends_documentation_fragment:
  - pgkeep.backup.attributes
  - pgkeep.backup.attributes.action_group
  - pgkeep.backup.connection
  - pgkeep.backup.repository
  - pgkeep.backup.runbook_options
attributes:
  check_mode:
    support: full
    details:
      - The document is returned, and not written.
  diff_mode:
    support: full
    details:
      - Only with O(path).
  idempotent:
    support: full
seealso:
  - module: pgkeep.backup.pg_backup_info
  - module: pgkeep.backup.pg_backup_verify
notes:
  - A document that is only on the host is lost with it. The playbook C(pgkeep.backup.runbook) collects those of all hosts
    on the controller.
  - The connection options are for the commands in the document. What is at its default here is taken from the first job
    in O(config_dir) that has this repository and the same instance. Passwords are never written.
  - O(path) is written as the owner of the repository, with mode 0600.
"""

EXAMPLES = r"""
- name: Write the recovery document of each host
  pgkeep.backup.pg_backup_runbook:
    repository: /var/backups/postgresql
  register: result

- name: Keep it on the controller
  ansible.builtin.copy:
    content: "{{ result.document }}"
    dest: "runbooks/{{ inventory_hostname }}.md"
    mode: "0600"
  delegate_to: localhost
  become: false

- name: Keep it on the host as well, where the owner of the repository may write
  pgkeep.backup.pg_backup_runbook:
    repository: /var/backups/postgresql
    path: /var/lib/postgresql/runbook.md

- name: A server on another host, whose password is in a file
  pgkeep.backup.pg_backup_runbook:
    repository: /srv/backups
    login_host: db1.example.com
    login_user: backup
    passfile: /etc/pgkeep/pgpass
    ssl_mode: verify-full
    ca_cert: /etc/ssl/certs/example-ca.pem

- name: A server that listens on another port
  pgkeep.backup.pg_backup_runbook:
    repository: /var/backups/postgresql
    login_unix_socket: /run/postgresql
    login_port: 5433

- name: Jobs that are configured elsewhere
  pgkeep.backup.pg_backup_runbook:
    repository: /var/backups/postgresql
    config_dir: /opt/pgkeep/etc

- name: A copy of the repository, on a host that has no jobs for it
  pgkeep.backup.pg_backup_runbook:
    repository: /srv/copies/db1
    path: /srv/documents/db1.md
"""

RETURN = r"""
msg:
  description: What went wrong.
  type: str
  returned: on failure
  sample: "the repository /var/backups/postgresql is not a directory: check `repository`"
path:
  description: File of the document. V(null) without O(path).
  type: str
  returned: always
  sample: /var/lib/postgresql/runbook.md
document:
  description: The document, in Markdown.
  type: str
  returned: always
  sample: |
    # Recovery of `db1`
"""

from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.run import run
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    Connection,
    Repository,
    RunbookOptions,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.runbook import runbook


def main() -> None:
    run(runbook, Connection, Repository, RunbookOptions)


if __name__ == "__main__":
    main()
