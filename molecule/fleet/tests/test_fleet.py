# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet by itself: cron and systemd start the jobs, nobody else. What they leave restores without pgkeep."""

import json
import re
from datetime import datetime, timezone

import pytest

# host, job, instance, and where its server is
JOBS = [
    ("db12", "main", "pair", "db12", 5432),
    ("standby", "copy", "pair", "standby", 5432),
    ("db13", "main", "main", "db13", 5432),
    ("db13", "legacy", "legacy", "db13", 5433),
    ("client", "remote", "db13", "db13", 5432),
]
ROWS = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM %s t"


@pytest.fixture
def runs(host_named):
    """Return a function: given a host, a job and a time, return the records of its runs that began, or ended, since then."""

    def read(name, job, since, what="started"):
        text = host_named(name).run("cat /var/log/pgkeep/history.jsonl.1 /var/log/pgkeep/history.jsonl").stdout
        records = [json.loads(line) for line in text.splitlines()]
        return [item for item in records if (item["job"], item["command"]) == (job, "run") and item[what] >= since]

    return read


def now():
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def newest(pgkeep, name, job, database):
    return pgkeep(name, "list", "--job", job, "--limit", "1", database)["backups"][0]


def leftovers(host, repository):
    return host.check_output("find %s -name '.inprogress-*' -o -name '.trash-*'", repository)


def test_every_job_is_started_by_its_host_alone_and_succeeds(runs, until):
    since = now()
    for name, job, *_server in JOBS:
        until(lambda name=name, job=job: runs(name, job, since), f"job {job} has run on {name}")
    results = {(name, job): runs(name, job, since)[0] for name, job, *_server in JOBS}
    assert {key: (item["exit_code"], item["message"]) for key, item in results.items()} == dict.fromkeys(
        results, (0, "")
    )
    for item in results.values():
        assert {entry["status"] for entry in item["databases"]} == {"done"}
        assert {"@globals", "shop", "stock"} <= {entry["database"] for entry in item["databases"]}


def test_it_was_cron_where_cron_was_asked_for_and_systemd_where_that_was(host_named):
    for name in ("db12", "standby", "client"):
        assert re.search(
            r"CRON.*\(postgres\) CMD \(.*pgkeep run ", host_named(name).check_output("journalctl --no-pager -t CRON")
        )
        assert host_named(name).run("ls /etc/systemd/system/pgkeep-*").rc != 0
    host = host_named("db13")
    assert not host.file("/etc/cron.d/pgkeep").exists
    for job in ("main", "legacy"):
        said = host.check_output("journalctl --no-pager -u %s", f"pgkeep-{job}-backup.service")
        assert "Finished pgkeep-" in said or "Finished pgkeep:" in said
        assert host.service(f"pgkeep-{job}-drill.timer").is_enabled


@pytest.mark.parametrize(("name", "job", "instance", "server", "port"), JOBS[:4])
def test_a_backup_restores_with_nothing_but_pg_restore(host_named, sql, pgkeep, name, job, instance, server, port):
    backup = newest(pgkeep, name, job, "shop")
    assert backup["instance"] == instance
    where, at = ("db12", 5432) if name == "standby" else (server, port)  # a standby cannot be restored to
    major = sql(where, "SHOW server_version", port=at).partition(".")[0]
    archive = host_named(name).check_output("ls %s", f"{backup['path']}/").split()
    (file,) = [item for item in archive if ".dump" in item]
    content = host_named(name).check_output("base64 --wrap=0 %s", f"{backup['path']}/{file}")
    target = host_named(where)
    sql(where, "DROP DATABASE IF EXISTS proof", port=at)
    sql(where, "CREATE DATABASE proof TEMPLATE template0", port=at)
    target.check_output("echo %s | base64 -d > /tmp/proof", content)
    target.check_output(f"{'zstd -dc' if file.endswith('.zst') else 'cat'} /tmp/proof > /tmp/proof.dump")
    restore = f"runuser -u postgres -- /usr/lib/postgresql/{major}/bin/pg_restore --exit-on-error -p {at} -d proof"
    target.check_output(f"{restore} < /tmp/proof.dump")
    for table in ("orders", "customers"):
        assert sql(where, ROWS % table, database="proof", port=at) == sql(where, ROWS % table, database="shop", port=at)
    assert sql(where, "SELECT length(lo_get(4711))", database="proof", port=at) == "50000"
    sql(where, "DROP DATABASE proof", port=at)


