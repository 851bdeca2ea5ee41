#!/usr/bin/python
# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_command
short_description: Install the command pgkeep on a host
version_added: 0.1.0
author: pgkeep maintainers (@pgkeep)
description:
  - Installs the command C(pgkeep), which does what the modules of this collection do, without Ansible, for cron and for
    people.
  - The command is one file, a zip of Python code that is built from the modules' own code, so the two cannot differ. It
    changes on a host exactly when the code does, and is replaced in one step.
  - Before it replaces the command, it runs the new one with C(--version) on the host. An interpreter that is missing or
    too old fails the task, and not the next night's backup.
extends_documentation_fragment:
  - pgkeep.backup.attributes
attributes:
  action:
    description: The options are processed by an action plugin on the controller.
    support: full
  check_mode:
    support: full
  diff_mode:
    support: partial
    details:
      - The file is binary. Only its properties are compared.
  idempotent:
    support: full
options:
  path:
    description:
      - Where to install the command. The directory must exist.
    type: path
    default: /usr/local/bin/pgkeep
  interpreter:
    description:
      - Absolute path of the Python interpreter on the host that runs the command, version 3.9 or newer with psycopg2.
      - It runs in isolated mode, so that neither the environment nor the current directory can add code to it.
    type: path
    default: /usr/bin/python3
  owner:
    description:
      - Owner of the file.
    type: str
  group:
    description:
      - Group of the file.
    type: str
  mode:
    description:
      - Mode of the file. Quote it, so that YAML does not take it for a decimal number.
    type: raw
    default: "0755"
seealso:
  - module: pgkeep.backup.pg_backup
  - module: ansible.builtin.copy
"""

EXAMPLES = r"""
- name: Install the command for cron
  pgkeep.backup.pg_backup_command:
  become: true

- name: Install it where only the backup user can run it, with another Python
  pgkeep.backup.pg_backup_command:
    path: /opt/pgkeep/bin/pgkeep
    interpreter: /opt/python3.12/bin/python3
    owner: root
    group: postgres
    mode: "0750"
  become: true
  register: command

- name: Show which code is installed
  ansible.builtin.debug:
    msg: "pgkeep {{ command.version }}, SHA-256 {{ command.checksum }}"
"""

RETURN = r"""
path:
  description: Where the command is.
  type: str
  returned: success
  sample: /usr/local/bin/pgkeep
version:
  description: Version of the collection that the command was built from.
  type: str
  returned: success
  sample: 0.1.0
checksum:
  description: SHA-256 of the file. C(pgkeep --version) on the host prints the same.
  type: str
  returned: success
  sample: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
owner:
  description: Owner of the file.
  type: str
  returned: when the file exists
  sample: root
group:
  description: Group of the file.
  type: str
  returned: when the file exists
  sample: root
mode:
  description: Mode of the file.
  type: str
  returned: when the file exists
  sample: "0755"
size:
  description: Bytes of the file.
  type: int
  returned: when the file exists
  sample: 180000
"""

# There is no code here: the action plugin of the same name does the work on the controller.
