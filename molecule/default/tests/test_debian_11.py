# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The oldest release that is supported: Debian 11 with PostgreSQL 13 and Python 3.9, and no variable set."""

HOST = "deb11"


def test_it_is_what_it_says(host_named, sql):
    assert host_named(HOST).check_output("python3 --version").startswith("Python 3.9.")
    assert sql(HOST, "SHOW server_version").startswith("13.")


def test_backups_are_taken_verified_drilled_pruned_and_restored(host_named, sql, pgkeep):
    host = host_named(HOST)
    for command in ("run main", "verify --job main", "drill --job main", "prune --job main"):
        done = host.run(f"cd / && runuser --user=postgres -- pgkeep {command} --quiet")
        assert (done.rc, done.stdout, done.stderr) == (0, "", ""), command
    (job,) = pgkeep(HOST, "status")["jobs"]
    assert {item["database"] for item in job["databases"]} == {"@globals", "postgres", "shop", "stock"}
    assert all(item["verified_level"] == "restore" and item["drilled"] for item in job["databases"])
    sql(HOST, "DELETE FROM orders", database="shop")
    host.check_output("pgkeep restore shop --job main --replace shop")
    assert sql(HOST, "SELECT count(*) FROM orders", database="shop") == "5000"
    assert "nothing that is not on the server" in host.check_output("pgkeep restore @globals --job main")
    for name in sql(HOST, "SELECT datname FROM pg_database WHERE datname LIKE 'shop_%'").splitlines():
        sql(HOST, f'DROP DATABASE "{name}"')