def test_the_client_has_no_server_and_proves_its_backups_all_the_same(host_named, pgkeep):
    host = host_named("client")
    assert host.run("pg_lsclusters --no-header").stdout == ""
    host.check_output("runuser -u postgres -- pgkeep drill --job remote --quiet")
    (job,) = pgkeep("client", "status")["jobs"]
    assert {item["database"] for item in job["databases"] if item["drilled"]} == {"@globals", "shop", "stock"}
    assert host.file("/etc/pgkeep/pgpass").mode == 0o600
    assert host.file("/etc/pgkeep/pgpass").user == "postgres"


# --- a primary and its standby ---


def test_each_job_takes_backups_on_the_server_that_it_is_for_and_says_so_on_the_other(host_named, pgkeep):
    for name, idle in (("db12", "copy"), ("standby", "main")):
        log = host_named(name).file("/var/log/pgkeep/pgkeep.log").content_string
        assert re.search(rf" {idle} run: nothing to do here: ", log)
    labels = {name: {item["label"] for item in pgkeep(name, "list")["backups"]} for name in ("db12", "standby")}
    assert "from-standby" in labels["standby"] - labels["db12"]
    assert None in labels["db12"] - labels["standby"]


def test_replay_goes_on_after_every_dump(sql, until):
    sql("db12", "CREATE TABLE IF NOT EXISTS beat (at timestamptz)")
    at = sql("db12", "INSERT INTO beat VALUES (clock_timestamp()) RETURNING at")
    until(
        lambda: sql("standby", f"SELECT count(*) FROM beat WHERE at = '{at}'") == "1", "the standby has replayed a row"
    )
    sql("db12", "DROP TABLE beat")


# --- what goes wrong ---


def test_the_server_dies_in_the_middle_of_a_dump(host_named, sql, pgkeep, runs, until):
    host = host_named("db12")
    before = newest(pgkeep, "db12", "main", "shop")
    session = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)"
    since = now()
    host.check_output("systemd-run --collect --uid=postgres psql -d shop -c %s", session)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgkeep' AND wait_event_type = 'Lock'"
    until(lambda: sql("db12", waiting) != "0", "a pg_dump waits for the table")
    host.check_output("pg_ctlcluster 15 main stop -m immediate")

    def failures():
        # The run that was in the middle may have begun before us; the next one finds no server at all.
        return [item for item in runs("db12", "main", since, "finished") if "shop" in item["message"]]

    failed = until(failures, "that run has failed")[0]
    assert failed["exit_code"] in (1, 4)
    assert {item["status"] for item in failed["databases"] if item["database"] == "shop"} == {"failed"}
    assert leftovers(host, "/var/backups/pgkeep") == ""
    assert pgkeep("db12", "verify", "--job", "main", "shop")["verifications"][0]["verdict"] == "good"
    assert newest(pgkeep, "db12", "main", "shop")["id"] >= before["id"]
    host.check_output("systemctl start postgresql@15-main")
    since = now()
    good = until(lambda: [item for item in runs("db12", "main", since) if not item["exit_code"]], "a run is good again")
    assert good[0]["message"] == ""


def test_the_disk_is_full(host_named, pgkeep, runs, until):
    host, repository, unit = host_named("db13"), "/var/backups/legacy", "pgkeep-legacy-backup.service"
    owner = host.check_output("id -u postgres")
    host.check_output("systemctl stop pgkeep-legacy-backup.timer")
    until(lambda: host.run("systemctl is-active %s", unit).stdout.strip() not in ("active", "activating"), "it is idle")
    host.check_output("mount -t tmpfs -o size=4m,mode=0700,uid=%s none %s", owner, repository)
    try:
        host.check_output("systemctl start %s", unit)
        assert len(pgkeep("db13", "list", "--job", "legacy")["backups"]) == 4
        host.run("runuser -u postgres -- dd if=/dev/zero bs=4k of=%s", f"{repository}/filler")
        since = now()
        assert host.run("systemctl start %s", unit).rc != 0
        (failed,) = runs("db13", "legacy", since)
        assert failed["exit_code"] == 1
        assert re.search("space", failed["message"], re.IGNORECASE)
        assert leftovers(host, repository) == ""
        assert {item["verdict"] for item in pgkeep("db13", "verify", "--job", "legacy")["verifications"]} == {"good"}
        host.check_output("rm %s", f"{repository}/filler")
        host.check_output("systemctl start %s", unit)
    finally:
        host.check_output("umount %s", repository)
        host.check_output("systemctl start pgkeep-legacy-backup.timer")


