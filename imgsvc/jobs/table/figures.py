"""Figures over time in bounded space: what ended in each hour of a week, and how many jobs waited in each minute."""

from datetime import UTC, datetime, timedelta

import aiosqlite

from ..periodic import repeat
from .database import Readers
from .model import as_text, now
from .reports import MOST_COUNTED
from .sql import QUERIES
from .usage import MINUTE, Minute
from .writer import Writer

EVERY_SECONDS = 60.0
HOUR = len("2026-03-01T12")
KEPT_HOURS, KEPT_QUEUE_MINUTES = 8 * 24, 24 * 60
MINUTES_OF = timedelta(hours=23)  # job_minutes has a day: so many whole hours, whatever the minute


class Figures:
    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write

    async def run(self) -> None:
        """Store the figures each minute, until cancelled. A failure is logged: the next minute makes up for it."""
        await repeat(self.store, EVERY_SECONDS, "figures_not_stored")

    async def store(self) -> None:
        """Raises DatabaseUnavailable."""
        await self._write(store)

    async def hours(self, since: datetime, before: datetime) -> list[Minute]:
        """The hours in which any job ended, oldest first, from the hour of `since` to before the hour of `before`."""
        values = {"since": as_text(since)[:HOUR], "before": as_text(before)[:HOUR]}
        rows = await self._readers.fetch("hours", values)
        return [
            Minute(datetime.fromisoformat(f"{row['hour']}:00").replace(tzinfo=UTC), *tuple(row)[1:]) for row in rows
        ]

    async def waiting_before(self, age: timedelta, within: timedelta) -> int | None:
        """How many jobs waited `age` ago, noted at most `within` earlier; None: nothing was noted then."""
        moment = now() - age
        values = {"since": as_text(moment - within)[:MINUTE], "until": as_text(moment)[:MINUTE]}
        rows = await self._readers.fetch("waiting_at", values)
        return int(rows[0]["waiting"]) if rows else None


async def store(db: aiosqlite.Connection) -> None:
    """Bring the hours up to date, note how many jobs wait, and drop what is too old. Doing it twice changes nothing."""
    moment = now()
    await db.execute(QUERIES["store_hours"], {"since": as_text(moment - MINUTES_OF)[:HOUR]})
    await db.execute(QUERIES["store_waiting"], {"minute": as_text(moment)[:MINUTE], "most": MOST_COUNTED})
    await db.execute(QUERIES["drop_hours"], {"latest": as_text(moment)[:HOUR], "kept": KEPT_HOURS})
    latest = {"latest": as_text(moment)[:MINUTE], "kept": KEPT_QUEUE_MINUTES}
    await db.execute(QUERIES["drop_queue_minutes"], latest)
