# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import commands
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.compression import ResolvedCompression
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    Connection,
    DumpOptions,
    RestoreOptions,
)

from tests.hostile import PASSWORDS, REFUSED_PASSWORDS

NONE = ResolvedCompression("none", 0)
NAME = "it's"
SECRET = "s3cret:with\\both"


def dump(
    options: DumpOptions | None = None, compression: ResolvedCompression = NONE, version: int = 18
) -> tuple[str, ...]:
    options = options or DumpOptions()
    target = "/repository/db.dir" if options.format == "directory" else None
    return commands.pg_dump("/bin/pg_dump", Connection(), "shop", options, compression, version, target)


def test_a_connection_string_of_defaults() -> None:
    assert commands.conninfo(Connection(), "shop") == (
        "dbname='shop' port='5432' user='postgres' sslmode='prefer' connect_timeout='10' keepalives='1'"
        " keepalives_idle='60' keepalives_interval='10' keepalives_count='6' application_name='pgkeep'"
    )


def test_a_connection_string_with_everything() -> None:
    connection = Connection(
        login_host="db.example.com", login_port=5433, login_user="backup", login_password=SECRET, service="main",
        ssl_mode="verify-full", ca_cert="/ca.crt", ssl_cert="/me.crt", ssl_key="/me.key",
        connect_timeout=timedelta(seconds=2.1),
    )  # fmt: skip
    assert commands.conninfo(connection, "shop") == (
        "dbname='shop' host='db.example.com' port='5433' user='backup' sslmode='verify-full' sslrootcert='/ca.crt'"
        " sslcert='/me.crt' sslkey='/me.key' service='main' connect_timeout='3' keepalives='1' keepalives_idle='60'"
        " keepalives_interval='10' keepalives_count='6' application_name='pgkeep'"
    )


def test_quotes_and_backslashes_are_escaped() -> None:
    assert commands.conninfo(Connection(), "it's a \\").startswith(r"dbname='it\'s a \\'")


def test_the_socket_directory_goes_before_the_host() -> None:
    both = Connection(login_host="db.example.com", login_unix_socket="/run/other")
    assert "host='/run/other'" in commands.conninfo(both)


def test_options_left_at_their_defaults_are_the_services() -> None:
    text = commands.conninfo(Connection(service="main", login_port=5433))
    assert text.startswith("port='5433' service='main' keepalives=")
    assert commands.conninfo(Connection(service="main"), "shop").startswith("dbname='shop' service='main' keepalives=")


def test_a_connection_may_never_take_less_than_libpq_can_count() -> None:
    assert "connect_timeout='2'" in commands.conninfo(Connection(connect_timeout=timedelta(milliseconds=1)))


def test_the_environment_has_what_is_named_and_nothing_else() -> None:
    connection = Connection(service_file="/etc/services", passfile="/etc/passfile")
    assert commands.environment(connection, None, "/home/me", "/bin") == {
        "PATH": "/bin", "HOME": "/home/me", "LC_ALL": "C", "LANGUAGE": "C", "TZ": "UTC",
        "PGPASSFILE": "/etc/passfile", "PGSERVICEFILE": "/etc/services",
    }  # fmt: skip
    assert commands.environment(connection, "/proc/self/fd/7", "/", "/bin")["PGPASSFILE"] == "/proc/self/fd/7"
    assert not [name for name in commands.environment(Connection(), None, "/", "/bin") if name.startswith("PG")]


def test_a_password_is_in_no_command_line_and_no_environment() -> None:
    connection = Connection(login_password=SECRET)
    said = [
        commands.conninfo(connection, "shop"),
        *commands.environment(connection, "/passfile", "/", "/bin").values(),
        *commands.pg_dump("/bin/pg_dump", connection, "shop", DumpOptions(), NONE, 18),
        *commands.pg_dumpall_globals("/bin/pg_dumpall", connection, True),
        repr(connection),
    ]
    assert not [text for text in said if "s3cret" in text]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_line_of_a_password_file_reads_back_as_the_password(password: str) -> None:
    line = commands.passfile_line(password)
    assert line.startswith("*:*:*:*:")
    assert line.endswith("\n")
    escaped = line[8:-1]
    # What libpq does: a backslash takes the next character as it is, a colon ends the field.
    assert "".join(part[-1] for part in _units(escaped)) == password
    assert ":" not in _units(escaped)


