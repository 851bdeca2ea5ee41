# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import naming
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import RepositoryError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    FORMATS,
    INSTANCE_PATTERN,
)
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

CREATED = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)

# What PostgreSQL allows: 1 to 63 bytes, no NUL, in whatever encoding.
names = st.binary(min_size=1, max_size=63).map(lambda data: data.decode("utf-8", "surrogateescape"))
times = st.datetimes(timezones=st.just(timezone.utc)).map(lambda moment: moment.replace(microsecond=0))


# --- encode and decode ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("shop", "shop"),
        ("Shop_2.old-1", "Shop_2.old-1"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("-v", "%2Dv"),
        ("a/b", "a%2Fb"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("a b", "a%20b"),
        ("line\nbreak", "line%0Abreak"),
        ("@globals", "%40globals"),
        ("%40globals", "%2540globals"),
        ("a=b", "a%3Db"),
        ("$(reboot);'\"`~*?", "%24%28reboot%29%3B%27%22%60%7E%2A%3F"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("\udcff", "%FF"),  # a name in a database cluster that is not UTF-8
        ("ä" * 31 + "x", "%C3%A4" * 31 + "x"),
    ],
)
def test_a_name_is_encoded_and_decoded(name: str, text: str) -> None:
    assert naming.encode(name) == text
    assert naming.decode(text) == name


@settings(deadline=None)
@given(names)
@example("é")
def test_every_name_survives_the_way_there_and_back(name: str) -> None:
    assert naming.decode(naming.encode(name)) == name


@settings(deadline=None)
@given(names)
def test_a_name_becomes_a_harmless_path_component(name: str) -> None:
    text = naming.encode(name)
    assert text.isascii()
    assert text not in {"", ".", ".."}
    assert text[0] not in ".-@"
    assert not set(text) & set("/@\0\n\\ ")
    assert len(text) <= 189
    assert text != naming.GLOBALS_DIRECTORY
    assert len(naming.INPROGRESS_PREFIX + naming.stem("database", name, CREATED) + ".dump.zst.age") <= 255


@settings(deadline=None)
@given(names, names)
def test_different_names_never_meet(one: str, other: str) -> None:
    assume(one != other)
    assert naming.encode(one) != naming.encode(other)


@settings(deadline=None)
@given(
    st.one_of(
        st.text(), st.text("%0123456789ABCDEFabcdef.-@_xyz"), st.from_regex(r"(%[0-9A-F]{2}|[a-z.-])+", fullmatch=True)
    )
)
def test_decoding_refuses_whatever_encoding_would_not_write(text: str) -> None:
    try:
        name = naming.decode(text)
    except RepositoryError:
        return
    assert naming.encode(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        ".x",
        "-x",
        "@globals",
        "a b",
        "a/b",
        "%",
        "%4",
        "%zz",
        "%2f",
        "%41",
        "a%2E",
        "a%5Fb",
        "x" * 190,
        "a\n",
        "é",
    ],
)
def test_text_that_is_not_an_encoded_name_cannot_be_decoded(text: str) -> None:
    with pytest.raises(RepositoryError, match="is not the name of a folder that pgkeep makes"):
        naming.decode(text)


@pytest.mark.parametrize("name", ["", "\ud800", "\udcc3\udca9"])
def test_a_name_that_is_none_or_would_meet_another_cannot_be_encoded(name: str) -> None:
    with pytest.raises(RepositoryError, match="cannot be stored: rename it"):
        naming.encode(name)


def test_a_name_that_does_not_fit_into_a_file_name_cannot_be_encoded() -> None:
    assert naming.encode("x" * 189)
    for name in ("x" * 190, "ä" * 32):
        with pytest.raises(RepositoryError, match="too long a name"):
            naming.encode(name)


def test_the_globals_have_a_folder_that_no_database_can_have() -> None:
    assert naming.directory("globals", None) == "@globals"
    assert naming.directory("database", "@globals") == "%40globals"
    assert naming.directory("database", "globals") == "globals"
    with pytest.raises(RepositoryError):
        naming.directory("database", None)


# --- stems and ids ---


def test_a_backup_is_named_after_its_database_and_its_time_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    assert naming.stem("database", "shop", CREATED) == "shop_2025-11-05_14-30-00"
    assert (
        naming.stem("database", "shop", datetime(2025, 11, 5, 15, 30, 0, 999999, berlin)) == "shop_2025-11-05_14-30-00"
    )
    assert naming.stem("database", "a/b", datetime(9, 1, 2, tzinfo=timezone.utc)) == "a%2Fb_0009-01-02_00-00-00"
    assert naming.stem("globals", None, CREATED) == "globals_2025-11-05_14-30-00"


def test_an_id_is_the_path_inside_the_repository() -> None:
    assert naming.backup_id("main", "database", "shop", CREATED) == "main/shop/shop_2025-11-05_14-30-00"
    assert naming.backup_id("main", "globals", None, CREATED) == "main/@globals/globals_2025-11-05_14-30-00"


