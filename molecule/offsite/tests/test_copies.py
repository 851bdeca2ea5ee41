# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies on other hosts: they arrive, they restore where nothing else is left, and who has root on a site can neither read
nor harm them.
"""

import json
import time

import pytest

SITES = ("site1", "site2")
HOME = "/var/backups/pgkeep"
ROWS = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM %s t"
TABLES = (("shop", "orders"), ("shop", "customers"), ("stock", "articles"))
KEY = "/etc/pgkeep/offsite/id_ed25519"
SSH = f"ssh -i {KEY} -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile=/etc/pgkeep/offsite/known_hosts"
RCLONE = "rclone --config /etc/pgkeep/offsite/rclone.conf --low-level-retries 1 --retries 1"


def run(host_named, site, *arguments):
    """Run pgkeep on a site as root; return exit code and everything that it said."""
    done = host_named(site).run(" ".join(["%s"] * (len(arguments) + 1)), "/usr/local/bin/pgkeep", *arguments)
    return done.rc, done.stdout + done.stderr


def newest(pgkeep, site, database="shop"):
    return pgkeep(site, "list", "--job", "main", "--limit", "1", database)["backups"][0]


def archive(host, backup):
    """Return the name of the archive of a backup, which depends on what the host can compress with."""
    return host.check_output("ls %s | grep -v json", backup["path"])


def targets(pgkeep, site, *arguments):
    return {item["target"]: item for item in pgkeep(site, "sync", "--job", "main", *arguments)["targets"]}


def files_there(host_named):
    """Return the checksum of every file on the off-site host, by its path."""
    text = host_named("vault").check_output("cd /srv/pgkeep && find . -type f ! -name .lock -exec sha256sum {} +")
    return {line[66:]: line[:64] for line in text.splitlines()}


@pytest.fixture(scope="module", autouse=True)
def rows(host_named, sql):
    """The contents of all tables of the sites, which differ, after a run of each site's job."""
    for number, site in enumerate(SITES):
        sql(site, f"UPDATE orders SET amount = amount + {number}", database="shop")
        assert run(host_named, site, "run", "main")[0] == 0
    return {site: {table: sql(site, ROWS % table, database=database) for database, table in TABLES} for site in SITES}


# --- they are there ---


@pytest.mark.parametrize("site", SITES)
def test_a_run_leaves_checked_copies_in_both_places(host_named, pgkeep, site):
    for database in ("shop", "stock", "@globals"):
        copies = {item["target"]: item["method"] for item in newest(pgkeep, site, database)["copies"]}
        assert copies.keys() == {"vault", "store"}
        assert copies["vault"] == "sha256"
    for target in ("vault", "store"):
        compared = pgkeep(site, "list", "--job", "main", "--target", target)["backups"]
        assert {row["verdict"] for row in compared} <= {"same", "extra"}
    (job,) = pgkeep(site, "status")["jobs"]
    assert {copy["newest"] for item in job["databases"] for copy in item["copies"]} == {
        item["newest"] for item in job["databases"]
    }


def test_databases_of_equal_names_do_not_meet(host_named, rows):
    assert rows["site1"]["orders"] != rows["site2"]["orders"]
    host = host_named("vault")
    for site in SITES:
        hosts = host.check_output("cat /srv/pgkeep/%s/main/shop/*/manifest.json | grep '\"host\"' | sort -u", site)
        assert hosts.count("\n") == 0
        assert f'"{site}"' in hosts
        listed = host_named(site).check_output(f"{RCLONE} lsf -R --files-only store:locked/{site}")
        assert "main/shop/" in listed


def test_the_off_site_host_verifies_and_prunes_what_it_received_by_itself(host_named, pgkeep):
    jobs = {job["name"]: job for job in pgkeep("vault", "status")["jobs"]}
    assert len(jobs) == 2
    for name in jobs:
        assert run(host_named, "vault", "verify", "--job", name)[0] == 0
        code, said = run(host_named, "vault", "prune", "--job", name, "--dry-run")
        assert code == 0
        assert "keep_days 90" in said
    assert host_named("vault").file("/etc/cron.d/pgkeep").content_string.count("pgkeep prune ") == 2


