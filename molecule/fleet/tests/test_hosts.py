# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts themselves: what the tests of pgkeep rely on."""

import time

import pytest

CLUSTERS = [("db12", 5432, "15"), ("db13", 5432, "17"), ("db13", 5433, "15"), ("standby", 5432, "15")]


@pytest.mark.parametrize(("name", "port", "major"), CLUSTERS)
def test_each_server_has_its_version_and_the_databases(sql, name, port, major):
    assert sql(name, "SHOW server_version", port=port).partition(".")[0] == major
    assert sql(name, "SELECT count(*) FROM orders", port=port, database="shop") == "5000"
    assert sql(name, "SELECT count(*) FROM pg_largeobject_metadata", port=port, database="shop") == "1"
    assert sql(name, "SELECT count(*) FROM articles", port=port, database="stock") == "3000"


def test_each_cluster_has_its_own_identity_but_for_the_standby(sql):
    identifiers = {
        (name, port): sql(name, "SELECT system_identifier FROM pg_control_system()", port=port)
        for name, port, _major in CLUSTERS
    }
    assert identifiers["standby", 5432] == identifiers["db12", 5432]
    assert len(set(identifiers.values())) == 3


def test_the_standby_replays_what_the_primary_does(sql):
    assert sql("standby", "SELECT pg_is_in_recovery(), current_setting('cluster_name')") == "t|standby"
    written = sql("db12", "SELECT pg_switch_wal()")
    deadline = time.monotonic() + 30
    while sql("standby", f"SELECT pg_last_wal_replay_lsn() >= '{written}'") != "t":
        assert time.monotonic() < deadline, f"the standby did not reach {written} within 30 seconds"
        time.sleep(0.2)


@pytest.mark.parametrize("port", [5432, 5433])
def test_the_client_reaches_the_servers_of_the_other_host(host_named, port):
    reached = host_named("client").run("timeout 5 bash -c %s", f"exec 3<> /dev/tcp/db13/{port}")
    assert reached.rc == 0, reached.stderr
