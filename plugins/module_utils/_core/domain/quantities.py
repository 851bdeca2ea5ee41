# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""Durations, sizes and times: from what people write to values, and back to what people read."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import ConfigurationError

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$|^0$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?([kKMGT]i?)?B?$"
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PREFIXES = "kMGT"
_MAX_SIZE = 2**63 - 1  # of a file
_MAX_DIGITS = 40


def parse_duration(text: str) -> timedelta:
    """Given "90s", "20h" or "1d12h", return the duration; raise ConfigurationError otherwise."""
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ConfigurationError(f"{text!r} is not a duration: write for example 90s, 20h or 1d12h (ms, s, m, h, d, w)")
    try:
        parts = re.findall(r"([0-9.]+)([a-z]+)", text)
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise ConfigurationError(f"{text!r} is too long a duration") from None


def parse_size(text: str) -> int:
    """Given "500MB" (powers of 1000) or "2GiB" (powers of 1024), return bytes; raise ConfigurationError otherwise."""
    match = re.fullmatch(SIZE_PATTERN, text) and re.match(r"([0-9]+)\.?([0-9]*) ?([kKMGT]?)(i?)", text)
    if not match:
        raise ConfigurationError(f"{text!r} is not a size: write for example 500MB or 2GiB")
    whole, decimals, prefix, binary = match.groups()
    power = _PREFIXES.index(prefix.replace("K", "k")) + 1 if prefix else 0
    if len(whole) <= _MAX_DIGITS >= len(decimals):
        # Whole numbers all the way: a float is wrong from 9 PB on, and infinite where somebody slept on a key.
        factor: int = (1024 if binary else 1000) ** power
        size: int = int(whole + decimals) * factor // 10 ** len(decimals)
        if size <= _MAX_SIZE:
            return size
    raise ConfigurationError(f"{text!r} is too large a size")


def parse_time(text: str) -> datetime:
    """Given an ISO 8601 date or time, return it in UTC (no zone means UTC); raise ConfigurationError otherwise."""
    if not re.fullmatch(TIME_PATTERN, text):
        raise ConfigurationError(f"{text!r} is not a time: write for example 2025-11-05 or 2025-11-05T14:30:00Z")
    normal = re.sub(r"([+-][0-9]{2})([0-9]{2})$", r"\1:\2", text.replace("Z", "+00:00"))
    if "." in normal:  # Python 3.9 reads three or six digits of a second only
        normal = re.sub(r"\.([0-9]+)", lambda match: "." + match.group(1)[:6].ljust(6, "0"), normal)
    try:
        value = datetime.fromisoformat(normal)
        return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{text!r} is not a time that exists") from None


def time_zone(name: str) -> tzinfo:
    """Given the name of a time zone, return it; raise ConfigurationError when this host does not know it.

    The one thing here that reads files: the host's table of time zones, which only upgrades change. UTC does without.
    """
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"timezone is {name!r}, which this host does not know: write for example UTC or Europe/Berlin; if it is"
            " right, install the tzdata package"
        ) from None


def iso(moment: datetime) -> str:
    """Given an aware time, return it in UTC as 2025-11-05T14:30:00Z (microseconds only where there are any)."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def human_size(size: float) -> str:
    """Given bytes, return "183.4 MB" (powers of 1000), sign kept."""
    value = float(size)
    if abs(round(value)) < 1000:
        return f"{round(value)} B"
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if abs(value) < 999.95:  # what is more would be shown as 1000.0
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def human_duration(duration: timedelta) -> str:
    """Given a duration, return its two largest units: "3d 4h", "5m 12s", "0.4s"; sign kept."""
    seconds = duration.total_seconds()
    if seconds < 0:
        return f"-{human_duration(-duration)}"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{value}{unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (left, "s")) if value]
    return " ".join(parts[:2])