# --- data comes back where nothing else is ---


@pytest.mark.parametrize(("site", "port"), [("site1", 5433), ("site2", 5432)])
@pytest.mark.parametrize("kind", ["vault", "store"])
def test_everything_at_home_is_gone_and_each_target_restores_on_a_fresh_host(host_named, sql, rows, site, port, kind):
    home, fresh = host_named(site), host_named("fresh")
    home.check_output("rm -rf %s", f"{HOME}/main")
    name = f"{kind}{site[-1]}"
    for database in ("shop", "stock"):
        sql("fresh", f"DROP DATABASE IF EXISTS {database}", port=port)
        command = f"restore {database} --job main --from {name} --login-port {port} --create-roles"
        fresh.check_output(f"runuser -u postgres -- pgkeep {command}")
    for database, table in TABLES:
        assert sql("fresh", ROWS % table, database=database, port=port) == rows[site][table]
    assert sql("fresh", "SELECT length(lo_get(4711))", database="shop", port=port) == "50000"
    assert fresh.check_output("ls /var/tmp | grep pgkeep || true") == ""
    # The site itself goes on: new backups, and nothing of what is elsewhere is touched.
    assert run(host_named, site, "run", "main")[0] == 0


# --- an attacker with root on a site ---


def test_copies_cannot_be_read(host_named, pgkeep):
    host, backup = host_named("site1"), newest(pgkeep, "site1")
    for path in (backup["id"], "", f"../site2/{backup['id']}"):
        done = host.run(f"rsync -r -e '{SSH}' pgkeep@vault:{path}/ /tmp/stolen/")
        assert done.rc != 0
        assert host.run("find /tmp/stolen -type f").stdout == ""
    for command in ("cat /srv/pgkeep/site2/main/shop/*/manifest.json", "bash -i", "pgkeep restore shop"):
        done = host.run(f"{SSH} pgkeep@vault %s", command)
        assert done.rc != 0
        assert done.stdout == ""
    assert host.run(f"sftp -b /dev/null -o IdentityFile={KEY} -o BatchMode=yes pgkeep@vault").rc != 0
    # The store gives its bytes to the key that puts them there: they are encrypted, and this host cannot decrypt them.
    stolen = f"{RCLONE} copyto --no-check-dest store:locked/site1/%s /tmp/stolen.age"
    host.check_output(stolen, f"{backup['id']}/{archive(host, backup)}")
    assert host.check_output("head -c 21 /tmp/stolen.age") == "age-encryption.org/v1"
    assert host.run("grep -rlE 'AGE-SECRET-KEY' /etc /var/lib/postgresql /root").stdout == ""
    code, said = run(host_named, "site1", "verify", "--job", "main", "--level", "archive", "shop")
    assert code != 0
    assert "identity_file" in said


def test_copies_on_the_off_site_host_cannot_be_changed_or_deleted(host_named, pgkeep):
    host, before = host_named("site1"), files_there(host_named)
    backup = newest(pgkeep, "site1")
    host.check_output("rm -rf /tmp/evil && mkdir -p %s && echo evil > %s", f"/tmp/evil/{backup['id']}",
                      f"/tmp/evil/{backup['id']}/manifest.json")  # fmt: skip
    host.check_output("echo evil > %s", f"/tmp/evil/{backup['id']}/{archive(host, backup)}")
    for options in (
        "", "--inplace", "--append", "--append-verify", "--delete", "--ignore-existing --delete", "--remove-source-files",
        "--backup --suffix=.old", "--backup-dir=/tmp", "--partial", "--link-dest=/srv", "--force", "--checksum", "-I",
    ):  # fmt: skip
        host.run(f"rsync -r {options} -e '{SSH}' /tmp/evil/main pgkeep@vault:")
        host.run(f"rsync -r {options} -e '{SSH}' /tmp/evil/main pgkeep@vault:../site2/")
    host.run(f"rsync -r --delete -e '{SSH}' /var/empty/ pgkeep@vault:main/")
    host.run(f"ln -sfn /etc/passwd /tmp/evil/link; rsync -rl -e '{SSH}' /tmp/evil/link pgkeep@vault:main/")
    host.run(f"scp -O -i {KEY} /etc/passwd pgkeep@vault:main/")
    host.run(f"scp -i {KEY} /etc/passwd pgkeep@vault:main/")
    host.run(f"{SSH} pgkeep@vault 'rm -rf main'")
    after = files_there(host_named)
    assert {path: after.get(path) for path in before} == before
    assert host_named("vault").run("find /srv/pgkeep -type l -lname '/etc/*'").stdout == ""


