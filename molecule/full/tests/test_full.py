# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host on which every variable has another value than its default: each of them does what it says."""

import json
import re

import pytest

HOST = "full"
PASSWORD = 'pass\\file: role\'s "secret" «1» #$'
COMMAND = "/usr/local/sbin/pgkeep"
PLACE = ("--config-dir", "/etc/keeper")
UNITS = "/etc/systemd/system"
SCRATCH = {
    "login_user": "keeper", "instance": "full", "compression": "lz4", "work_dir": "/srv/work", "wait": "5m",
}  # fmt: skip


@pytest.fixture
def host(host_named):
    return host_named(HOST)


@pytest.fixture
def status(pgkeep):
    """Return a function that returns what the command says of the host's only job."""
    return lambda: pgkeep(HOST, "status", *PLACE, path=COMMAND)["jobs"][0]


def lines(host, path):
    return host.file(path).content_string.splitlines()


def calendar(host, action):
    (found,) = [line for line in lines(host, f"{UNITS}/pgkeep-shop-{action}.timer") if line.startswith("OnCalendar=")]
    return found.removeprefix("OnCalendar=")


def packages(host):
    """Return the names of the packages that are installed."""
    shown = host.check_output("dpkg-query --show --showformat='${db:Status-Abbrev}|${Package}\n'")
    return {line.partition("|")[2] for line in shown.splitlines() if line.startswith("ii")}


def connect(host, user, password, database="stock", file=None):
    """Return what became of a connection over TCP, as the user of the jobs, with a password or a password file."""
    secret = f"PGPASSFILE={file}" if file else f"PGPASSWORD={password}"
    words = [
        "env",
        secret,
        "psql",
        "-XAtqw",
        "-h",
        "localhost",
        "-U",
        user,
        "-d",
        database,
        "-c",
        "SELECT current_user",
    ]
    return host.run("cd / && runuser --user=keeper -- " + " ".join(["%s"] * len(words)), *words)


# --- pgkeep_client ---


def test_the_repository_of_packages_is_used_and_its_signature_counts(host):
    known = host.check_output("apt-cache policy pgkeep-only-here")
    assert "Candidate: 1.0" in known
    assert "file:/srv/pgdg bookworm-pgdg/main" in known
    assert "Signed-By: /srv/pgdg/key.asc" in lines(host, "/etc/apt/sources.list.d/pgkeep-pgdg.sources")
    assert "pgkeep-only-here" not in packages(host)


def test_the_tools_are_those_that_were_asked_for(host):
    there = packages(host)
    assert {"age", "rsync", "openssh-client", "rclone", "lz4", "postgresql-client-15", "python3-psycopg2"} <= there
    assert not {"bubblewrap", "zstd"} & there


# --- pgkeep_command ---


def test_the_user_owns_what_is_its_own_and_no_more(host):
    user = host.user("keeper")
    assert (user.group, user.home, user.shell) == ("keepers", "/srv/keeper", "/usr/sbin/nologin")
    assert user.uid < 1000
    modes = {
        "/srv/backups/postgresql": ("keeper", "keepers", 0o700),
        "/srv/keeper": ("keeper", "keepers", host.file("/srv/keeper").mode),
        "/var/log/keeper": ("keeper", "keepers", 0o750),
        "/etc/keeper": ("root", "keepers", 0o750),
        "/etc/keeper/defaults.json": ("root", "keepers", 0o640),
        "/etc/keeper/jobs.d/shop.json": ("root", "keepers", 0o640),
        "/etc/keeper/targets.d/shelf.json": ("root", "keepers", 0o640),
        "/etc/keeper/pgpass": ("keeper", "keepers", 0o600),
        "/etc/keeper/keys/vault": ("root", "root", 0o644),
        COMMAND: ("root", "root", 0o755),
    }
    found = {path: host.file(path) for path in modes}
    assert {path: (file.user, file.group, file.mode) for path, file in found.items()} == modes
    for path in ("/etc/pgkeep", "/var/log/pgkeep", "/var/lib/pgkeep", "/var/backups/pgkeep", "/usr/local/bin/pgkeep"):
        assert not host.file(path).exists, path


def test_the_command_and_its_configuration_say_what_the_variables_say(host):
    assert host.check_output("head -n 1 %s", COMMAND).startswith("#!/usr/bin/python3.11 ")
    defaults = json.loads(host.file("/etc/keeper/defaults.json").content_string)
    expected = {"repository": "/srv/backups/postgresql", "log_dir": "/var/log/keeper", "sandbox": False, **SCRATCH}
    assert {name: defaults.get(name) for name in expected} == expected
    job = json.loads(host.file("/etc/keeper/jobs.d/shop.json").content_string)
    assert (job["databases"], job["backup_schedule"]) == (["stock"], "* * * * *")
    assert re.fullmatch(r"\d+ \d+ \* \* 0", job["drill_schedule"])
    assert job["targets"] == ["shelf"]
    target = json.loads(host.file("/etc/keeper/targets.d/shelf.json").content_string)
    assert (target["type"], target["path"], target["keep_last"]) == ("directory", "/srv/keeper/shelf", 100)
    checked = host.run("%s check-config --config-dir /etc/keeper", COMMAND)
    assert (checked.rc, checked.stdout) == (0, "/etc/keeper: no problems\n")


