# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role pgkeep_offsite writes: nothing that another host says gets into a file as it is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pgkeep.backup.plugins.module_utils._core import command_line
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.job import combination_problems, policy_of
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.schema import (
    job_schema,
    problems,
    target_schema,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.targets import target_problems

# Not the filters themselves: Ansible takes a process that has imported those for its controller.
from ansible_collections.pgkeep.backup.plugins.plugin_utils._jobs import resolve_jobs
from ansible_collections.pgkeep.backup.plugins.plugin_utils._offsite import (
    authorized_keys,
    known_hosts,
    rclone_config,
    received_jobs,
)

from tests.playbook import HERE, run_playbook

from .test_filters import test_a_filter_documents_exactly_its_arguments as documents_its_arguments

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "/usr/local/bin/pgkeep"
ONE, TWO, THREE = (f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter * 43}" for letter in "MGK")
KNOWN_HOSTS = "/etc/pgkeep/offsite/known_hosts"
RSYNC = {"type": "rsync", "host": "vault", "known_hosts_file": KNOWN_HOSTS}


def keys_file(senders: Any, readers: Any = (), **more: Any) -> str:
    return authorized_keys(
        senders, list(readers), {"db1": f"{ONE} pgkeep@db1\n", "db2": TWO}, "/srv/pgkeep", COMMAND, **more
    )


# --- authorized_keys ---


def test_each_key_is_bound_to_its_own_directory() -> None:
    written = keys_file(
        ["db1", {"name": "db2", "quota": "2 TB"}], [{"name": "new", "public_key": THREE}], quota="500GB"
    )
    assert written.splitlines()[2:] == [
        f'restrict,command="{COMMAND} receive /srv/pgkeep/db1 --quota 500GB" {ONE} sends:db1',
        f'restrict,command="{COMMAND} receive /srv/pgkeep/db2 --quota 2TB" {TWO} sends:db2',
        f'restrict,command="rrsync -ro /srv/pgkeep" {THREE} reads:new',
    ]
    assert written.startswith("# Managed by Ansible")


def test_a_reader_may_be_bound_to_the_copies_of_one_sender() -> None:
    readers = [{"name": "new", "public_key": THREE, "sender": "db1"}]
    assert f'command="rrsync -ro /srv/pgkeep/db1" {THREE}' in keys_file(["db1"], readers)
    with pytest.raises(ConfigurationError, match="db9 is not one of the senders"):
        keys_file(["db1"], [{**readers[0], "sender": "db9"}])


def test_who_was_not_asked_keeps_the_key_and_gets_the_options_of_now() -> None:
    before = keys_file(["db1", "db2"], quota="1TB")
    after = authorized_keys(["db1", "db2", "db3"], [], {"db1": THREE}, "/srv/pgkeep", COMMAND, present=before)
    assert after.splitlines()[2:] == [
        f'restrict,command="{COMMAND} receive /srv/pgkeep/db1" {THREE} sends:db1',
        f'restrict,command="{COMMAND} receive /srv/pgkeep/db2" {TWO} sends:db2',
        "# db3 has no key yet (sends)",
    ]


def test_who_is_not_named_any_more_can_send_no_more() -> None:
    assert ONE not in keys_file(["db2"], present=keys_file(["db1", "db2"]))


@pytest.mark.parametrize(
    "key",
    [
        f"{ONE}\n{TWO}",
        f'command="/bin/sh" {ONE}',
        f"{ONE} comment\nrestrict {TWO}",
        f"{ONE}\r{TWO}",
        "ssh-ed25519",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f" {ONE}",
    ],
)
def test_a_host_cannot_give_itself_more_rights_with_what_it_calls_its_key(key: str) -> None:
    with pytest.raises(ConfigurationError, match="the key of evil: not an SSH public key"):
        authorized_keys(["evil"], [], {"evil": key}, "/srv/pgkeep", COMMAND)


def test_a_host_cannot_take_the_key_of_another_for_its_own() -> None:
    with pytest.raises(ConfigurationError, match=r"db1 \(sends\) and evil \(sends\) have the same key"):
        authorized_keys(["db1", "evil"], [], {"db1": f"{ONE} a", "evil": f"{ONE} b"}, "/srv/pgkeep", COMMAND)


@pytest.mark.parametrize(
    ("senders", "message"),
    [
        (["DB1", "db1"], "each needs a name of its own"),
        (["../etc"], "is no name"),
        (['db1" ', "db2"], "is no name"),
        ([{"name": "db1", "quota": "much"}], "is not a size"),
        ([{"name": "db1", "key": ONE}], "key is not known: say name, public_key"),
        ("db1", "must be a list"),
        ([7], "neither a name"),
    ],
)
def test_senders_that_cannot_be_meant_are_refused(senders: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        keys_file(senders)


def test_nothing_in_a_line_can_mean_something_to_a_shell() -> None:
    for directory, command in (("/srv/$x", COMMAND), ("/srv", f"{COMMAND};id"), ("srv", COMMAND), ('/srv"', COMMAND)):
        with pytest.raises(ConfigurationError, match="must be an absolute path"):
            authorized_keys(["db1"], [], {}, directory, command)


# --- known_hosts ---


def test_only_hosts_of_targets_with_this_file_are_known() -> None:
    targets = {
        "vault": RSYNC,
        "odd": {**RSYNC, "host": "odd", "port": 2222},
        "own": {**RSYNC, "host": "own", "known_hosts_file": "/root/.ssh/known_hosts"},
        "disk": {"type": "directory", "path": "/mnt"},
        "unknown": {**RSYNC, "host": "unknown"},
    }
    keys = {"vault": f"{ONE} root@vault\n", "odd": TWO, "own": THREE}
    assert known_hosts(targets, keys, KNOWN_HOSTS).splitlines()[1:] == [f"[odd]:2222 {TWO}", f"vault {ONE}"]


def test_a_host_key_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="the host key of vault: not an SSH public key"):
        known_hosts({"vault": RSYNC}, {"vault": f"{ONE}\n* {TWO}"}, KNOWN_HOSTS)
    with pytest.raises(ConfigurationError, match="host is '\\*'"):
        known_hosts({"vault": {**RSYNC, "host": "*"}}, {}, KNOWN_HOSTS)


# --- rclone_config ---


@pytest.mark.skipif(not shutil.which("rclone"), reason="rclone is not installed")
def test_rclone_reads_back_what_was_meant(tmp_path: Path) -> None:
    texts = [
        "plain",
        '"quoted"',
        "`back`",
        "# ; = [x]",
        "$HOME \\n",
        "  spaces  ",
        '`"both',
        "ends`",
        '"""',
        '"',
        "ü€",
        "",
    ]
    remotes = {
        "x": {"type": "s3", **{f"option_{number}": text for number, text in enumerate(texts)}},
        "y": {"type": "local"},
    }
    (tmp_path / "rclone.conf").write_text(rclone_config({**remotes, "z": {"type": "s3", "flag": True, "number": 5}}))
    command = ["rclone", "--config", str(tmp_path / "rclone.conf"), "config", "dump"]
    read = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert read.pop("z") == {"type": "s3", "flag": "true", "number": "5"}
    assert read == remotes


@pytest.mark.parametrize(
    "remotes",
    [
        {"x": {"type": "s3", "key": "SECRET\n[y]"}},
        {"x": {"type": "s3", "key": "SECRET%(type)s"}},
        {"x": {"type": "s3", "key": '"""SECRET` "'}},
        {"x": {"type": "s3", "key": ["SECRET"]}},
        {"x": {"type": "s3", "a = SECRET\nb": "c"}},
        {"x]\n[y": {"type": "SECRET"}},
        {"x": {"key": "SECRET"}},
        {"x": "SECRET"},
        "SECRET",
    ],
)
def test_what_rclone_could_not_read_back_is_refused_without_a_secret(remotes: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        rclone_config(remotes)
    assert "SECRET" not in str(raised.value).replace("a = SECRET\\nb", "").replace("a = SECRET\nb", "")


# --- received_jobs ---


def test_each_instance_of_each_sender_is_pruned_and_verified() -> None:
    hostvars = {
        "db1.example.org": {
            "pgkeep_defaults": {"encryption": "age", "recipients": ["age1x"]},
            "pgkeep_jobs": {"main": None, "more": {"databases": ["x"]}, "old": {"instance": "old.9"}},
        },
        "db2": {},
    }
    senders = ["db1.example.org", "db2", {"name": "far", "public_key": ONE, "instances": ["a", "b"]}]
    jobs = received_jobs(senders, "/srv/pgkeep", {"keep_days": 90}, hostvars)
    common = {
        "backup_schedule": "never",
        "prune_schedule": "daily",
        "drill_schedule": "never",
        "schedule_spread": "12h",
        "keep_days": 90,
    }
    first = {"repository": "/srv/pgkeep/db1.example.org", "encryption": "age", "recipients": ["age1x"], **common}
    assert jobs == {
        "db1_example_org-main": {"instance": "main", **first},
        "db1_example_org-old_9": {"instance": "old.9", **first},
        "db2-main": {"repository": "/srv/pgkeep/db2", "instance": "main", **common},
        "far-a": {"repository": "/srv/pgkeep/far", "instance": "a", **common},
        "far-b": {"repository": "/srv/pgkeep/far", "instance": "b", **common},
    }


def test_they_are_jobs_that_take_no_backup_and_have_retention_by_age() -> None:
    jobs = received_jobs(["db1"], "/srv/pgkeep", {"keep_days": 90})
    assert combination_problems(jobs["db1-main"]) == []
    assert problems(jobs["db1-main"], job_schema()) == []
    policy = policy_of(jobs["db1-main"])
    assert (policy.keep_days, policy.keep_last) == (90, None)
    (resolved,) = resolve_jobs(jobs, "vault")
    assert resolved["backup_schedule"] == resolved["drill_schedule"] == "never"
    assert resolved["prune_schedule"].split()[2:] == ["*", "*", "*"]
    assert resolved["verify_schedule"].split()[4] == "0"


@pytest.mark.parametrize("options", [{}, None, {"keep_minimum": 3}, {"keep_days": 0}])
def test_without_a_rule_of_retention_there_is_no_job(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="need a rule of retention"):
        received_jobs(["db1"], "/srv/pgkeep", options)


def test_two_hosts_never_have_one_job() -> None:
    with pytest.raises(ConfigurationError, match="two jobs would be called a_b-main"):
        received_jobs(["a.b", "a_b"], "/srv/pgkeep", {"keep_days": 1})


# --- documentation, and in a playbook ---


def blocks(language: str) -> list[str]:
    """Given a language, return the blocks of docs/offsite.md that are in it, without what indents them."""
    text = (ROOT / "docs/offsite.md").read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def values_of(name: str, value: Any) -> list[Any]:
    """Given a key and a document, return what it has under that key, wherever that is."""
    if not isinstance(value, dict):
        return []
    deeper = [found for item in value.values() for found in values_of(name, item)]
    return [value[name], *deeper] if name in value else deeper


def test_every_target_and_every_job_on_the_page_is_accepted() -> None:
    written = [yaml.safe_load(block) for block in blocks("yaml")]
    targets = [
        target for document in written for found in values_of("pgkeep_targets", document) for target in found.values()
    ]
    files = [json.loads(block) for block in blocks("json")]
    targets += [file for file in files if "type" in file]
    assert {target["type"] for target in targets} == {"directory", "rsync", "rclone"}
    for target in targets:
        assert problems(target, target_schema()) == []
        assert target_problems(target) == []
    jobs = [found for document in written for found in values_of("pgkeep_defaults", document)]
    jobs += [file for file in files if "repository" in file]
    assert len(jobs) == 2
    for job in jobs:
        assert problems(job, job_schema()) == []
        assert combination_problems(job) == []
    remotes = [found for document in written for found in values_of("pgkeep_offsite_rclone", document)]
    assert rclone_config(remotes[0]).startswith("# Managed by Ansible")


def test_every_command_on_the_page_is_accepted() -> None:
    commands = [line[2:] for block in blocks("text") for line in block.splitlines() if line.startswith("# pgkeep ")]
    assert len(commands) > 10
    for command in commands:
        words = shlex.split(command)[1:]
        assert command_line.parser().parse_args(words).command == words[0]


def test_the_line_for_a_key_on_the_page_is_the_one_that_the_role_writes() -> None:
    (block,) = [block for block in blocks("text") if block.startswith("restrict")]
    written = keys_file([{"name": "db1.example.org", "quota": "500GB", "public_key": ONE}]).splitlines()[2]
    assert block.split(" ssh-ed25519 ")[0] == written.split(" ssh-ed25519 ")[0]


@pytest.mark.parametrize("function", [authorized_keys, known_hosts, rclone_config, received_jobs])
def test_a_filter_documents_exactly_its_arguments(function: Callable[..., Any]) -> None:
    documents_its_arguments(function)


def test_the_jobs_of_an_off_site_host_come_from_the_variables_of_the_senders(tmp_path: Path) -> None:
    inventory = {
        "databases": {
            "hosts": {"db1": {"pgkeep_jobs": {"main": {"instance": "{{ 'shop' }}"}}}, "db2": {}},
            "vars": {"pgkeep_defaults": {"encryption": "age"}},
        },
        "vaults": {
            "hosts": {"localhost": {"ansible_connection": "local"}},
            "vars": {
                "options": {"keep_days": 90},
                "pgkeep_jobs": "{{ groups['databases'] | pgkeep.backup.received_jobs('/srv/pgkeep', options, hostvars) }}",
            },
        },
    }
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    tasks = [
        {"ansible.builtin.copy": {"dest": f"{tmp_path}/jobs", "mode": "0644", "content": "{{ pgkeep_jobs | to_json }}"}},
        {"ansible.builtin.set_fact": {"x": "{{ ['db1'] | pgkeep.backup.received_jobs('/srv', {}) }}"}, "ignore_errors": True},
    ]  # fmt: skip
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "vaults", "gather_facts": False, "tasks": tasks}]))
    done = run_playbook(tmp_path, tmp_path / "play.yml", "-i", str(tmp_path / "inventory.yml"), *HERE[4:])
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads((tmp_path / "jobs").read_text())
    assert {name: (job["instance"], job["encryption"]) for name, job in jobs.items()} == {
        "db1-shop": ("shop", "age"),
        "db2-main": ("main", "age"),
    }
    assert "need a rule of retention" in done.stdout + done.stderr
