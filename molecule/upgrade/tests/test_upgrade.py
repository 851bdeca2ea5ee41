# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that previous states of the collection set up: whatever they had is there, works, and nothing is twice."""

import json
import re
from pathlib import Path

import pytest

HOSTS = ("old", "recent")
REPOSITORY = "--repository=/var/backups/pgkeep"
NIGHTLY = "/etc/pgkeep/jobs.d/nightly.json"
BY_HAND = Path(__file__).resolve().parent.parent / "before/files/nightly.json"
CRON_LINE = "0 2 * * *  postgres  /usr/local/bin/pgkeep run nightly"


@pytest.fixture(params=HOSTS)
def name(request):
    return request.param


@pytest.fixture
def host(host_named, name):
    return host_named(name)


@pytest.fixture
def before(host):
    """Return what the command of before said of its backups, and which command it was."""
    return json.loads(host.file("/root/before.json").content_string)


def test_the_command_is_another_one(host, before):
    assert host.check_output("pgkeep --version") != before["command"]


def test_every_backup_of_before_is_there_with_its_pin_and_its_verifications(name, before, pgkeep):
    now = {item["id"]: item for item in pgkeep(name, "list", REPOSITORY)["backups"]}
    kept = ("path", "created", "finished", "label", "pin", "status", "size", "server_version")
    for item in before["backups"]:
        assert {key: now[item["id"]][key] for key in kept} == {key: item[key] for key in kept}
        assert all((now[item["id"]]["levels"][level] or "") >= time for level, time in item["levels"].items() if time)
    assert {item["database"] for item in before["backups"] if item["pin"]} == {None, "shop"}, "the globals and shop"
    assert {item["verified_level"] for item in before["backups"]} == {"archive", "restore", None}
    labels = {item["label"] for item in before["backups"]}
    assert labels == {"before-upgrade", None, *(["by-module"] if name == "old" else [])}


def test_every_backup_of_before_is_good_and_restores(name, host, before, pgkeep):
    ids = {item["id"] for item in before["backups"]}
    found = pgkeep(name, "drill", REPOSITORY, "--all")["verifications"]
    assert {item["id"]: item["verdict"] for item in found if item["id"] in ids} == dict.fromkeys(ids, "good")
    evidence = host.check_output("cat /var/backups/pgkeep/main/shop/drills.jsonl").splitlines()
    assert len(evidence) >= 3, "the evidence of before is kept, and more came to it"


def test_a_database_comes_back_from_the_backup_that_was_pinned_before(name, host, sql):
    restore = f"pgkeep restore shop {REPOSITORY} --label before-upgrade --target shop_from_before"
    host.check_output(restore)
    rows = "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM orders t"
    assert sql(name, rows, database="shop_from_before") == sql(name, rows, database="shop")
    sql(name, "DROP DATABASE shop_from_before")


def test_a_job_that_was_written_by_hand_is_untouched_and_runs(name, host, pgkeep):
    assert host.file(NIGHTLY).content_string == BY_HAND.read_text()
    assert host.check_output("ls /etc/pgkeep/jobs.d").split() == ["main.json", "nightly.json"]
    host.check_output("runuser --user=postgres -- pgkeep run nightly --quiet")
    jobs = {job["name"]: job for job in pgkeep(name, "status")["jobs"]}
    assert {run["exit_code"] for run in jobs["nightly"]["runs"]} == {0}
    assert pgkeep(name, "list", "--job", "nightly", "--limit", "1", "shop")["backups"][0]["compression"] == "zstd:3"


def test_what_is_scheduled_by_hand_stays_beside_what_the_role_schedules(host_named):
    host = host_named("old")
    assert CRON_LINE in host.file("/etc/crontab").content_string
    crontab = host.file("/etc/cron.d/pgkeep").content_string
    assert re.search(r"^\d+ 2 \* \* \* postgres /usr/local/bin/pgkeep run main --quiet$", crontab, re.MULTILINE)
    assert "nightly" not in crontab
    assert host.run("ls /etc/systemd/system/pgkeep-*").rc != 0


def test_timers_of_a_job_that_is_gone_are_gone_and_the_others_run(host_named):
    host = host_named("recent")
    units = host.check_output("cd /etc/systemd/system && echo pgkeep-*").split()
    actions = ("backup", "drill", "verify")
    assert units == sorted(f"pgkeep-main-{action}.{kind}" for action in actions for kind in ("service", "timer"))
    timers = host.check_output("systemctl list-timers --all --no-pager --no-legend 'pgkeep-*'")
    assert set(re.findall(r"pgkeep-\S+[.]timer", timers)) == {f"pgkeep-main-{action}.timer" for action in actions}
    assert not host.file("/etc/cron.d/pgkeep").exists
    host.check_output("systemctl start pgkeep-main-backup.service")


def test_the_history_of_before_is_read(host_named, pgkeep):
    history = host_named("recent").file("/var/log/pgkeep/history.jsonl").content_string.splitlines()
    first = json.loads(history[0])
    assert (first["job"], first["command"]) == ("main", "run")
    main = next(job for job in pgkeep("recent", "status")["jobs"] if job["name"] == "main")
    assert main["runs"][0]["exit_code"] == 0


def test_a_crontab_that_was_written_by_hand_is_not_replaced(host_named, playbook):
    host = host_named("old")
    ours = host.file("/etc/cron.d/pgkeep").content_string
    host.check_output("echo %s > /etc/cron.d/pgkeep", CRON_LINE)
    done = playbook("site", "old", code=2)
    assert "/etc/cron.d/pgkeep was written by hand" in " ".join(done.stdout.split())
    assert host.file("/etc/cron.d/pgkeep").content_string == f"{CRON_LINE}\n"
    host.check_output("rm /etc/cron.d/pgkeep")
    playbook("site", "old")
    assert host.file("/etc/cron.d/pgkeep").content_string == ours


def test_a_job_that_would_delete_what_the_one_by_hand_keeps_is_refused(host_named, playbook):
    host = host_named("old")
    before = host.check_output("cd /etc/pgkeep && find . -type f -exec sha256sum {} + | sort")
    done = playbook("site", "old", code=2, pgkeep_defaults={})
    assert "nightly" in done.stdout
    assert "keep_monthly" in done.stdout
    assert host.check_output("cd /etc/pgkeep && find . -type f -exec sha256sum {} + | sort") == before


def test_retention_never_takes_the_pinned_backup(name, host, before, pgkeep):
    pinned = {item["id"] for item in before["backups"] if item["pin"]}
    host.check_output("runuser --user=postgres -- pgkeep prune --repository /var/backups/pgkeep --keep-last 1 --quiet")
    assert pinned <= {item["id"] for item in pgkeep(name, "list", REPOSITORY, "--pinned")["backups"]}