def _units(escaped: str) -> list[str]:
    units: list[str] = []
    rest = escaped
    while rest:
        length = 2 if rest[0] == "\\" else 1
        units.append(rest[:length])
        rest = rest[length:]
    return units


@pytest.mark.parametrize("password", REFUSED_PASSWORDS)
def test_a_password_that_no_file_can_hold_is_refused_without_being_said(password: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        commands.passfile_line(password)
    assert not any(part in str(caught.value) for part in ("inside", "trailing", "new\nline"))


def test_a_custom_dump_goes_to_stdout() -> None:
    assert dump(compression=ResolvedCompression("zstd", 3)) == (
        "/bin/pg_dump", "--format=custom", f"--dbname={commands.conninfo(Connection(), 'shop')}", "--no-password",
        "--verbose", "--lock-wait-timeout=300000", "--compress=zstd:3",
    )  # fmt: skip


def test_a_directory_dump_goes_to_its_target_and_is_synced_by_us() -> None:
    argv = dump(DumpOptions(format="directory", jobs=4), ResolvedCompression("gzip", 6))
    assert argv[-2:] == ("--no-sync", "--file=/repository/db.dir")
    assert "--jobs=4" in argv


@pytest.mark.parametrize("archive_format", ["plain", "tar"])
def test_text_and_tar_leave_pg_dump_uncompressed(archive_format: str) -> None:
    argv = dump(DumpOptions(format=archive_format), ResolvedCompression("zstd", 3, "/bin/zstd"))
    assert not [word for word in argv if word.startswith(("--compress", "--file", "-Z"))]


@pytest.mark.parametrize(
    ("version", "compression", "flag"),
    [
        (15, ResolvedCompression("gzip", 9), "--compress=9"),
        (15, ResolvedCompression("zstd", 3, "/bin/zstd"), "--compress=0"),
        (15, NONE, "--compress=0"),
        (16, ResolvedCompression("gzip", 9), "--compress=gzip:9"),
        (16, ResolvedCompression("lz4", 1), "--compress=lz4:1"),
        (18, ResolvedCompression("zstd", 3, "/bin/zstd"), "--compress=none"),
    ],
)
def test_compression_is_said_in_the_clients_own_words(
    version: int, compression: ResolvedCompression, flag: str
) -> None:
    assert [word for word in dump(None, compression, version) if word.startswith("--compress")] == [flag]


def test_patterns_are_strict_and_never_taken_for_options() -> None:
    options = DumpOptions(
        tables=("a", "-b"), exclude_tables=("c",), schemas=("d",), exclude_schemas=("e",), exclude_table_data=("f",)
    )
    argv = dump(options)
    assert argv[argv.index("--strict-names") + 1 :] == (
        "--table=a", "--table=-b", "--exclude-table=c", "--schema=d", "--exclude-schema=e", "--exclude-table-data=f",
    )  # fmt: skip
    assert "--strict-names" not in dump()


def test_rows_are_never_silently_hidden() -> None:
    assert "--enable-row-security" not in dump(DumpOptions(tables=("a",)))


def test_the_role_to_switch_to_is_for_dumps_as_well() -> None:
    connection = Connection(session_role="pg_read_all_data")
    assert "--role=pg_read_all_data" in commands.pg_dump("/bin/pg_dump", connection, "shop", DumpOptions(), NONE, 18)
    assert "--role=pg_read_all_data" in commands.pg_dumpall_globals("/bin/pg_dumpall", connection, True)


def test_a_lock_is_waited_for_as_long_as_asked_and_never_for_ever() -> None:
    assert "--lock-wait-timeout=1500" in dump(DumpOptions(lock_wait_timeout=timedelta(seconds=1.5)))
    assert "--lock-wait-timeout=1" in dump(DumpOptions(lock_wait_timeout=timedelta(0)))


def test_jobs_need_the_directory_format() -> None:
    with pytest.raises(ConfigurationError, match="jobs is 2 and format is custom: only format directory"):
        dump(DumpOptions(jobs=2))


def test_globals_name_the_database_where_pg_dumpall_looks_for_it() -> None:
    connection = Connection(login_db="it's=a")
    assert commands.pg_dumpall_globals("/bin/pg_dumpall", connection, False) == (
        "/bin/pg_dumpall", "--globals-only", f"--dbname={commands.conninfo(connection)}",
        r"--database=dbname='it\'s=a'", "--no-password", "--no-role-passwords",
    )  # fmt: skip
    assert "--no-role-passwords" not in commands.pg_dumpall_globals("/bin/pg_dumpall", connection, True)


def test_an_archive_is_read_from_a_path_or_from_stdin() -> None:
    assert commands.pg_restore_read("/bin/pg_restore", "/x.dump") == ("/bin/pg_restore", "--file=/dev/null", "/x.dump")
    assert commands.pg_restore_read("/bin/pg_restore") == ("/bin/pg_restore", "--file=/dev/null")
    assert commands.pg_restore_list("/bin/pg_restore", "/x.dump") == ("/bin/pg_restore", "--list", "/x.dump")
    assert commands.pg_restore_list("/bin/pg_restore") == ("/bin/pg_restore", "--list")


def load(
    options: RestoreOptions | None = None, jobs: int = 1, path: str | None = "/x.dump", **more: Any
) -> tuple[str, ...]:
    connection = Connection(session_role=more.pop("session_role", None))
    return commands.pg_restore_into(
        "/bin/pg_restore", connection, NAME, options or RestoreOptions(), jobs, path, **more
    )


def test_a_restore_goes_into_one_database_and_stops_at_the_first_error() -> None:
    assert load() == (
        "/bin/pg_restore", f"--dbname={commands.conninfo(Connection(), NAME)}", "--no-password",
        "--exit-on-error", "--verbose", "/x.dump",
    )  # fmt: skip
    assert load(path=None) == load()[:-1]


def test_a_restore_says_what_of_the_archive_and_how() -> None:
    options = RestoreOptions(
        tables=("a", "-b"), schemas=("c", "d e"), no_owner=True, no_privileges=True, no_tablespaces=True
    )
    argv = load(options, 4, use_list="/list", session_role="app")
    assert argv[argv.index("--verbose") + 1 :] == (
        "--role=app", "--jobs=4", "--no-owner", "--no-privileges", "--no-tablespaces", "--strict-names", "--table=a",
        "--table=-b", "--schema=c", "--schema=d e", "--use-list=/list", "/x.dump",
    )  # fmt: skip


def test_a_restore_in_one_transaction_is_asked_for() -> None:
    assert "--single-transaction" in load(one_transaction=True)
    assert "--single-transaction" not in load(jobs=2)


def test_a_script_goes_through_psql_which_stops_at_the_first_error() -> None:
    assert commands.psql_into("/bin/psql", Connection(), "shop") == (
        "/bin/psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1",
        f"--dbname={commands.conninfo(Connection(), 'shop')}", "--output=/dev/null", "--file=-",
    )  # fmt: skip


def test_a_script_runs_as_the_role_that_is_asked_for_in_the_same_transaction() -> None:
    argv = commands.psql_into("/bin/psql", Connection(session_role='a"b; --'), "shop", one_transaction=True)
    assert argv[-4:] == ("--single-transaction", "--output=/dev/null", '--command=SET ROLE "a""b; --"', "--file=-")


def test_no_command_of_a_restore_has_a_password() -> None:
    connection = Connection(login_password=SECRET)
    said = [
        *commands.pg_restore_into("/bin/pg_restore", connection, "shop", RestoreOptions(), 1),
        *commands.psql_into("/bin/psql", connection, "shop"),
    ]
    assert not [text for text in said if "s3cret" in text]


@pytest.mark.parametrize(
    ("method", "compress", "decompress"),
    [
        ("gzip", ("/p", "-n", "-2", "-c"), ("/p", "-d", "-c")),
        ("lz4", ("/p", "-q", "-2", "-c"), ("/p", "-q", "-d", "-c")),
        ("zstd", ("/p", "-q", "-2", "-c"), ("/p", "-q", "-d", "-c")),
    ],
)
def test_compressors_work_from_stdin_to_stdout(
    method: str, compress: tuple[str, ...], decompress: tuple[str, ...]
) -> None:
    assert commands.compressor(ResolvedCompression(method, 2, "/p")) == compress
    assert commands.decompressor(method, "/p") == decompress