def test_no_version_in_the_store_can_be_deleted_and_an_older_one_restores(host_named, sql, rows, pgkeep):
    host, fresh, backup = host_named("site1"), host_named("fresh"), newest(pgkeep, "site1")
    place = f"store:locked/site1/{backup['id']}"
    assert host.run(f"{RCLONE} deletefile %s", f"{place}/manifest.json").rc != 0
    assert host.run(f"{RCLONE} purge %s", place).rc != 0
    assert host.run(f"{RCLONE} --s3-versions delete %s", place).rc != 0
    time.sleep(1)  # versions are told apart by whole seconds
    moment = host.check_output("date --utc '+%Y-%m-%d %H:%M:%S'")
    time.sleep(1)
    # What can be done is to put another version over it, and that shows.
    host.check_output("head -c %s /dev/urandom > /tmp/garbage", str(backup["size"]))
    host.check_output(f"{RCLONE} copyto /tmp/garbage %s", f"{place}/{archive(host, backup)}")
    looked = run(host_named, "site1", "list", "--job", "main", "--target", "store", "--checksum", "shop")
    assert looked[0] == 1
    restore = f"runuser -u postgres -- pgkeep restore shop --job main --backup {backup['id']} --login-port 5433 --create-roles"
    refused = fresh.run(f"{restore} --from store1 --target shop_past")
    assert refused.rc == 1
    assert "damaged" in refused.stderr
    past = json.loads(fresh.check_output("cat /etc/pgkeep/targets.d/store1.json"))
    past.pop("comment", None)
    past["flags"] = [*past.get("flags", []), f"--s3-version-at={moment}"]
    fresh.check_output("echo %s > /etc/pgkeep/targets.d/past.json", json.dumps(past))
    try:
        sql("fresh", "DROP DATABASE IF EXISTS shop_past", port=5433)
        fresh.check_output(f"{restore} --from past --target shop_past")
        assert sql("fresh", ROWS % "orders", database="shop_past", port=5433) == rows["site1"]["orders"]
    finally:
        fresh.check_output("rm /etc/pgkeep/targets.d/past.json")
        host.check_output("rm -r %s", backup["path"])  # every run would tell of it again


# --- what goes wrong ---


def test_a_target_that_is_down_stops_neither_the_backup_nor_the_other_target(host_named, pgkeep, until):
    vault = host_named("vault")
    vault.check_output("systemctl stop ssh.service ssh.socket || systemctl stop ssh.service")
    try:
        code, said = run(host_named, "site2", "run", "main")
        assert code == 4
        assert "vault: " in said
        backup = newest(pgkeep, "site2")
        assert [item["target"] for item in backup["copies"]] == ["store"]
        assert "no copy of the newest backup of shop in vault" in run(host_named, "site2", "status")[1]
    finally:
        vault.check_output("systemctl start ssh.service")
    until(lambda: targets(pgkeep, "site2")["vault"]["failures"] == [], "the target is back", seconds=30)
    assert {item["target"] for item in newest(pgkeep, "site2")["copies"]} == {"vault", "store"}


