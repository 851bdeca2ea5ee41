# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host on which no variable is set: what is there afterwards, that it works, and that it goes away again."""

import re
from datetime import datetime, timezone

import pytest

HOST = "one"
FILES = ("/usr/local/bin/pgkeep", "/etc/pgkeep", "/etc/cron.d/pgkeep", "/etc/logrotate.d/pgkeep")


@pytest.fixture
def host(host_named):
    return host_named(HOST)


def entries(host):
    """Return the entries of the crontab: time, user and command of each action."""
    lines = host.file("/etc/cron.d/pgkeep").content_string.splitlines()
    found = (re.fullmatch(r"(\S+ \S+ \S+ \S+ \S+) (\S+) (/.*)", line) for line in lines)
    return {re.search(r"pgkeep (\w+)", match[3])[1]: match.groups() for match in found if match}


def test_the_repository_is_the_users_alone_and_the_configuration_is_roots(host):
    modes = {
        "/var/backups/pgkeep": ("postgres", 0o700),
        "/var/log/pgkeep": ("postgres", 0o750),
        "/etc/pgkeep": ("root", 0o750),
        "/etc/pgkeep/jobs.d/main.json": ("root", 0o640),
        "/usr/local/bin/pgkeep": ("root", 0o755),
        "/etc/cron.d/pgkeep": ("root", 0o644),
    }
    assert {path: (host.file(path).user, host.file(path).mode) for path in modes} == modes
    assert host.check_output("runuser --user=postgres -- pgkeep check-config") == "/etc/pgkeep: no problems"


def test_the_crontab_has_the_times_that_are_promised_and_nothing_that_cron_or_a_shell_would_take_apart(host):
    text = host.file("/etc/cron.d/pgkeep").content_string
    assert "\nPATH=/usr/local/sbin:" in text
    assert "\nMAILTO=root\n" in text
    assert not re.search(r"[%;&|<>$`\\]", text)
    times = {action: time for action, (time, user, _command) in entries(host).items() if user == "postgres"}
    assert re.fullmatch(r"[0-9]|[12][0-9]", times["run"].split()[0])
    assert {action: time.split(" ", 1)[1] for action, time in times.items()} == {
        "run": "2 * * *", "verify": "3 * * 0", "drill": "4 1 * *",
    }  # fmt: skip
    assert host.service("cron").is_running
    assert host.service("cron").is_enabled


def test_every_entry_of_the_crontab_works_when_it_is_run_as_cron_would(host, pgkeep):
    environment = "env -i HOME=/var/lib/postgresql LOGNAME=postgres SHELL=/bin/sh PATH=/usr/bin:/bin"
    for action in ("run", "verify", "drill"):
        _time, user, command = entries(host)[action]
        done = host.run(f"cd / && {environment} /usr/sbin/runuser --user={user} -- /bin/sh -c %s", command)
        assert (done.rc, done.stdout, done.stderr) == (0, "", ""), action
    (job,) = pgkeep(HOST, "status")["jobs"]
    assert {item["database"] for item in job["databases"]} == {"@globals", "postgres", "shop", "stock"}
    assert all(item["verified_level"] == "restore" and item["drilled"] for item in job["databases"])
    assert [run["exit_code"] for run in job["runs"]] == [0, 0, 0]
    following = {item["action"]: item["next"] for item in job["schedules"]}
    now = datetime.now(timezone.utc).isoformat()
    assert following.pop("prune") is None
    assert all(time > now for time in following.values())


def test_the_log_says_what_was_done_and_logrotate_rotates_it(host):
    log = host.file("/var/log/pgkeep/pgkeep.log")
    assert re.search(r"main run: shop: done, .* in .*/shop_20", log.content_string)
    assert "main drill: verified 4 backups, all good" in log.content_string
    assert (log.user, log.mode) == ("postgres", 0o640)
    assert host.run("logrotate --debug /etc/logrotate.conf").rc == 0
    before = log.content_string
    host.check_output("logrotate --force /etc/logrotate.d/pgkeep")
    assert host.file("/var/log/pgkeep/pgkeep.log.1").content_string == before
    assert not host.file("/var/log/pgkeep/pgkeep.log").exists
    assert "last drill" in host.check_output("pgkeep status"), "the history of before is still read"
    host.check_output("runuser --user=postgres -- pgkeep prune --job main --quiet")
    assert "main prune: deleted 0 backups" in host.file("/var/log/pgkeep/pgkeep.log").content_string
    host.check_output("logrotate --force /etc/logrotate.d/pgkeep")
    assert host.file("/var/log/pgkeep/pgkeep.log.2.gz").exists


def test_an_operator_gets_a_database_back(host, sql):
    sql(HOST, "DELETE FROM orders", database="shop")
    host.check_output("pgkeep restore shop --job main --replace shop")
    assert sql(HOST, "SELECT count(*) FROM orders", database="shop") == "5000"
    for name in sql(HOST, "SELECT datname FROM pg_database WHERE datname LIKE 'shop_%'").splitlines():
        sql(HOST, f'DROP DATABASE "{name}"')


def test_a_host_whose_configuration_is_wrong_keeps_what_it_had(host, playbook):
    before = {path: host.file(path).content_string for path in ("/etc/pgkeep/defaults.json", "/etc/cron.d/pgkeep")}
    wrong = {"keep_last": 0, "keep_days": 0}
    done = playbook("site", HOST, code=2, pgkeep_jobs={"main": wrong})
    assert "one: failed, Write the configuration: " in done.stdout
    assert "0 of 1 hosts without failures" in done.stdout
    assert {path: host.file(path).content_string for path in before} == before
    done = playbook("site", HOST, code=2, pgkeep_jobs={"main": {"backup_schedule": "dayly"}})
    assert "did you mean daily?" in done.stdout
    assert {path: host.file(path).content_string for path in before} == before


def test_it_goes_away_without_a_trace_and_without_a_backup(host, playbook, pgkeep):
    backups = pgkeep(HOST, "list", "--repository", "/var/backups/pgkeep")["backups"]
    assert backups
    planned = playbook("site", HOST, "--check", "--diff", pgkeep_state="absent")
    assert re.search(r"changed=[1-9]", planned.stdout)
    assert all(host.file(path).exists for path in FILES)
    playbook("site", HOST, pgkeep_state="absent")
    assert not any(host.file(path).exists for path in FILES)
    assert " changed=0 " in playbook("site", HOST, pgkeep_state="absent").stdout
    assert host.check_output("find /var/backups/pgkeep -name manifest.json | wc -l") == str(len(backups))
    assert host.file("/var/log/pgkeep/history.jsonl.1").exists
    assert host.service("postgresql@15-main").is_running
    playbook("site", HOST)
    assert pgkeep(HOST, "list")["backups"][0]["id"] == backups[0]["id"]
