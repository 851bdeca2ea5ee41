# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import quantities
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from hypothesis import given, settings
from hypothesis import strategies as st

# --- durations ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0s", 0), ("90s", 90), ("20h", 72000), ("1d12h", 129600), ("2w", 1209600), ("5m", 300),
        ("250ms", 0.25),
        ("1.5h", 5400), ("1m30s", 90), ("1h1h", 7200),
    ],
)  # fmt: skip
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert quantities.parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 s", "5S", "s", "1,5h", "1.h", "5s\n", "\u0665s", "1h 30m", "5y"])
def test_what_is_not_a_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(repr(text))} is not a duration: write for example 90s"):
        quantities.parse_duration(text)


@pytest.mark.parametrize("text", ["999999999999d", "9" * 400 + "w"])
def test_a_duration_beyond_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="too long a duration"):
        quantities.parse_duration(text)


# --- sizes ---


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("500", 500), ("500B", 500), ("500MB", 500 * 10**6), ("500 MB", 500 * 10**6), ("1.5GB", 15 * 10**8),
        ("2GiB", 2 * 2**30), ("2Gi", 2 * 2**30), ("1k", 1000), ("1K", 1000), ("1KiB", 1024), ("1kiB", 1024),
        ("3TB", 3 * 10**12),
        ("0.3kB", 300), ("1.9B", 1), ("9007199254740993", 9007199254740993), ("8.1TB", 8_100_000_000_000),
    ],
)  # fmt: skip
def test_a_size_is_read(text: str, size: int) -> None:
    assert quantities.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MB", "-1MB", "1PB", "1,5GB", "1mb", "1 M B", "1.MB", "1MB\n", "\u0665MB", "1iB", "10%"]
)
def test_what_is_not_a_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(repr(text))} is not a size: write for example 500MB"):
        quantities.parse_size(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 5000 + "TB", "9223372036854775808", "10000000TiB", "0." + "1" * 50])
def test_a_size_beyond_every_file_system_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="too large a size"):
        quantities.parse_size(text)


# --- times ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-05", "2025-11-05T00:00:00Z"),
        ("2025-11-05 14:30", "2025-11-05T14:30:00Z"),
        ("2025-11-05T14:30:00", "2025-11-05T14:30:00Z"),
        ("2025-11-05T14:30:00Z", "2025-11-05T14:30:00Z"),
        ("2025-11-05T14:30:00+01:00", "2025-11-05T13:30:00Z"),
        ("2025-11-05T14:30:00-0330", "2025-11-05T18:00:00Z"),
        ("2025-11-05T14:30Z", "2025-11-05T14:30:00Z"),
        ("2025-11-05T14:30:00.5Z", "2025-11-05T14:30:00.500000Z"),
        ("2025-11-05T14:30:00.123456789+00:00", "2025-11-05T14:30:00.123456Z"),
        ("2024-02-29", "2024-02-29T00:00:00Z"),
    ],
)
def test_a_time_is_read_as_utc_and_written_with_a_z(text: str, expected: str) -> None:
    assert quantities.iso(quantities.parse_time(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "now", "2025-11-5", "05.11.2025", "2025-11-05T14", "2025-11-05z", "2025-11-05\n", "20251105"]
)
def test_what_is_not_a_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"^{re.escape(repr(text))} is not a time: write for example 2025-11-05"
    ):
        quantities.parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "2025-02-29",
        "2025-13-01",
        "0000-01-01",
        "2025-11-05T24:30",
        "2025-11-05T14:30+99:99",
        "0001-01-01T00:00+01:00",
        "9999-12-31T23:59-01:00",
    ],
)
def test_a_time_that_never_was_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a time that exists"):
        quantities.parse_time(text)


# Not from the very first and last day of the calendar, which no other time zone can show.
_times = st.datetimes(timezones=st.timezones()).filter(lambda moment: 1 < moment.year < 9999)


@settings(deadline=None)
@given(_times)
def test_a_time_survives_being_written_and_read(moment: datetime) -> None:
    again = quantities.parse_time(quantities.iso(moment))
    # In UTC, because a time that a clock shows twice is never equal to one of another zone.
    assert again == moment.astimezone(timezone.utc)
    assert again.tzinfo is timezone.utc


def test_a_time_zone_is_found_by_its_name() -> None:
    assert quantities.time_zone("Europe/Berlin") == ZoneInfo("Europe/Berlin")


def test_utc_needs_no_time_zone_data() -> None:
    assert quantities.time_zone("UTC") is timezone.utc


@pytest.mark.parametrize(
    "name", ["", "Mars/Phobos", "Europe", "../UTC", "/etc/localtime", "tzdata.zi", "\0", "\udcff", "x" * 5000]
)
def test_an_unknown_time_zone_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match="which this host does not know: write for example UTC or Europe/Berlin"
    ):
        quantities.time_zone(name)


# --- for people ---


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1, "1 B"), (999, "999 B"), (999.7, "1.0 kB"), (1000, "1.0 kB"), (183_400_000, "183.4 MB"),
        (999_949, "999.9 kB"), (999_950, "1.0 MB"), (999_999_999, "1.0 GB"), (10**12, "1.0 TB"),
        (25 * 10**15, "25000.0 TB"),
        (-1500, "-1.5 kB"), (-3, "-3 B"), (-999_999, "-1.0 MB"),
    ],
)  # fmt: skip
def test_a_size_is_shown(size: float, text: str) -> None:
    assert quantities.human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"), (0.44, "0.4s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m"), (60, "1m"),
        (312, "5m 12s"),
        (3600, "1h"), (3601, "1h 1s"), (3599.9, "1h"), (273_600, "3d 4h"), (277_199, "3d 4h"), (86405, "1d 5s"),
        (-0.4, "-0.4s"), (-90_000, "-1d 1h"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_with_its_two_largest_units(seconds: float, text: str) -> None:
    assert quantities.human_duration(timedelta(seconds=seconds)) == text


@settings(deadline=None)
@given(st.integers(0, 10**17))
def test_a_shown_size_is_right_to_its_last_digit(size: int) -> None:
    number, unit = quantities.human_size(size).split(" ")
    power = ["B", "kB", "MB", "GB", "TB"].index(unit)
    assert abs(float(number) - size / 1000**power) <= 0.0501
    assert unit == "TB" or float(number) < 1000


@settings(deadline=None)
@given(st.timedeltas(timedelta(), timedelta(days=10000)))
def test_a_shown_duration_can_be_read_again(duration: timedelta) -> None:
    text = quantities.human_duration(duration)
    units = re.findall("[a-z]", text)
    assert len(units) <= 2
    shown = quantities.parse_duration(text.replace(" ", ""))
    assert abs(shown - duration) <= timedelta(seconds={"d": 86400, "h": 3600, "m": 60, "s": 0.5}[units[-1]])
