# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host itself: what the tests of pgkeep rely on."""


def test_the_host_is_a_whole_system_with_a_running_server(host_named, sql):
    host = host_named("one")
    assert host.check_output("ps -o comm= -p 1") == "systemd"
    assert host.service("ssh").is_running
    assert host.service("postgresql@15-main").is_running
    assert sql("one", "SELECT count(*) FROM orders", database="shop") == "5000"
