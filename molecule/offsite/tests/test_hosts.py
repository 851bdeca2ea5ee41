# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts themselves: what the tests of pgkeep rely on."""

import pytest


@pytest.mark.parametrize(("name", "major"), [("site1", "15"), ("site2", "17")])
def test_both_sites_have_the_same_databases(sql, name, major):
    assert sql(name, "SHOW server_version").partition(".")[0] == major
    assert sql(name, "SELECT count(*) FROM orders", database="shop") == "5000"
    assert sql(name, "SELECT count(*) FROM articles", database="stock") == "3000"


@pytest.mark.parametrize(("port", "major"), [(5432, "17"), (5433, "15")])
def test_where_copies_are_restored_a_server_of_each_major_runs(sql, port, major):
    assert sql("fresh", "SHOW server_version", port=port).partition(".")[0] == major


@pytest.mark.parametrize("name", ["site1", "vault", "fresh"])
def test_the_hosts_trust_the_object_store(host_named, name):
    shown = host_named(name).run(
        "openssl s_client -connect store:443 -verify_hostname store -verify_return_error < /dev/null"
    )
    assert "Verify return code: 0 (ok)" in shown.stdout, shown.stderr


def test_the_object_store_has_its_buckets(host_named):
    host = host_named("store")
    assert host.check_output("systemctl is-active object-store") == "active"
    shown = host.check_output("radosgw-admin --conf /var/lib/object-store/ceph.conf bucket list")
    assert all(f'"{name}"' in shown for name in ("plain", "versioned", "locked"))
