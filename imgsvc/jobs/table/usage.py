"""Sums over jobs, and the counting of rows from before the sums existed.

The triggers of 005_job_sums.sql maintain the sums. Counting proceeds page by page, each in its own transaction that
also stores its position: an interrupted count continues there, and no long snapshot makes the write-ahead log grow.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import aiosqlite

from .model import as_text, now
from .sql import QUERIES

PAGE = 1_000  # rows in one transaction: a few milliseconds, during which other changes wait
STEP = timedelta(minutes=10)  # of job history in one transaction, likewise
KEPT = timedelta(days=1)
MINUTE = len("2026-03-01T12:00")


@dataclass(slots=True)
class Minute:
    """The jobs that ended in one minute. Seconds are sums over the completed jobs."""

    start: datetime
    completed: int = 0
    failed: int = 0
    processing_seconds: float = 0  # from the first claim to completion
    ready_seconds: float = 0  # from the receipt to completion

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        minute, *sums = row
        return cls(datetime.fromisoformat(minute).replace(tzinfo=UTC), *sums)


async def count_bytes(db: aiosqlite.Connection) -> bool:
    """Add the next page of rows to the stored bytes; returns whether there are more."""
    after, _ = await _one(db, "counting")
    if after is None:
        return False
    (last,) = await _one(db, "last_row")
    upto = min(after + PAGE, last)
    await db.execute(QUERIES["count_bytes"], {"after": after, "upto": upto})
    await db.execute(QUERIES["bytes_counted"], {"upto": None if upto >= last else upto})
    return bool(upto < last)


async def count_minutes(db: aiosqlite.Connection) -> tuple[list[Minute], bool]:
    """Add jobs that ended in the STEP before the earliest counted moment; returns them, and whether more are left."""
    _, counted_from = await _one(db, "counting")
    if counted_from is None:
        return [], False
    start = datetime.fromisoformat(counted_from) - STEP
    span = {"since": as_text(start), "before": counted_from}
    rows = list(await db.execute_fetchall(QUERIES["ended_between"], span))
    await db.executemany(QUERIES["add_minute"], [dict(row) for row in rows])
    more = start > now() - KEPT
    await db.execute(QUERIES["minutes_counted"], {"since": as_text(start) if more else None})
    return [Minute.of(row) for row in rows], more


async def _one(db: aiosqlite.Connection, query: str) -> aiosqlite.Row:
    return next(iter(await db.execute_fetchall(QUERIES[query])))