@settings(deadline=None)
@given(names, times)
def test_a_stem_can_be_parsed(name: str, created: datetime) -> None:
    text = naming.stem("database", name, created)
    assert naming.parse_stem(text) == (naming.encode(name), created)


@settings(deadline=None)
@given(names, times, times)
def test_names_of_one_database_sort_by_time(name: str, one: datetime, other: datetime) -> None:
    stems = naming.stem("database", name, one), naming.stem("database", name, other)
    assert (stems[0] < stems[1]) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "shop",
        "shop_2025-11-05",
        "_2025-11-05_14-30-00",
        "shop_2025-11-05_14-30-00.dump",
        "shop_2025-11-05_14-30-00\n",
        "shop_2025-02-29_00-00-00",
        "shop_2025-11-05_24-00-00",
        "shop_2025-11-05_23-59-60",
        "shop_0000-01-01_00-00-00",
        "my shop_2025-11-05_14-30-00",
        "shop%2f_2025-11-05_14-30-00",
        ".inprogress-shop_2025-11-05_14-30-00",
        ".trash-shop_2025-11-05_14-30-00",
        "shop_٢٠٢٥-11-05_14-30-00",
    ],
)
def test_a_name_that_is_not_a_stem_is_none_of_ours(text: str) -> None:
    assert naming.parse_stem(text) is None


def test_a_database_whose_name_looks_like_a_stem_is_parsed_to_its_end() -> None:
    name = "shop_2024-01-01_00-00-00"
    assert naming.parse_stem(naming.stem("database", name, CREATED)) == (name, CREATED)


@settings(deadline=None)
@given(st.from_regex(INSTANCE_PATTERN.replace("$", r"\Z"), fullmatch=True))
def test_an_instance_is_its_own_folder(instance: str) -> None:
    assert naming.encode(instance) == instance


# --- suffixes ---


def test_the_suffix_tells_format_and_external_compression() -> None:
    assert [naming.suffix(item) for item in FORMATS] == [".dump", ".dir", ".sql", ".tar"]
    assert [naming.suffix("plain", item) for item in ("", "none", "gzip", "zstd", "lz4")] == [
        ".sql", ".sql", ".sql.gz", ".sql.zst", ".sql.lz4",
    ]  # fmt: skip


@settings(deadline=None)
@given(names, times, st.sampled_from(FORMATS), st.sampled_from(["", "gzip", "zstd", "lz4"]))
def test_our_own_files_are_recognised_as_dumps(name: str, created: datetime, kind: str, method: str) -> None:
    method = "" if kind == "directory" else method
    filename = naming.stem("database", name, created) + naming.suffix(kind, method)
    assert naming.parse_dump_name(filename) == (name, created.replace(tzinfo=None), kind, method)


# --- names of other tools ---


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("shop_2025-11-05_14-30-00.dump", ("shop", "2025-11-05T14:30:00", "custom", "")),
        ("shop_2025-11-05_14-30-00.pgdump", ("shop", "2025-11-05T14:30:00", "custom", "")),
        ("shop_2025-11-05_14-30-00.backup", ("shop", "2025-11-05T14:30:00", "custom", "")),
        ("shop_2025-11-05_14-30-00.tar", ("shop", "2025-11-05T14:30:00", "tar", "")),
        ("shop_2025-11-05_14-30-00.dir", ("shop", "2025-11-05T14:30:00", "directory", "")),
        ("shop_2025-11-05_14-30-00.sql.zst", ("shop", "2025-11-05T14:30:00", "plain", "zstd")),
        ("shop_2025-11-05_14-30-00.sql.lz4", ("shop", "2025-11-05T14:30:00", "plain", "lz4")),
        ("my shop_2025-11-05_14-30-00.sql.gz", ("my shop", "2025-11-05T14:30:00", "plain", "gzip")),
        ("50%_2025-11-05_14-30-00.sql", ("50%", "2025-11-05T14:30:00", "plain", "")),
        ("a%2Fb_2025-11-05_14-30-00.sql", ("a/b", "2025-11-05T14:30:00", "plain", "")),
        ("a%2fb_2025-11-05_14-30-00.sql", ("a%2fb", "2025-11-05T14:30:00", "plain", "")),
        ("a\nb_2025-11-05_14-30-00.sql", ("a\nb", "2025-11-05T14:30:00", "plain", "")),
        (
            "x_y_2024-01-01_00-00-00_2025-11-05_14-30-00.sql",
            ("x_y_2024-01-01_00-00-00", "2025-11-05T14:30:00", "plain", ""),
        ),
        # pg_back
        ("shop_2025-11-05T14:30:00+01:00.dump", ("shop", "2025-11-05T13:30:00+00:00", "custom", "")),
        ("shop_2025-11-05T14:30:00-0330.sql.gz", ("shop", "2025-11-05T18:00:00+00:00", "plain", "gzip")),
        ("shop_2025-11-05T14:30:00Z.d", ("shop", "2025-11-05T14:30:00+00:00", "directory", "")),
        ("shop_2025-11-05T14:30:00.tar", ("shop", "2025-11-05T14:30:00", "tar", "")),
        # autopostgresqlbackup: daily, weekly, monthly
        ("shop_2025-11-05_14h30m.Wednesday.sql.gz", ("shop", "2025-11-05T14:30:00", "plain", "gzip")),
        ("shop_2025-11-05_14h30m.Mittwoch.sql", ("shop", "2025-11-05T14:30:00", "plain", "")),
        ("shop_week.45.2025-11-05_14h30m.sql.gz", ("shop", "2025-11-05T14:30:00", "plain", "gzip")),
        ("a.b_2025-11-01_06h25m.November.a.b.sql.gz", ("a.b", "2025-11-01T06:25:00", "plain", "gzip")),
        ("shop_2025-11-05_14h30m.dump", ("shop", "2025-11-05T14:30:00", "custom", "")),
    ],
)
def test_a_known_tool_s_dump_is_recognised(filename: str, expected: tuple[str, str, str, str]) -> None:
    found = naming.parse_dump_name(filename)
    assert found is not None
    assert (found.database, found.created.isoformat(), found.format, found.method) == expected