def test_the_role_in_the_database_has_the_rights_that_it_needs_and_none_besides(sql):
    flags = "rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication, rolcanlogin"
    assert sql(HOST, f"SELECT {flags} FROM pg_roles WHERE rolname = 'keeper'") == "f|f|f|f|f|t"
    groups = "SELECT roleid::regrole FROM pg_auth_members WHERE member = 'keeper'::regrole ORDER BY 1::text"
    assert sql(HOST, groups).split() == ["pg_read_all_data", "pg_read_all_stats"]
    granted = (
        "SELECT proname || ' ' || privilege_type FROM pg_proc, aclexplode(proacl)"
        " WHERE grantee = 'keeper'::regrole ORDER BY 1"
    )
    assert sql(HOST, granted).splitlines() == ["pg_wal_replay_pause EXECUTE", "pg_wal_replay_resume EXECUTE"]
    assert sql(HOST, "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'keeper'") == "t"


def test_a_dry_run_does_not_stumble_over_a_role_that_is_not_there_yet(playbook, sql):
    role = {"name": "another", "pause_replay": True}
    done = playbook("site", HOST, "--check", pgkeep_command_database_roles=[role])
    assert re.search(r"changed=[1-9]", done.stdout)
    assert sql(HOST, "SELECT count(*) FROM pg_roles WHERE rolname = 'another'") == "0"


def test_its_password_works_and_another_does_not(host):
    assert connect(host, "keeper", PASSWORD).stdout == "keeper\n"
    wrong = connect(host, "keeper", PASSWORD[:-1])
    assert "password authentication failed" in wrong.stderr


def test_libpq_finds_the_password_in_the_file_that_was_written_and_for_that_database_alone(host):
    assert connect(host, "keeper", None, file="/etc/keeper/pgpass").stdout == "keeper\n"
    assert "no password supplied" in connect(host, "keeper", None, "shop", file="/etc/keeper/pgpass").stderr


# --- pgkeep_schedule ---


def test_each_action_has_a_timer_of_its_own_at_the_time_that_was_asked_for(host, status):
    assert calendar(host, "backup") == "*-*-* *:*:00"
    # Words begin up to two hours later.
    for action in ("prune", "sync"):
        assert re.fullmatch(r"\*-\*-\* (00\.\.18|01\.\.19)/6:\d\d:00", calendar(host, action))
    assert re.fullmatch(r"\*-\*-\* 0[23]:\d\d:00", calendar(host, "verify"))
    assert re.fullmatch(r"Sun \*-\*-\* 0[34]:\d\d:00", calendar(host, "drill"))
    actions = {"backup", "prune", "verify", "drill", "sync"}
    for action in actions:
        timer = host.service(f"pgkeep-shop-{action}.timer")
        assert timer.is_enabled
        assert timer.is_running
    assert {item["action"] for item in status()["schedules"] if item["next"]} == actions
    assert not host.file("/etc/cron.d/pgkeep").exists


def test_the_services_say_what_the_variables_say(host):
    for action, command in (("backup", "run shop"), ("prune", "prune --job shop"), ("drill", "drill --job shop")):
        unit = lines(host, f"{UNITS}/pgkeep-shop-{action}.service")
        assert f"ExecStart={COMMAND} {command} --quiet --config-dir /etc/keeper" in unit
        assert {"User=keeper", "Environment=PATH=/usr/bin:/bin"} <= set(unit)
        assert not [line for line in unit if re.match("Protect|Private|Restrict|SystemCall|ReadWrite|NoNew", line)]


def test_the_timer_takes_backups_by_itself_over_the_socket_and_prunes_none(host, status, until):
    before = max((run["started"] for run in status()["runs"]), default="")

    def later():
        return [run for run in status()["runs"] if run["command"] == "run" and run["started"] > before]

    assert until(later, "the timer has started a run")[0]["exit_code"] == 0
    file = host.file("/var/log/keeper/pgkeep.log")
    assert (file.user, file.group, file.mode) == ("keeper", "keepers", 0o640)
    log = file.content_string
    assert re.search(r"shop run: stock: done, .* in .*, /srv/backups/postgresql/full/stock/stock_20", log)
    assert "shop run: deleted" not in log
    assert host.check_output("find /srv/backups ! -user keeper") == ""
    assert "Finished pgkeep-shop-backup.service" in host.check_output(
        "journalctl --no-pager -u pgkeep-shop-backup.service"
    )


