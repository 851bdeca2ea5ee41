# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host itself: what the tests of pgkeep rely on."""


def test_the_login_user_is_not_root_but_may_become_it(host_named):
    host = host_named("full")
    assert host.user("deploy").uid >= 1000
    assert host.check_output("runuser --user=deploy -- sudo --non-interactive id --user") == "0"


def test_the_server_has_the_databases(sql):
    assert sql("full", "SELECT count(*) FROM orders", database="shop") == "5000"