@pytest.mark.parametrize(
    "filename",
    [
        "",
        "shop.dump",
        "_2025-11-05_14-30-00.dump",
        "shop_2025-11-05_14-30-00",
        "shop_2025-11-05_14-30-00.sql.xz",
        "shop_2025-11-05_14-30-00.sql.gz.gpg",
        "shop_2025-11-05_14-30-00.dump.part",
        "shop_2025-11-05_14-30-00.dump\n",
        "shop_2025-11-05_14-30-00.dir.gz",
        "shop_2025-02-30_14-30-00.dump",
        "shop_2025-11-05T14:30:00+01:00.createdb.sql",
        "shop_0001-01-01T00:00:00+01:00.dump",
        "shop_9999-12-31T23:59:00-01:00.dump",
        "dir/shop_2025-11-05_14-30-00.dump",
        "pg_settings_2025-11-05T14:30:00Z.out",
        "shop_2025-11-05_25h30m.Wednesday.sql",
        "2025-11-05_14h30m.Wednesday.sql",
    ],
)
def test_other_files_are_not_taken_for_dumps(filename: str) -> None:
    assert naming.parse_dump_name(filename) is None


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_file_name_can_be_asked_about(filename: str) -> None:
    assert naming.parse_dump_name(filename) is None or "_" in filename


# --- the next backup's time ---


@pytest.mark.parametrize(
    ("now", "newest", "expected"),
    [
        ("2025-11-05T14:30:00.987654", None, "2025-11-05T14:30:00"),
        ("2025-11-05T14:30:05", "2025-11-05T14:30:00", "2025-11-05T14:30:05"),
        ("2025-11-05T14:30:00.5", "2025-11-05T14:30:00", "2025-11-05T14:30:01"),  # two runs in one second
        ("2025-11-05T14:30:01", "2025-11-05T14:30:00", "2025-11-05T14:30:01"),
        ("2025-11-05T13:30:00", "2025-11-05T14:30:00", "2025-11-05T14:30:01"),  # the clock was set back
        ("2025-11-05T14:30:00", "2035-11-05T14:30:00", "2025-11-05T14:30:00"),  # it was ten years ahead once
    ],
)
def test_the_next_time_is_now_or_just_after_the_newest(now: str, newest: str | None, expected: str) -> None:
    def utc(text: str) -> datetime:
        return datetime.fromisoformat(text if "." not in text else text.ljust(26, "0")).replace(tzinfo=timezone.utc)

    assert naming.next_created(utc(now), [utc(newest)] if newest else []) == utc(expected)


@settings(deadline=None)
@given(times, st.lists(st.integers(-5000, 5000), min_size=2, max_size=20))
def test_names_keep_the_order_in_which_backups_were_taken_whatever_the_clock_does(
    start: datetime, steps: list[int]
) -> None:
    assume(datetime(2, 1, 1, tzinfo=timezone.utc) < start < datetime(9998, 1, 1, tzinfo=timezone.utc))
    taken: list[datetime] = []
    stems = []
    now = start
    for step in steps:
        now += timedelta(milliseconds=step)
        taken.append(naming.next_created(now, taken))
        stems.append(naming.stem("database", "shop", taken[-1]))
    assert stems == sorted(set(stems))


def test_a_local_time_becomes_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    assert (
        naming.next_created(datetime(2025, 11, 5, 15, 30, tzinfo=berlin), []).isoformat() == "2025-11-05T14:30:00+00:00"
    )