def test_prune_verify_drill_and_sync_work_as_systemd_starts_them(host, status):
    for action in ("prune", "verify", "drill", "sync"):
        host.check_output("systemctl start %s", f"pgkeep-shop-{action}.service")
    (stock,) = [item for item in status()["databases"] if item["database"] == "stock"]
    assert (stock["verified_level"], bool(stock["drilled"])) == ("restore", True)
    assert "shop prune: deleted 0 backups" in host.file("/var/log/keeper/pgkeep.log").content_string
    assert stock["copies"][0]["newest"]
    assert host.check_output("ls -A /srv/work") == ""


def test_the_mail_address_counts_where_cron_does_it(host, playbook):
    playbook("site", HOST, pgkeep_schedule_method="cron")
    text = host.file("/etc/cron.d/pgkeep").content_string
    playbook("site", HOST)
    assert '\nMAILTO=""\n' in text
    assert "\nPATH=/usr/bin:/bin\n" in text
    assert "\n* * * * * keeper /usr/local/sbin/pgkeep run shop --quiet --config-dir /etc/keeper\n" in text
    assert not host.file("/etc/cron.d/pgkeep").exists


# --- pgkeep_logrotate ---


def test_logs_are_rotated_as_the_variables_say(host):
    log, history = host.file("/etc/logrotate.d/pgkeep").content_string.split("}\n", 1)
    assert "/var/log/keeper/pgkeep.log {" in log
    assert "/var/log/keeper/history.jsonl {" in history
    for part, how in ((log, "daily"), (history, "size 1M")):
        assert {how, "rotate 3", "su keeper keepers"} <= {line.strip() for line in part.splitlines()}
    host.check_output("logrotate --force /etc/logrotate.d/pgkeep")
    assert host.file("/var/log/keeper/pgkeep.log.1").user == "keeper"
    for number in range(5):
        host.check_output("runuser --user=keeper -- sh -c %s", f"echo {number} >> /var/log/keeper/pgkeep.log")
        host.check_output("logrotate --force /etc/logrotate.d/pgkeep")
    assert len(host.check_output("ls /var/log/keeper").split("pgkeep.log.")) - 1 == 3


# --- the sandbox of systemd ---


def test_every_service_works_in_the_sandbox_of_systemd_which_is_tight(host, playbook, status):
    had = "bubblewrap" in packages(host)
    sandboxed = {"pgkeep_schedule_sandbox": True, "pgkeep_client_drills": True, "pgkeep_defaults": SCRATCH}
    try:
        playbook("site", HOST, **sandboxed)
        begin = host.check_output("date --utc +%FT%T.%6NZ")
        host.check_output("rm -r /srv/keeper/shelf")  # which is made anew
        for action, limit in (("backup", 3.0), ("prune", 3.0), ("verify", 6.0), ("drill", 6.0), ("sync", 3.0)):
            unit = f"pgkeep-shop-{action}.service"
            exposure = host.check_output("systemd-analyze security --no-pager %s | tail -n 1", unit)
            assert float(re.search(r": ([0-9.]+)", exposure)[1]) < limit, exposure
            host.check_output("systemctl start %s", unit)
        good = {run["command"] for run in status()["runs"] if run["started"] > begin and run["exit_code"] == 0}
        assert good == {"run", "prune", "verify", "drill", "sync"}
        assert "shelf" not in host.file(f"{UNITS}/pgkeep-shop-backup.service").content_string
        (stock,) = [item for item in status()["databases"] if item["database"] == "stock"]
        assert stock["verified_level"] == "restore"
    finally:
        if not had:
            host.check_output("apt-get remove --quiet --yes bubblewrap")
        playbook("site", HOST)


# --- all of it away ---


def test_it_goes_away_with_the_repository_of_packages_and_leaves_packages_and_backups(host, playbook, pgkeep):
    kept, there = host.check_output("find /srv/backups -name manifest.json | sort"), packages(host)
    assert kept
    planned = playbook("site", HOST, "--check", "--diff", pgkeep_state="absent")
    assert re.search(r"changed=[1-9]", planned.stdout)
    files = [COMMAND, "/etc/keeper", "/etc/logrotate.d/pgkeep", "/etc/apt/sources.list.d/pgkeep-pgdg.sources"]
    assert all(host.file(path).exists for path in files)
    playbook("site", HOST, pgkeep_state="absent")
    assert [path for path in files if host.file(path).exists] == []
    assert host.run("ls -d /etc/systemd/system/pgkeep-* /etc/systemd/system/*/pgkeep-*").stdout == ""
    assert "pgkeep-" not in host.check_output("systemctl list-timers --all --no-pager")
    assert " changed=0 " in playbook("site", HOST, pgkeep_state="absent").stdout
    assert packages(host) == there
    assert set(kept.splitlines()) <= set(host.check_output("find /srv/backups -name manifest.json").splitlines())
    assert host.file("/var/log/keeper/history.jsonl").exists
    assert host.user("keeper").exists
    playbook("site", HOST)
    assert len(pgkeep(HOST, "list", *PLACE, path=COMMAND)["backups"]) >= len(kept.splitlines())
