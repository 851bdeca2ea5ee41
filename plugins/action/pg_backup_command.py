# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the command from the engine's files and let the copy action bring it to the host."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.version import VERSION
from ansible_collections.pgkeep.backup.plugins.plugin_utils._command import build_zip, read_core

# Paths are plain strings here: Ansible would look up ~ and variables on the controller.
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "path": {"type": "str", "default": "/usr/local/bin/pgkeep"},
    "interpreter": {"type": "str", "default": "/usr/bin/python3"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw", "default": "0755"},
}
CORE = Path(__file__).resolve().parent.parent / "module_utils" / "_core"

# Linux before 5.1 reads 127 bytes of a first line. White space would end the name, and % and quotes the validation.
_INTERPRETER = re.compile(r"/[A-Za-z0-9_./+-]{1,120}")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False  # copy makes a place for its file on the host, when it has one to bring

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Given the variables of the host, install the command and return what copy returns, version and checksum."""
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        _check(arguments)
        command = build_zip(read_core(CORE), arguments["interpreter"])
        result = self._unchanged(command, arguments, task_vars) or self._copy(command, arguments, task_vars)
        return {
            **result,
            "path": result.get("dest", arguments["path"]),
            "version": VERSION,
            "checksum": hashlib.sha256(command).hexdigest(),
        }

    def _unchanged(
        self, command: bytes, arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Given the bytes of the command, look at the host once; return what copy would where it has nothing to do, else None.

        Copy itself goes to the host four times to find that out.
        """
        found = self._execute_remote_stat(arguments["path"], all_vars=task_vars, follow=False)
        is_right = (
            found.get("isreg")
            and found["checksum"] == hashlib.sha1(command, usedforsecurity=False).hexdigest()  # what stat returns
            and found["mode"] == arguments["mode"]
            and arguments["owner"] in (None, found.get("pw_name"))
            and arguments["group"] in (None, found.get("gr_name"))
        )
        if not is_right:
            return None
        about = {"owner": "pw_name", "group": "gr_name", **{name: name for name in ("gid", "mode", "size", "uid")}}
        return {"changed": False, "state": "file", **{key: found.get(of) for key, of in about.items()}}

    def _copy(self, command: bytes, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Given the bytes of the command, put them on the host by the copy action."""
        with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as directory:
            source = Path(directory, "pgkeep")  # copy takes this name where `path` turns out to be a directory
            source.write_bytes(command)
            task = self._task.copy()
            task.args = {
                "src": str(source),
                "dest": arguments["path"],
                "validate": f"{arguments['interpreter']} -IXutf8 %s --version",
                **{name: arguments[name] for name in ("owner", "group", "mode") if arguments[name] is not None},
            }
            copy = self._shared_loader_obj.action_loader.get(
                "ansible.builtin.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            return copy.run(task_vars=task_vars)


def _check(arguments: dict[str, Any]) -> None:
    """Given the arguments, raise where copy would do something else than asked."""
    path, interpreter = arguments["path"], arguments["interpreter"]
    if not path.startswith("/") or path.endswith("/"):
        raise AnsibleActionFail(f"path is {path!r}: must be the absolute path of a file, such as /usr/local/bin/pgkeep")
    if not _INTERPRETER.fullmatch(interpreter):
        raise AnsibleActionFail(
            f"interpreter is {interpreter!r}: must be an absolute path of letters, digits and _./+-"
        )