def test_a_target_that_is_full_takes_nothing_and_keeps_what_it_has(host_named, pgkeep):
    host, vault = host_named("site1"), host_named("vault")
    before = files_there(host_named)
    # An attacker can fill a directory, up to its quota, and no other's.
    host.check_output("mkdir -p /tmp/fill/main && head -c 150M /dev/zero > /tmp/fill/main/zeros")
    assert host.run(f"rsync -r -e '{SSH}' /tmp/fill/main pgkeep@vault:").rc != 0
    counted = "{ n = 4096; if ($1 > n) n = $1; if ($2 * 512 > n) n = $2 * 512; sum += n } END { print sum }"
    used = vault.check_output("find /srv/pgkeep/site1 -mindepth 1 -printf '%%s %%b\\n' | awk %s", counted)
    host.check_output("head -c %s /dev/zero > /tmp/fill/main/zeros", str(100_000_000 - int(used) - 40_000))
    assert host.run(f"rsync -r -e '{SSH}' /tmp/fill/main pgkeep@vault:").rc == 0
    try:
        code, said = run(host_named, "site1", "run", "main")
        assert code == 4
        assert "quota" in said
        assert [item["target"] for item in newest(pgkeep, "site1")["copies"]] == ["store"]
        assert run(host_named, "site2", "run", "main")[0] == 0
        after = files_there(host_named)
        assert {path: after.get(path) for path in before} == before
        assert vault.run("find /srv/pgkeep/site1 -name '.*.??????'").stdout == ""
    finally:
        vault.check_output("rm /srv/pgkeep/site1/main/zeros")
        host.check_output("rm -r /tmp/fill")
    assert targets(pgkeep, "site1")["vault"]["failures"] == []


@pytest.fixture
def other_target(host_named):
    """Return a function: given a site, a target of it and what is different, write that as the target `other`."""
    written = []

    def write(site, like, **changes):
        host = host_named(site)
        document = json.loads(host.check_output("cat %s", f"/etc/pgkeep/targets.d/{like}.json"))
        document.pop("comment", None)
        document.update(retries=0, **changes)
        host.check_output("echo %s > /etc/pgkeep/targets.d/other.json", json.dumps(document))
        written.append(host)
        return lambda *more: run(host_named, site, "sync", "--job", "main", "--targets", "other", *more)

    yield write
    for host in written:
        host.check_output("rm -f /etc/pgkeep/targets.d/other.json")


def test_wrong_credentials_are_told_and_nothing_is_tried_for_long(host_named, other_target):
    host = host_named("site1")
    host.check_output("rm -f /tmp/wrong && ssh-keygen -q -t ed25519 -N '' -f /tmp/wrong && chown postgres /tmp/wrong")
    code, said = other_target("site1", "vault", key_file="/tmp/wrong")()
    assert code == 1
    assert "/tmp/wrong" in said
    host.check_output("sed 's/writer-secret-key/guessed/' /etc/pgkeep/offsite/rclone.conf > /tmp/wrong.conf")
    host.check_output("chmod 600 /tmp/wrong.conf && chown postgres /tmp/wrong.conf")
    code, said = other_target("site1", "store", config_file="/tmp/wrong.conf")()
    assert code == 1
    assert "guessed" not in said
    assert "writer-secret-key" not in said


def test_a_host_key_that_changed_is_no_target(host_named, other_target):
    host = host_named("site1")
    host.check_output("cp /etc/ssh/ssh_host_ed25519_key.pub /tmp/k && sed 's/^/vault /' /tmp/k > /tmp/known_hosts")
    code, said = other_target("site1", "vault", known_hosts_file="/tmp/known_hosts")()
    assert code == 1
    assert "host key" in said.lower()


