"""What ended in an hour, a day and a week, step by step for the charts. All three come from the same counts."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ...jobs.counters import JobCounters
from ...jobs.table.usage import Minute
from . import models as shown

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
MINUTES, HALF_HOURS, HOURS = timedelta(minutes=1), timedelta(minutes=30), HOUR
IN_MEMORY = timedelta(hours=22)  # the counters have a day of minutes: so many whole hours, whatever the minute


def counted_since(moment: datetime) -> datetime:
    """From this hour on the week's figures come from the counters, before it from the table of hours."""
    return _floor(moment, HOURS) - IN_MEMORY


def hour(counters: JobCounters, moment: datetime) -> list[shown.ChartStep]:
    return _steps(counters.minutes(moment - HOUR), MINUTES, 60, moment)


def day(counters: JobCounters, moment: datetime) -> list[shown.ChartStep]:
    return _steps(counters.minutes(moment - DAY), HALF_HOURS, 48, moment)


def week(counters: JobCounters, hours: Iterable[Minute], moment: datetime) -> list[shown.ChartStep]:
    """`hours` are those before `counted_since`."""
    return _steps([*hours, *counters.minutes(counted_since(moment))], HOURS, 7 * 24, moment)


def span(minutes: Iterable[Minute]) -> shown.Span:
    """The sum of all."""
    whole = Minute(datetime.min)
    for one in minutes:
        _add(whole, one)
    return shown.Span(
        total=whole.completed + whole.failed,
        completed=whole.completed,
        failed=whole.failed,
        avg_processing_time_seconds=_average(whole.processing_seconds, whole.completed),
        avg_ready_seconds=_average(whole.ready_seconds, whole.completed),
    )


def _steps(minutes: Iterable[Minute], step: timedelta, count: int, moment: datetime) -> list[shown.ChartStep]:
    """Every step up to the present one, including those in which no job ended."""
    last = _floor(moment, step)
    sums = {last - step * back: Minute(last - step * back) for back in reversed(range(count))}
    for one in minutes:
        whole = sums.get(_floor(one.start, step))
        if whole:
            _add(whole, one)
    return [
        shown.ChartStep(
            start=start.isoformat(),
            completed=whole.completed,
            failed=whole.failed,
            avg_ready_seconds=_average(whole.ready_seconds, whole.completed),
        )
        for start, whole in sums.items()
    ]


def _add(whole: Minute, more: Minute) -> None:
    whole.completed += more.completed
    whole.failed += more.failed
    whole.processing_seconds += more.processing_seconds
    whole.ready_seconds += more.ready_seconds


def _floor(moment: datetime, step: timedelta) -> datetime:
    begin = datetime(2000, 1, 1, tzinfo=UTC)
    return begin + (moment.astimezone(UTC) - begin) // step * step


def _average(total: float, count: int) -> float | None:
    return round(total / count, 3) if count else None