def test_a_job_that_is_taken_out_disappears_and_its_backups_stay(host_named, playbook, pgkeep):
    host = host_named("db13")
    count = len(pgkeep("db13", "list", "--job", "legacy")["backups"])
    units = "ls /etc/systemd/system /etc/systemd/system/timers.target.wants | grep pgkeep-legacy"
    assert len(host.check_output(units).split()) == 9
    done = playbook("site", "db13", "--diff", pgkeep_jobs={"main": {"backup_schedule": "* * * * *"}})
    assert "legacy" in done.stdout
    assert host.run(units).stdout == ""
    assert not host.file("/etc/pgkeep/jobs.d/legacy.json").exists
    assert "legacy" not in host.check_output("systemctl list-timers --all --no-pager")
    assert len(pgkeep("db13", "list", "--repository", "/var/backups/legacy")["backups"]) >= count
    playbook("site", "db13")
    assert len(host.check_output(units).split()) == 9


def test_from_systemd_to_cron_and_back(host_named, playbook):
    host = host_named("db13")
    playbook("site", "db13", pgkeep_schedule_method="cron")
    assert host.run("ls /etc/systemd/system/pgkeep-*").rc != 0
    assert "pgkeep run legacy --quiet" in host.file("/etc/cron.d/pgkeep").content_string
    playbook("site", "db13")
    assert not host.file("/etc/cron.d/pgkeep").exists
    assert host.service("pgkeep-main-backup.timer").is_running


# --- playbooks of an operator ---


def test_backups_before_a_deployment_on_all_hosts_but_the_one_that_is_gone(playbook, pgkeep):
    done = playbook("backup", "scenario_fleet,gone", "--inventory=gone,", code=4, label="before-deployment")
    assert "gone: failed, " in done.stdout
    assert "4 of 5 hosts without failures" in done.stdout
    for name, database in (("db12", "shop"), ("standby", "stock"), ("client", "shop"), ("db13", "postgres")):
        assert pgkeep(name, "list", "--label", "before-deployment", "--repository", "/var/backups/pgkeep", database)[
            "backups"
        ]
    again = playbook("backup", "db12", "--check", label="before-deployment")
    assert "main: shop: planned, would write " in again.stdout


def test_the_status_of_all_hosts_in_one_table(playbook):
    done = " ".join(playbook("status", "scenario_fleet").stdout.split())
    for row in ("db12 main shop", "standby copy stock", "db13 legacy @globals", "client remote shop"):
        assert re.search(rf"- {row} 20\d\d-\S+ 0[.]\d h ", done), row
    assert "4 of 4 hosts without failures" in done


def test_prune_verify_and_restore_from_the_controller(playbook, sql, pgkeep):
    kept = len(pgkeep("db12", "list", "--job", "main", "stock")["backups"])
    planned = playbook("prune", "db12", "--check", "--diff", job="main", prune_options={"keep_last": 1})
    assert "-DELETE  pair/stock" in planned.stdout
    assert len(pgkeep("db12", "list", "--job", "main", "stock")["backups"]) >= kept
    assert "checksum good" in playbook("verify", "db12,client", level="checksum").stdout
    sql("db12", "DELETE FROM articles", database="stock")
    playbook("restore", "db12", job="main", database="stock", replace="stock", label="before-deployment", sessions="terminate",
             restore_options={"drop_old": True})  # fmt: skip
    assert sql("db12", "SELECT count(*) FROM articles", database="stock") == "3000"
