# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Passwords in variables: they reach the files that need them, and no output, log, process list or other file.

Every test has passwords of its own. A host of the scenario `fleet` is only looked at in check mode.
"""

import base64
import json
import secrets

import pytest

HOST = "full"
COMMAND = "/usr/local/sbin/pgkeep"
PLACE = ("--config-dir", "/etc/keeper")
ROLE = {"name": "keeper", "bypass_rls": False, "pause_replay": True}
PLACES = {
    "login_user": "keeper",
    "login_host": "localhost",
    "instance": "full",
    "work_dir": "/srv/work",
    "sandbox": False,
    "wait": "5m",
}

# Reads what processes on a host are called with, and their environment, as often as it can. It says which of the words in a
# file it saw, by their numbers.
WATCHER = """
import os, sys
with open(sys.argv[1], "rb") as file:
    words = file.read().split()
os.unlink(sys.argv[1])
seen = set()
with open(sys.argv[2], "w") as out:
    while True:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            for what in ("cmdline", "environ"):
                try:
                    with open(f"/proc/{pid}/{what}", "rb") as file:
                        text = file.read()
                except OSError:
                    continue
                for hit in {(number, what) for number, word in enumerate(words) if word in text} - seen:
                    seen.add(hit)
                    print(*hit, file=out, flush=True)