@pytest.mark.parametrize("like", ["vault", "store"])
def test_a_slow_target_ends_at_its_deadline_and_the_next_run_is_complete(host_named, pgkeep, sql, other_target, like):
    sql(
        "site2",
        "CREATE TABLE IF NOT EXISTS noise AS SELECT md5(i::text) FROM generate_series(1, 40000) i",
        database="shop",
    )
    assert run(host_named, "site2", "backup", "--job", "main", "shop")[0] == 0
    backup = newest(pgkeep, "site2")
    code, said = other_target("site2", like, bandwidth="50kB", deadline="3s")("shop")
    assert code in (1, 4)  # 4 where copies of before were looked at in time
    assert "deadline" in said
    compared = pgkeep("site2", "list", "--job", "main", "--target", like, "shop")["backups"]
    assert {row["id"]: row["verdict"] for row in compared}[backup["id"]] == "missing"
    done = targets(pgkeep, "site2", "--targets", like)
    assert done[like]["failures"] == []


def test_a_connection_that_is_cut_leaves_no_copy_and_the_next_run_is_complete(
    host_named, pgkeep, sql, other_target, until
):
    host, vault = host_named("site1"), host_named("vault")
    sql(
        "site1",
        "CREATE TABLE IF NOT EXISTS noise AS SELECT md5(i::text) FROM generate_series(1, 40000) i",
        database="shop",
    )
    assert run(host_named, "site1", "backup", "--job", "main", "shop")[0] == 0
    backup = newest(pgkeep, "site1")
    other_target("site1", "vault", bandwidth="100kB")
    host.check_output("systemd-run --collect --unit=cut pgkeep sync --job main --targets other shop")
    until(lambda: vault.run("pgrep -f '[r]sync --server'").rc == 0, "it is being copied")
    until(lambda: vault.run("find /srv/pgkeep/site1 -name '.*.??????' -size +0").stdout, "some of it is there")
    vault.check_output("pkill -9 -f '[r]sync --server'")
    until(lambda: host.run("systemctl is-active cut").stdout.strip() != "active", "the run has ended")
    compared = pgkeep("site1", "list", "--job", "main", "--target", "vault", "shop")["backups"]
    assert {row["id"]: row["verdict"] for row in compared}[backup["id"]] == "missing"
    assert targets(pgkeep, "site1")["vault"]["failures"] == []
    assert run(host_named, "vault", "verify", "--repository", "/srv/pgkeep/site1", "--level", "checksum")[0] == 0


def test_killed_at_any_time_nothing_counts_that_is_not_whole(host_named, pgkeep, sql, other_target, until):
    host = host_named("site2")
    for number in range(6):
        assert run(host_named, "site2", "backup", "--job", "main", "shop", "stock")[0] == 0
        host.check_output("systemd-run --collect --unit=killed -p KillMode=process pgkeep sync --job main")
        time.sleep(0.4 * (number + 1))
        host.run("systemctl kill --signal=SIGKILL killed")
        until(lambda: host.run("systemctl is-active killed").stdout.strip() != "active", "it has ended")
        assert host.run("pgrep -x 'rsync|rclone|ssh'").rc == 1
        # Every copy that is told of is one, at the off-site host and in the store.
        assert run(host_named, "vault", "verify", "--repository", "/srv/pgkeep/site2", "--level", "checksum")[0] == 0
        for target in ("vault", "store"):
            compared = pgkeep("site2", "list", "--job", "main", "--target", target)["backups"]
            verdicts = {row["id"]: row["verdict"] for row in compared}
            assert set(verdicts.values()) <= {"same", "missing", "extra"}
            told = [item["id"] for item in pgkeep("site2", "list", "--job", "main")["backups"]
                    if target in [copy["target"] for copy in item["copies"]]]  # fmt: skip
            assert {verdicts[name] for name in told} <= {"same"}
    done = targets(pgkeep, "site2")
    assert [side["failures"] for side in done.values()] == [[], []]
    compared = pgkeep("site2", "list", "--job", "main", "--target", "store", "--checksum")["backups"]
    assert {row["verdict"] for row in compared} <= {"same", "extra"}
