import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
import anyio
import pytest

from imgsvc.jobs.table.database import SchemaTooNew, open_for_writing
from imgsvc.jobs.table.writer import Change, DatabaseUnavailable, Writer


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[Writer]:
    db = await open_for_writing(path)
    await db.execute("CREATE TABLE IF NOT EXISTS noted (value INTEGER UNIQUE)")
    writer = Writer(db)
    async with anyio.create_task_group() as group:
        group.start_soon(writer.run)
        yield writer
        writer.close()
    await db.close()


def note(value: int) -> Change[int]:
    async def change(db: aiosqlite.Connection) -> int:
        await db.execute("INSERT INTO noted VALUES (?)", (value,))
        return value

    return change


def noted(path: Path) -> list[int]:
    with sqlite3.connect(path) as db:
        return [row[0] for row in db.execute("SELECT value FROM noted ORDER BY value")]


async def test_many_changes_at_once_are_all_committed(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with writing(path) as writer, anyio.create_task_group() as group:
        for value in range(500):
            group.start_soon(writer.write, note(value))
    assert noted(path) == list(range(500))


async def test_failing_change_takes_nobody_with_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    failed: list[int] = []

    async def attempt(writer: Writer, value: int) -> None:
        try:
            await writer.write(note(value % 10))
        except sqlite3.IntegrityError:
            failed.append(value)

    async with writing(path) as writer, anyio.create_task_group() as group:
        for value in range(30):
            group.start_soon(attempt, writer, value)
    assert noted(path) == list(range(10))
    assert len(failed) == 20


async def test_half_a_change_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "db"

    async def half(db: aiosqlite.Connection) -> None:
        await db.execute("INSERT INTO noted VALUES (7)")
        raise RuntimeError("after the first statement")

    async with writing(path) as writer:
        with pytest.raises(RuntimeError):
            await writer.write(half)
        assert await writer.write(note(8)) == 8
    assert noted(path) == [8]


async def test_cancelled_caller_does_not_cancel_the_change(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with writing(path) as writer:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer.write(note(1))
    assert noted(path) == [1]


async def test_full_database_is_unavailable_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "db"

    async def large(db: aiosqlite.Connection) -> None:
        await db.execute("CREATE TABLE big AS SELECT zeroblob(1000000) AS zeros")

    async with writing(path) as writer:

        async def limit(db: aiosqlite.Connection) -> None:
            await db.execute("PRAGMA max_page_count = 100")

        await writer.write(limit)
        with pytest.raises(DatabaseUnavailable):
            await writer.write(large)
        await writer.write(note(3))
    assert noted(path) == [3]


async def test_transaction_takes_one_visit_to_the_thread_of_the_connection(tmp_path: Path) -> None:
    path, where = tmp_path / "db", list[int]()

    async def change(db: aiosqlite.Connection) -> int:
        where.append(threading.get_ident())
        await db.execute("INSERT INTO noted VALUES (1)")
        rows = await db.execute_fetchall("SELECT value FROM noted")
        found = await (await db.execute("SELECT count(*) FROM noted")).fetchone()
        where.append(threading.get_ident())
        assert found is not None
        return len(list(rows)) + int(found[0])

    async with writing(path) as writer:
        assert await writer.write(change) == 2
    assert len(set(where)) == 1
    assert where[0] != threading.get_ident()


async def test_change_that_waits_for_something_else_is_undone_and_named(tmp_path: Path) -> None:
    path = tmp_path / "db"

    async def waits(db: aiosqlite.Connection) -> None:
        await db.execute("INSERT INTO noted VALUES (1)")
        await asyncio.sleep(0)

    async with writing(path) as writer:
        with pytest.raises(RuntimeError, match="something else than its connection"):
            await writer.write(waits)
        await writer.write(note(2))
    assert noted(path) == [2]


async def test_closed_writer_refuses(tmp_path: Path) -> None:
    async with writing(tmp_path / "db") as writer:
        writer.close()
        with pytest.raises(DatabaseUnavailable):
            await writer.write(note(1))


async def test_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(SchemaTooNew, match="99"):
        await open_for_writing(path)


async def test_database_is_private_and_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with writing(path):
        assert path.stat().st_mode & 0o077 == 0
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.close()