"""


def new_password():
    """Return a password whose first eight letters look the same however it is quoted or escaped; the rest does not."""
    return f"{secrets.token_hex(4)}'\"\\: %é$ #"


def forms(password):
    """Return what gives a password away: its beginning, and that in base64 wherever it stands, and in hexadecimal."""
    begin = password[:8].encode()
    # The characters of base64 that are made of these bytes alone, after none, one or two others.
    parts = [
        base64.b64encode(b"x" * shift + begin)[first:last]
        for shift, first, last in ((0, 0, 10), (1, 2, 12), (2, 3, 13))
    ]
    return [begin.decode(), *(part.decode() for part in parts), begin.hex()]


def assert_silent(text, passwords):
    for name, password in passwords.items():
        assert [form for form in forms(password) if form in text] == [], name


def grep(command, password):
    """Return a command of a shell that searches for a password, and what stands for %s in it."""
    return f"{command} {' '.join(['-e %s'] * len(forms(password)))}", *forms(password)


@pytest.fixture
def run(playbook, tmp_path, monkeypatch):
    """Return a function: given hosts, variables and more arguments, run site.yml with all that Ansible can say; return it."""

    def call(hosts, variables, *arguments, code=0):
        monkeypatch.setenv("ANSIBLE_LOG_PATH", str(tmp_path / "ansible.log"))
        file = tmp_path / "variables.json"
        file.write_text(json.dumps(variables))
        done = playbook("site", hosts, "-vvv", "--diff", "--extra-vars", f"@{file}", *arguments, code=code)
        return done.stdout + done.stderr + (tmp_path / "ansible.log").read_text()

    return call


@pytest.fixture
def traces(host_named):
    """Return a function: given a host and passwords, return in which files of the host each of them is, with the journal
    as the file "journal".
    """

    def look(name, passwords):
        host, found = host_named(name), {}
        for key, password in passwords.items():
            everywhere = "find / /run /tmp /dev/shm -xdev -type f -print0 | xargs --null --no-run-if-empty grep -alF"
            found[key] = set(host.run(*grep(everywhere, password)).stdout.splitlines())
            journal = host.run(*grep("journalctl --all --no-pager --output=export | grep -acF", password)).stdout
            found[key] |= {"journal"} if journal.strip() != "0" else set()
        return {key: files for key, files in found.items() if files}

    return look


@pytest.fixture
def watched(host_named, until):
    """Return a context in which the processes of a host are watched for passwords."""

    class Watch:
        def __init__(self, name, passwords):
            self.host, self.canary = host_named(name), secrets.token_hex(8)
            self.words = [form for password in passwords.values() for form in forms(password)]

        def seen(self):
            return set(self.host.file("/run/watcher.out").content_string.splitlines())

        def __enter__(self):
            words = "\n".join([self.canary, *self.words])
            self.host.check_output("(umask 077; printf %%s %s > /run/watcher.in)", words)
            unit = (
                "systemd-run --quiet --collect --unit=watcher --nice=5 python3 -c %s /run/watcher.in /run/watcher.out"
            )
            self.host.check_output(unit, WATCHER)
            until(lambda: self.host.file("/run/watcher.out").exists, "the watcher watches")
            until(
                lambda: self.host.run("sh -c 'sleep 1; :' %s", self.canary).rc == 0 and self.seen(),
                "it sees what is there",
            )

        def __exit__(self, *error):
            self.host.check_output("systemctl stop watcher")
            seen = self.seen()
            self.host.check_output("rm /run/watcher.out")
            if not error[0]:
                assert seen == {"0 cmdline"}, self.words

    return Watch


def test_passwords_are_in_the_files_that_need_them_and_nowhere_else(
    host_named, playbook, run, traces, watched, sql, pgkeep
):
    host = host_named(HOST)
    passwords = {name: new_password() for name in ("passfile", "role", "defaults")}
    variables = {
        "pgkeep_passwords": [{"host": "db.example.org", "user": "keeper", "password": passwords["passfile"]}],
        "pgkeep_command_database_roles": [{**ROLE, "password": passwords["role"]}],
        "pgkeep_defaults": {**PLACES, "login_password": passwords["defaults"]},
        "pgkeep_jobs": {
            "shop": {"databases": ["stock"], "login_password": passwords["role"], "backup_schedule": "never"},
            "refused": {"databases": ["stock"], "backup_schedule": "never"},
        },
    }
    files = {
        "passfile": {"/etc/keeper/pgpass"},
        "role": {"/etc/keeper/jobs.d/shop.json"},
        "defaults": {"/etc/keeper/defaults.json"},
    }
    sql(HOST, "ALTER SYSTEM SET log_statement = 'all'")
    sql(HOST, "SELECT pg_reload_conf()")
    try:
        with watched(HOST, passwords):
            assert_silent(run(HOST, variables, "--check"), passwords)
        assert traces(HOST, passwords) == {}
        with watched(HOST, passwords):
            done = run(HOST, variables)
            assert_silent(done, passwords)
            assert '+  "login_password": "(hidden' in done
            for job, code in (("shop", 0), ("refused", 1)):
                command = f"cd / && runuser --user=keeper -- {COMMAND} run {job} --config-dir /etc/keeper"
                ran = host.run(command)
                assert ran.rc == code, ran.stderr
                assert_silent(ran.stdout + ran.stderr, passwords)
        assert_silent(json.dumps(pgkeep(HOST, "status", *PLACE, path=COMMAND)), passwords)
        assert_silent(host.check_output("zcat --force /var/log/keeper/*"), passwords)
        assert traces(HOST, passwords) == files
        assert {host.file(path).mode for paths in files.values() for path in paths} == {0o600}
        assert "pg_backup_config" in host.check_output("journalctl --no-pager"), "Ansible writes to the journal"
        assert "ALTER USER" not in host.check_output("cat /var/log/postgresql/*.log")
        assert_silent(run(HOST, {**variables, "pgkeep_state": "absent"}, "--check"), passwords)
        assert traces(HOST, passwords) == files
    finally:
        sql(HOST, "ALTER SYSTEM RESET log_statement")
        sql(HOST, "SELECT pg_reload_conf()")
        playbook("site", HOST)
    assert traces(HOST, passwords) == {}


def test_a_host_that_dumps_another_has_none_of_them_in_its_output(run, traces, watched):
    passwords = {name: new_password() for name in ("passfile", "job")}
    variables = {
        "pgkeep_passwords": [{"host": "db13", "password": passwords["passfile"]}],
        "pgkeep_jobs": {"remote": {"login_host": "db13", "login_password": passwords["job"]}},
    }
    with watched("client", passwords):
        assert_silent(run("client", variables, "--check"), passwords)
    assert traces("client", passwords) == {}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"pgkeep_jobs": {"shop": {"login_password": "SECRET", "keep_last": -1}}}, "keep_last"),
        ({"pgkeep_jobs": {"shop": {"login_password": "SECRET\n"}}}, "login_password"),
        ({"pgkeep_jobs": {"shop": {"login_password": ["SECRET"], "keep_last": -1}}}, "login_password must be a text"),
        ({"pgkeep_jobs": {"shop": {"login_pasword": "SECRET"}}}, "did you mean login_password?"),
        ({"pgkeep_jobs": {"shop": "SECRET"}}, "job shop must be a dictionary of options"),
        ({"pgkeep_defaults": {"login_pasword": "SECRET"}}, "did you mean login_password?"),
        ({"pgkeep_passwords": [{"host": "db1", "pasword": "SECRET"}]}, "pasword"),
        ({"pgkeep_passwords": [{"host": "db1", "password": "SECRET\n"}]}, "line break"),
        ({"pgkeep_passwords": "SECRET"}, "pgkeep_command_passwords"),
        ({"pgkeep_passwords": [{"host": "#", "password": ["SECRET"]}]}, "host begins with #"),
        ({"pgkeep_command_database_roles": [{"name": "keeper", "pasword": "SECRET"}]}, "pasword"),
        ({"pgkeep_command_database_roles": [{"name": "keeper", "password": "SECRET", "login_port": "x"}]}, "login_port"),
        ({"pgkeep_command_database_roles": [{"name": "a\0b", "password": "SECRET"}]}, "Create the role"),
    ],
)  # fmt: skip
def test_a_run_that_fails_says_why_and_no_password(host_named, run, traces, variables, said):
    password = new_password()
    configuration = host_named(HOST).check_output("cat /etc/keeper/*.json /etc/keeper/jobs.d/*")

    def filled(value):
        if isinstance(value, str):
            return value.replace("SECRET", password)
        if isinstance(value, list):
            return [filled(item) for item in value]
        return {name: filled(item) for name, item in value.items()} if isinstance(value, dict) else value

    text = run(HOST, {**filled(variables), "pgkeep_parts": ["command"]}, code=2)
    assert_silent(text, {"it": password})
    assert f"{HOST}: failed, " in text
    assert said in text
    assert traces(HOST, {"it": password}) == {}
    assert host_named(HOST).check_output("cat /etc/keeper/*.json /etc/keeper/jobs.d/*") == configuration
