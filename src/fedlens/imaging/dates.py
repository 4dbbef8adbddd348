"""Moving DICOM dates and times (PS3.5 6.2: DA, TM, DT); what cannot be read becomes empty."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
_TIME = re.compile(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(\.\d{1,6})?)?)?")
_DATETIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\.\d{1,6})?([+-]\d{4})?")
_SEPARATORS = str.maketrans("", "", "-:T")


def shift_moment(date: str, time: str, offset: timedelta) -> tuple[str, str]:
    """A date and a time of day that belong together, moved as one.

    Args:
        date: ``YYYYMMDD``.
        time: ``HH``, ``HHMM``, ``HHMMSS`` or ``HHMMSS.FFFFFF``.
        offset: Added.

    Returns:
        The new date and time; the time has the digits that it had, its fraction unchanged.
    """
    day, clock = _DATE.fullmatch(date.strip()), _TIME.fullmatch(time.strip())
    if not day or not clock:
        return shift_date(date, offset), shift_time(time, offset)
    moved = _moved([*day.groups(), *clock.groups()[:3]], offset)
    if moved is None:
        return "", ""
    return _digits(moved)[:8], _clock(moved, clock)


def shift_date(date: str, offset: timedelta) -> str:
    """A date of which no time of day is known, moved by whole days."""
    day = _DATE.fullmatch(date.strip())
    moved = _moved(list(day.groups()), timedelta(days=round(offset / timedelta(days=1)))) if day else None
    return _digits(moved)[:8] if moved else ""


def shift_time(time: str, offset: timedelta) -> str:
    """A time of day of which no date is known, moved round the clock."""
    clock = _TIME.fullmatch(time.strip())
    moved = _moved(["2000", "01", "01", *clock.groups()[:3]], offset) if clock else None
    return _clock(moved, clock) if moved and clock else ""


def shift_datetime(moment: str, offset: timedelta) -> str:
    """A date and time in one, moved; it keeps its precision and its offset from UTC."""
    parts = _DATETIME.fullmatch(moment.strip())
    if not parts:
        return ""
    known = [part for part in parts.groups()[:6] if part is not None]
    moved = _moved([*known, *("01", "01")[len(known) - 1 :]] if len(known) < 3 else known, offset)
    if moved is None:
        return ""
    digits = _digits(moved)[: 2 + 2 * len(known)]
    return f"{digits}{parts[7] or ''}{parts[8] or ''}"


def _moved(parts: list[str | None], offset: timedelta) -> datetime | None:
    numbers = [int(part or 0) for part in parts]
    try:
        # A leap second would be no time to Python.
        if len(numbers) == 6:
            numbers[5] = min(numbers[5], 59)
        return datetime(*numbers) + offset  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None


def _clock(moved: datetime, like: re.Match[str]) -> str:
    digits = 2 * sum(part is not None for part in like.groups()[:3])
    return _digits(moved)[8 : 8 + digits] + (like[4] or "")


def _digits(moved: datetime) -> str:
    # Not by strftime, which writes early years in fewer than four digits.
    return moved.isoformat(timespec="seconds").translate(_SEPARATORS)
