"""Counts and processing times in memory: read once at start, updated by every committed change, never queried."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from ..lazy_dataclass import dataclass
from .table.model import STATUSES
from .table.usage import Minute

KEPT_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Performance:
    """The jobs that ended in a period. Averages are in seconds; None if no job was completed."""

    completed: int
    failed: int
    avg_processing_seconds: float | None
    avg_ready_seconds: float | None


class JobCounters:
    """`on_status` is called with (status, number of jobs) whenever jobs enter a status."""

    def __init__(self, on_status: Callable[[str, int], None] = lambda _status, _jobs: None) -> None:
        self._on_status = on_status
        self._statuses: Counter[str] = Counter()
        self._minutes: dict[datetime, Minute] = {}  # keyed by the minute's start, in any order

    def seed(self, statuses: Mapping[str, int]) -> None:
        self._statuses = Counter(statuses)

    def seed_minutes(self, minutes: Sequence[Minute]) -> None:
        """Add the jobs that ended before this process started counting."""
        for more in minutes:
            minute = self._minute(more.start)
            minute.completed += more.completed
            minute.failed += more.failed
            minute.processing_seconds += more.processing_seconds
            minute.ready_seconds += more.ready_seconds

    def moved(self, before: str | None, after: str | None, jobs: int = 1) -> None:
        """Move `jobs` from one status to another. None: the job does not exist yet, or was deleted."""
        if before:
            self._statuses[before] -= jobs
        if after:
            self._statuses[after] += jobs
            self._on_status(after, jobs)

    def ended(self, status: str, began_at: str, started_at: str | None, ended_at: str) -> None:
        """Record the end of a job. Times are RFC 3339. Calls may come in any order."""
        end = datetime.fromisoformat(ended_at)
        minute = self._minute(end.replace(second=0, microsecond=0))
        if status != "completed":
            minute.failed += 1
            return
        minute.completed += 1
        minute.processing_seconds += (end - datetime.fromisoformat(started_at or began_at)).total_seconds()
        minute.ready_seconds += (end - datetime.fromisoformat(began_at)).total_seconds()

    def by_status(self) -> dict[str, int]:
        return {status: max(0, self._statuses[status]) for status in STATUSES}

    def performance(self, since: datetime) -> Performance:
        recent = self.minutes(since)
        completed = sum(minute.completed for minute in recent)
        return Performance(
            completed,
            sum(minute.failed for minute in recent),
            _average(sum(minute.processing_seconds for minute in recent), completed),
            _average(sum(minute.ready_seconds for minute in recent), completed),
        )

    def minutes(self, since: datetime) -> list[Minute]:
        """The minutes in which any job ended, oldest first."""
        found = [minute for minute in self._minutes.values() if minute.start + timedelta(minutes=1) > since]
        return sorted(found, key=lambda minute: minute.start)

    def _minute(self, start: datetime) -> Minute:
        minute = self._minutes.get(start)
        if minute is None:
            minute = self._minutes[start] = Minute(start)
            if len(self._minutes) > KEPT_MINUTES:
                del self._minutes[min(self._minutes)]
        return minute


def _average(total: float, count: int) -> float | None:
    return round(total / count, 3) if count else None
