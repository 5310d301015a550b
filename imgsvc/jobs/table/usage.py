"""Sums over jobs, and what is made up for rows of older versions in the background: counts, and folded names.

The triggers of 005_job_sums.sql maintain the sums. Counting proceeds page by page, each in its own transaction that
also stores its position: an interrupted count continues there, and no long snapshot makes the write-ahead log grow.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

import aiosqlite
import anyio
import structlog

from ...lazy_dataclass import dataclass
from .database import Readers
from .model import as_text, folded, now
from .sql import QUERIES
from .writer import DatabaseUnavailable, Writer

log = structlog.get_logger()

PAGE = 1_000  # rows in one transaction: a few milliseconds, during which other changes wait
STEP = timedelta(minutes=10)  # of job history in one transaction, likewise
KEPT = timedelta(days=1)
COUNTING_DELAY_SECONDS = 1.0  # after the start, which has more urgent work
COUNTING_PAUSE_SECONDS = 0.02  # between two pages, so that other changes can be written
COUNT_AGAIN_SECONDS = 60.0  # after the database refused
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


class Observer(Protocol):
    """Receives every committed status change, so that counts are kept in memory instead of being queried."""

    def seed(self, statuses: Mapping[str, int]) -> None: ...
    def seed_minutes(self, minutes: Sequence[Minute]) -> None: ...
    def moved(self, before: str | None, after: str | None, jobs: int = 1) -> None: ...
    def ended(self, status: str, began_at: str, started_at: str | None, ended_at: str) -> None: ...


class JobSums:
    """The sums as the database keeps them. `observer` starts from them and follows the changes by itself."""

    def __init__(self, readers: Readers, writer: Writer, observer: Observer) -> None:
        self._readers = readers
        self._write = writer.write
        self._observer = observer

    async def seed(self) -> None:
        """Read the sums that the observer starts from. Must run before any change."""
        self._observer.seed(await self._sums("jobs"))
        rows = await self._readers.fetch("minutes", {"since": as_text(now() - KEPT)[:MINUTE]})
        self._observer.seed_minutes([Minute.of(row) for row in rows])

    async def _sums(self, kind: str) -> dict[str, int]:
        return {row["name"]: row["total"] for row in await self._readers.fetch("sums", {"kind": kind})}

    async def stored_bytes(self) -> dict[str, int] | None:
        """{variant: bytes} of the completed images; None until an older version's rows have been counted."""
        counted = (await self._readers.fetch("counting", {}))[0]["bytes_upto"] is None
        return await self._sums("bytes") if counted else None

    async def kept_sources(self) -> tuple[int, int]:
        """How many sources are kept, and their bytes."""
        (row,) = await self._readers.fetch("source_sums", {})
        return row["images"], row["bytes"]

    async def count(self) -> None:
        """Count the rows that an older version left uncounted, in the background, in small pages. Call once."""
        try:
            if all(left is None for left in (await self._readers.fetch("counting", {}))[0]):
                return
        except sqlite3.Error as error:
            log.error("counting_failed", reason=str(error))
            return
        await anyio.sleep(COUNTING_DELAY_SECONDS)
        for piece in (self._count_minutes, self._count_bytes, self._fold_names, self._count_usage):
            while True:
                try:
                    if not await piece():
                        break
                    pause = COUNTING_PAUSE_SECONDS
                except (DatabaseUnavailable, sqlite3.Error) as error:
                    log.error("counting_failed", reason=str(error), again_in_seconds=COUNT_AGAIN_SECONDS)
                    pause = COUNT_AGAIN_SECONDS
                await anyio.sleep(pause)

    async def _count_bytes(self) -> bool:
        return await self._write(count_bytes)

    async def _count_usage(self) -> bool:
        return await self._write(count_usage)

    async def _fold_names(self) -> bool:
        return await self._write(fold_names)

    async def _count_minutes(self) -> bool:
        minutes, more = await self._write(count_minutes)
        self._observer.seed_minutes(minutes)
        return more


async def count_bytes(db: aiosqlite.Connection) -> bool:
    """Add the next page of rows to the stored bytes; returns whether there are more."""
    after = (await _one(db, "counting"))["bytes_upto"]
    if after is None:
        return False
    (last,) = await _one(db, "last_row")
    upto = min(after + PAGE, last)
    await db.execute(QUERIES["count_bytes"], {"after": after, "upto": upto})
    await db.execute(QUERIES["bytes_counted"], {"upto": None if upto >= last else upto})
    return bool(upto < last)


async def count_minutes(db: aiosqlite.Connection) -> tuple[list[Minute], bool]:
    """Add jobs that ended in the STEP before the earliest counted moment; returns them, and whether more are left."""
    counted_from = (await _one(db, "counting"))["minutes_from"]
    if counted_from is None:
        return [], False
    start = datetime.fromisoformat(counted_from) - STEP
    span = {"since": as_text(start), "before": counted_from}
    rows = list(await db.execute_fetchall(QUERIES["ended_between"], span))
    await db.executemany(QUERIES["add_minute"], [dict(row) for row in rows])
    more = start > now() - KEPT
    await db.execute(QUERIES["minutes_counted"], {"since": as_text(start) if more else None})
    return [Minute.of(row) for row in rows], more


async def fold_names(db: aiosqlite.Connection) -> bool:
    """Fold the names of the next page of rows, which lists find by them; returns whether there are more."""
    after = (await _one(db, "counting"))["names_upto"]
    if after is None:
        return False
    (last,) = await _one(db, "last_row")
    upto = min(after + PAGE, last)
    rows = await db.execute_fetchall(QUERIES["names_between"], {"after": after, "upto": upto})
    named = [{"row": row["row"], "name": folded(row["original_filename"])} for row in rows]
    await db.executemany(QUERIES["fold_name"], named)
    await db.execute(QUERIES["names_folded"], {"upto": None if upto >= last else upto})
    return bool(upto < last)


async def count_usage(db: aiosqlite.Connection) -> bool:
    """Add the next page of rows to what users have stored; returns whether there are more."""
    after = (await _one(db, "counting"))["usage_upto"]
    if after is None:
        return False
    (last,) = await _one(db, "last_row")
    upto = min(after + PAGE, last)
    for query in ("count_users", "count_orgs"):
        await db.execute(QUERIES[query], {"after": after, "upto": upto})
    await db.execute(QUERIES["users_counted"], {"upto": None if upto >= last else upto})
    return bool(upto < last)


async def _one(db: aiosqlite.Connection, query: str) -> aiosqlite.Row:
    return next(iter(await db.execute_fetchall(QUERIES[query])))
