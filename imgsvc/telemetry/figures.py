"""Counts and speeds, kept in memory: seeded once at start, moved by every committed change, never scanned for."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

KEPT_MINUTES = 24 * 60
STATUSES = ("pending", "processing", "retrying", "completed", "failed")


@dataclass(slots=True)
class Minute:
    """What ended in one minute. Seconds are sums over the completed jobs."""

    start: datetime
    completed: int = 0
    failed: int = 0
    processing_seconds: float = 0  # from the first claim to the end
    ready_seconds: float = 0  # from the receipt to the end


@dataclass(frozen=True, slots=True)
class Performance:
    """What ended within some time; the averages are in seconds, None where nothing was completed."""

    completed: int
    failed: int
    avg_processing_seconds: float | None
    avg_ready_seconds: float | None


class Figures:
    """`came_to` is told of every status that jobs come to, and of how many."""

    def __init__(self, came_to: Callable[[str, int], None] = lambda _status, _jobs: None) -> None:
        self._came_to = came_to
        self._statuses: Counter[str] = Counter()
        self._stored: Counter[str] = Counter()
        self._stored_known = False
        self._minutes: deque[Minute] = deque(maxlen=KEPT_MINUTES)

    def seed(self, statuses: dict[str, int]) -> None:
        self._statuses = Counter(statuses)

    def moved(self, before: str | None, after: str | None, jobs: int = 1) -> None:
        """`jobs` went from one status to another; None stands for not being there."""
        if before:
            self._statuses[before] -= jobs
        if after:
            self._statuses[after] += jobs
            self._came_to(after, jobs)

    def ended(self, status: str, began_at: str, started_at: str | None, ended_at: str) -> None:
        """A job has ended; times are RFC 3339. In any order within the minutes that are kept."""
        end = datetime.fromisoformat(ended_at)
        minute = self._minute(end.replace(second=0, microsecond=0))
        if status != "completed":
            minute.failed += 1
            return
        minute.completed += 1
        minute.processing_seconds += (end - datetime.fromisoformat(started_at or began_at)).total_seconds()
        minute.ready_seconds += (end - datetime.fromisoformat(began_at)).total_seconds()

    def seed_stored(self, taken: Mapping[str, int]) -> None:
        """{variant: bytes} of what had been stored before any of it was told of here."""
        self._stored.update(taken)
        self._stored_known = True

    def stored(self, taken: Mapping[str, int]) -> None:
        self._stored.update(taken)

    def removed(self, freed: Mapping[str, int]) -> None:
        self._stored.subtract(freed)

    def stored_bytes(self) -> dict[str, int] | None:
        """{variant: bytes} of the completed images; None until they have been summed up once."""
        return dict(self._stored) if self._stored_known else None

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
        """The minutes in which something ended, oldest first."""
        return [minute for minute in self._minutes if minute.start + timedelta(minutes=1) > since]

    def _minute(self, start: datetime) -> Minute:
        for minute in reversed(self._minutes):
            if minute.start == start:
                return minute
            if minute.start < start:
                break
        minute = Minute(start)
        self._minutes.append(minute)
        if len(self._minutes) > 1 and self._minutes[-2].start > start:  # the clock was set back
            self._minutes = deque(sorted(self._minutes, key=lambda one: one.start), maxlen=KEPT_MINUTES)
        return minute


def _average(total: float, count: int) -> float | None:
    return round(total / count, 3) if count else None
