import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
import anyio
import pytest
from anyio.lowlevel import checkpoint

from imgsvc.jobs.table.database import SchemaTooNew, open_for_writing
from imgsvc.jobs.table.sql import OnQuery, ignore
from imgsvc.jobs.table.writer import Change, DatabaseUnavailable, Writer
from imgsvc.storage.thread_visit import AwaitedVisit, in_thread
from tests.support.speed import within


@asynccontextmanager
async def writing(
    path: Path, on_query: OnQuery = ignore, on_transaction: Callable[[bool], None] = lambda _: None
) -> AsyncIterator[Writer]:
    db = await open_for_writing(path)
    await db.execute("CREATE TABLE IF NOT EXISTS noted (value INTEGER UNIQUE)")
    writer = Writer(db, on_query, on_transaction=on_transaction)
    async with anyio.create_task_group() as group:
        group.start_soon(writer.run)
        try:
            yield writer
        finally:
            writer.close()
    await db.close()


def note(value: int) -> Change[int]:
    async def change(db: aiosqlite.Connection) -> int:
        await db.execute("INSERT INTO noted VALUES (?)", (value,))
        return value

    return change


class Sync:
    """A visit that a change comes after, as of the sync of a file: it ends when it is let go, or fails."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._gate, self._begun = threading.Event(), threading.Event()
        self.visit = AwaitedVisit(self._run, counted=True)

    def _run(self) -> None:
        assert self._gate.wait(30)
        if self.error:
            raise self.error

    def let_go(self, error: Exception | None = None) -> None:
        self.error = error
        self._gate.set()

    def note(self, value: int) -> Change[int]:
        """A change that tells when its statements are made."""

        async def change(db: aiosqlite.Connection) -> int:
            await note(value)(db)
            self._begun.set()
            return value

        return change

    async def begun(self) -> None:
        assert await in_thread(self._begun.wait, 20)


@pytest.fixture
def sync() -> Iterator[Callable[[], Sync]]:
    """Makes such visits, and lets go of all of them in the end."""
    made: list[Sync] = []

    def new() -> Sync:
        made.append(Sync())
        return made[-1]

    yield new
    for one in made:
        one.let_go()


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


async def test_statements_are_made_before_what_the_change_comes_after_and_the_commit_after_it(
    tmp_path: Path, sync: Callable[[], Sync]
) -> None:
    path, file = tmp_path / "db", sync()
    async with writing(path) as writer:
        writing_one = asyncio.create_task(writer.write(file.note(1), after=file.visit))
        with within(20):
            await file.begun()
            held = time.perf_counter()
            while time.perf_counter() < held + 0.1:
                await checkpoint()
                assert noted(path) == []
            assert not writing_one.done()
            file.let_go()
            assert await writing_one == 1
        assert noted(path) == [1]


@pytest.mark.parametrize("others", [0, 3])
async def test_change_is_undone_if_what_it_comes_after_fails(
    tmp_path: Path, sync: Callable[[], Sync], others: int
) -> None:
    path, file = tmp_path / "db", sync()
    async with writing(path) as writer:
        writing_one = asyncio.create_task(writer.write(file.note(1), after=file.visit))
        with within(20):
            await file.begun()
            await asyncio.gather(*(writer.write(note(10 + value)) for value in range(others)))
            file.let_go(OSError("the disk has failed"))
            with pytest.raises(OSError, match="the disk has failed"):
                await writing_one
            await writer.write(note(2))
    assert noted(path) == [2, *range(10, 10 + others)]


async def test_other_change_does_not_wait_for_what_the_first_comes_after(
    tmp_path: Path, sync: Callable[[], Sync]
) -> None:
    path, file = tmp_path / "db", sync()
    async with writing(path) as writer:
        writing_one = asyncio.create_task(writer.write(file.note(1), after=file.visit))
        with within(20):
            await file.begun()
            assert await writer.write(note(2)) == 2
            assert noted(path) == [2]
            assert not writing_one.done()
            file.let_go()
            assert await writing_one == 1
    assert noted(path) == [1, 2]


async def test_changes_that_come_after_something_share_a_transaction_though_one_of_them_fails(
    tmp_path: Path, sync: Callable[[], Sync]
) -> None:
    path, files = tmp_path / "db", [sync() for _ in range(5)]
    transactions: list[bool] = []
    async with writing(path, on_transaction=transactions.append) as writer:
        all_of_them = [
            asyncio.create_task(writer.write(note(number), after=file.visit)) for number, file in enumerate(files)
        ]
        with within(20):
            await asyncio.sleep(0)
            for number, file in enumerate(files):
                file.let_go(OSError("full") if number == 3 else None)
            found = await asyncio.gather(*all_of_them, return_exceptions=True)
    assert [str(one) for one in found] == ["0", "1", "2", "full", "4"]
    assert noted(path) == [0, 1, 2, 4]
    assert len(transactions) <= len(files)


async def test_cancelled_caller_does_not_cancel_a_change_that_made_way(
    tmp_path: Path, sync: Callable[[], Sync]
) -> None:
    path, file = tmp_path / "db", sync()
    async with writing(path) as writer:
        writing_one = asyncio.create_task(writer.write(file.note(1), after=file.visit))
        with within(20):
            await file.begun()
            await writer.write(note(2))
            writing_one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing_one
            file.let_go()
            await file.visit.ended()
            await writer.write(note(3))
    assert noted(path) == [1, 2, 3]


async def test_closed_writer_waits_for_nothing_that_a_change_comes_after(
    tmp_path: Path, sync: Callable[[], Sync]
) -> None:
    path, file = tmp_path / "db", sync()
    with within(20):
        async with writing(path) as writer:
            writing_one = asyncio.create_task(writer.write(file.note(1), after=file.visit))
            await file.begun()
        file.let_go()
        with pytest.raises(DatabaseUnavailable):
            await writing_one
    assert noted(path) == []


async def test_time_of_a_commit_is_without_the_wait_for_what_it_comes_after(
    tmp_path: Path, sync: Callable[[], Sync]
) -> None:
    file, took = sync(), list[float]()
    async with writing(tmp_path / "db", on_query=lambda _, seconds: took.append(seconds)) as writer:
        began = time.perf_counter()
        writing_one = asyncio.create_task(writer.write(file.note(1), after=file.visit))
        with within(20):
            await file.begun()
            held = time.perf_counter()
            while time.perf_counter() < held + 0.2:
                await checkpoint()
            file.let_go()
            await writing_one
        assert sum(took) <= time.perf_counter() - began - 0.2
