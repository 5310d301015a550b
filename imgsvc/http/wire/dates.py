"""Dates in request headers: the three formats that a recipient must accept (RFC 9110 section 5.6.7)."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
ASCTIME = re.compile(r"[A-Za-z]{3} ([A-Za-z]{3}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})", re.ASCII)
RFC_850 = re.compile(r"[A-Za-z]{6,9}, (\d\d)-([A-Za-z]{3})-(\d\d) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
CENTURY_YEARS = 50  # a year of two digits that seems further in the future is of the past century


def parsed_date(text: str, now: datetime | None = None) -> datetime | None:
    """The moment that a header names, in UTC; None if it is not a date. `now` is for tests."""
    text = text.strip()
    try:
        if match := ASCTIME.fullmatch(text):
            month, day, hour, minute, second, year = match.groups()
            return _moment(int(year), month, day, hour, minute, second)
        if match := RFC_850.fullmatch(text):
            day, month, short_year, hour, minute, second = match.groups()
            return _moment(_year(int(short_year), now or datetime.now(UTC)), month, day, hour, minute, second)
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else None


def _moment(year: int, month: str, day: str, hour: str, minute: str, second: str) -> datetime:
    number = MONTHS.index(month.lower()) + 1
    seconds = min(int(second), 59)  # 60 in a leap second
    return datetime(year, number, int(day), int(hour), int(minute), seconds, tzinfo=UTC)


def _year(two_digits: int, now: datetime) -> int:
    year = now.year // 100 * 100 + two_digits
    return year - 100 if year > now.year + CENTURY_YEARS else year
