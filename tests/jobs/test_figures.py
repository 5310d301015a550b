"""Figures over time: what they say, that storing twice changes nothing, and that they stay small."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosqlite
import anyio
import pytest
import pytest_asyncio

from imgsvc.jobs.table import figures
from imgsvc.jobs.table.database import Readers, open_for_writing
from imgsvc.jobs.table.figures import Figures
from imgsvc.jobs.table.model import as_text
from imgsvc.jobs.table.writer import Writer

NOW = datetime(2026, 3, 4, 12, 34, 56, tzinfo=UTC)


@pytest_asyncio.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Path, aiosqlite.Connection]]:
    path = tmp_path / "imgsvc.db"
    monkeypatch.setattr(figures, "now", lambda: NOW)
    db = await open_for_writing(path)
    yield path, db
    await db.close()


@asynccontextmanager
async def kept(path: Path, db: aiosqlite.Connection) -> AsyncIterator[Figures]:
    writer = Writer(db)
    async with Readers(path) as readers, anyio.create_task_group() as writing:
        writing.start_soon(writer.run)
        yield Figures(readers, writer)
        writer.close()


def minute(moment: datetime, completed: int, failed: int = 0) -> tuple[str, int, int, float, float]:
    return as_text(moment)[:16], completed, failed, completed * 0.5, completed * 1.0


async def ended(db: aiosqlite.Connection, *minutes: tuple[str, int, int, float, float]) -> None:
    await db.executemany("INSERT INTO job_minutes VALUES (?, ?, ?, ?, ?)", minutes)


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


async def test_minutes_become_hours_and_storing_again_changes_nothing(
    database: tuple[Path, aiosqlite.Connection],
) -> None:
    path, db = database
    hour = NOW.replace(minute=0, second=0)
    await ended(
        db, minute(hour, 3, 1), minute(hour + timedelta(minutes=20), 2), minute(hour - timedelta(minutes=1), 7, 2)
    )
    await figures.store(db)
    once = rows(path, "job_hours")
    assert once == [("2026-03-04T11", 7, 2, 3.5, 7.0), ("2026-03-04T12", 5, 1, 2.5, 5.0)]
    await figures.store(db)
    assert rows(path, "job_hours") == once
    async with kept(path, db) as one:
        (found,) = await one.hours(NOW - timedelta(hours=5), NOW)
    assert (found.start, found.completed, found.failed) == (hour - timedelta(hours=1), 7, 2)


async def test_hour_that_has_lost_minutes_is_not_written_over(database: tuple[Path, aiosqlite.Connection]) -> None:
    path, db = database
    old = NOW - timedelta(hours=24, minutes=30)  # job_minutes is about to lose this hour
    await db.execute("INSERT INTO job_hours VALUES (?, 60, 0, 1, 1)", [as_text(old)[:13]])
    await ended(db, minute(old, 1))
    await figures.store(db)
    assert rows(path, "job_hours")[0][1] == 60


async def test_tables_stay_small_whatever_the_clock_says(
    database: tuple[Path, aiosqlite.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, db = database
    monkeypatch.setattr(figures, "KEPT_HOURS", 4)
    monkeypatch.setattr(figures, "KEPT_QUEUE_MINUTES", 5)
    for back in range(10):
        moment = NOW - timedelta(hours=back)
        await db.execute("INSERT INTO job_hours VALUES (?, 1, 0, 1, 1)", [as_text(moment)[:13]])
        await db.execute("INSERT INTO queue_minutes VALUES (?, 1)", [as_text(NOW - timedelta(minutes=back))[:16]])
    await db.execute("INSERT INTO job_hours VALUES ('2999-01-01T00', 1, 0, 1, 1)")  # the clock was wrong for a while
    await db.execute("INSERT INTO queue_minutes VALUES ('2999-01-01T00:00', 1)")
    await figures.store(db)
    hours, minutes = rows(path, "job_hours"), rows(path, "queue_minutes")
    assert [hour for hour, *_ in hours] == [f"2026-03-04T{hour:02}" for hour in (9, 10, 11, 12)]
    assert [at for at, _ in minutes] == [f"2026-03-04T12:{at}" for at in range(30, 35)]


async def test_earlier_queue_is_known_within_limits(database: tuple[Path, aiosqlite.Connection]) -> None:
    path, db = database
    for back, waiting in ((0, 9), (9, 7), (13, 3)):
        await db.execute(
            "INSERT INTO queue_minutes VALUES (?, ?)", [as_text(NOW - timedelta(minutes=back))[:16], waiting]
        )
    async with kept(path, db) as one:
        assert await one.waiting_before(timedelta(minutes=10), timedelta(minutes=5)) == 3
        assert await one.waiting_before(timedelta(minutes=10), timedelta(minutes=2)) is None
        await one.store()
        assert await one.waiting_before(timedelta(0), timedelta(minutes=1)) == 0
