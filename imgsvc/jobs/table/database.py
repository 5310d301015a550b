"""Opens the database: migrations, the pragmas that durability depends on (sqlite.org/wal), and read connections."""

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiosqlite
import anyio
import anyio.to_thread

from ...storage.mounts import mount_of
from .connection_thread import copy_into, in_connection_thread
from .sql import QUERIES, OnQuery, ignore, is_damage, migration

MIGRATIONS = (
    "001_tables.sql",
    "002_operator_reads.sql",
    "003_moving_backends.sql",
    "004_service_instance.sql",
    "005_job_sums.sql",
    "006_job_sources.sql",
    "007_renders.sql",
    "008_operator_sessions.sql",
    "009_webhooks.sql",
    "010_image_lists.sql",
    "011_usage.sql",
    "012_expiry.sql",
    "013_credentials.sql",
    "014_kept_sources.sql",
    "015_render_tasks.sql",
    "016_erasures.sql",
    "017_figures.sql",
    "018_source_sums.sql",
)  # user_version n: the first n migrations have run
BUSY_SECONDS = 10.0
READERS = 4
LOG_BYTES = 64 << 20  # a write-ahead log that grew during a snapshot is truncated to this after a checkpoint


class SchemaTooNew(Exception):
    """A later version of this program has written the database. The message is a whole sentence."""


class NoWriteAheadLog(sqlite3.OperationalError):
    """The database is where SQLite can't use its write-ahead log. The message is a whole sentence."""


async def open_for_writing(path: Path) -> aiosqlite.Connection:
    """Open the writer's connection and migrate. Creates the database (mode 0600) if there is none."""
    await anyio.to_thread.run_sync(lambda: path.touch(mode=0o600))
    db = await aiosqlite.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        db.row_factory = aiosqlite.Row
        await in_connection_thread(db, partial(_prepare, path=path))
    except BaseException:
        await db.close()
        raise
    return db


async def _prepare(db: aiosqlite.Connection, path: Path) -> None:
    await _use_write_ahead_log(db, path)
    await db.execute("PRAGMA synchronous = FULL")
    await db.execute("PRAGMA temp_store = MEMORY")  # a statement with triggers would make a file in /tmp each time
    await db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    await _migrate(db)


async def _use_write_ahead_log(db: aiosqlite.Connection, path: Path) -> None:
    """SQLite answers with the mode that it kept where it can't have the other, or fails to map shared memory
    (sqlite.org/wal), depending on what a file system lacks. Raises NoWriteAheadLog.

    Without it readers and the writer would wait for each other, and a reader could not keep a snapshot.
    """
    try:
        mode = next(iter(await db.execute_fetchall("PRAGMA journal_mode = WAL")))[0]
        await db.execute_fetchall("PRAGMA user_version")  # the first use of the log maps the memory
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith("SQLITE_IOERR_SHM"):
            raise
        raise _no_write_ahead_log(path, "fails to map shared memory") from error
    if mode != "wal":
        raise _no_write_ahead_log(path, f"stays in the mode {mode!r}")


def _no_write_ahead_log(path: Path, what: str) -> NoWriteAheadLog:
    mount = mount_of(path.parent)
    return NoWriteAheadLog(
        f"[database] path (DATABASE_PATH) = {path}: SQLite can't use its write-ahead log there and {what}; it is on "
        f"{mount.kind} mounted at {mount.point}: move it to a local disk"
    )


async def _migrate(db: aiosqlite.Connection) -> None:
    version = next(iter(await db.execute_fetchall("PRAGMA user_version")))[0]
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"a later version of imgsvc has written this database (its schema is {version}, this program's "
            f"{len(MIGRATIONS)}): run that version again, or restore the backup from before the upgrade"
        )
    if not version and not await db.execute_fetchall("SELECT 1 FROM sqlite_master LIMIT 1"):
        await copy_into(db, _empty())
        return
    for number in range(version + 1, len(MIGRATIONS) + 1):
        await db.executescript(_transaction(number))


def _transaction(number: int) -> str:
    """A migration as one string: executescript would commit between the statements otherwise."""
    statements = migration(MIGRATIONS[number - 1])
    return f"BEGIN IMMEDIATE;\n{statements}\nPRAGMA user_version = {number};\nCOMMIT;"


@cache
def _empty() -> sqlite3.Connection:
    """A database in memory after all migrations, which a new one is copied from: one sync instead of one for each."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for number in range(1, len(MIGRATIONS) + 1):
        db.executescript(_transaction(number))
    return db


async def _open_for_reading(uri: str) -> aiosqlite.Connection:
    db = await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    db.row_factory = aiosqlite.Row
    return db


class Readers:
    """A few read-only connections. Each is lent to one reader at a time.

    The first is opened at once. A further one is opened when all are lent, one after another: each costs a thread and
    reads the schema, and most starts need two.
    """

    def __init__(self, path: Path, on_query: OnQuery = ignore) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._on_query = on_query
        self.damage = ""  # SQLite's message about a damaged page; empty: none was found
        self._all: list[aiosqlite.Connection] = []
        self._idle: list[aiosqlite.Connection] = []
        self._places = anyio.Semaphore(0, max_value=READERS)
        self._growing = anyio.Lock()

    async def __aenter__(self) -> Self:
        await self._grow()
        return self

    async def _grow(self) -> None:
        async with self._growing:
            with anyio.CancelScope(shield=True):  # aiosqlite would leave the thread of a connection half opened
                db = await _open_for_reading(self._uri)
            self._all.append(db)
            self._idle.append(db)
            self._places.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            async with self._growing:
                self._idle.clear()
            while self._all:
                await self._all.pop().close()  # an open one would hang the interpreter's exit

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[aiosqlite.Connection]:
        if not self._places.value and len(self._all) < READERS and not self._growing.locked():
            with suppress(sqlite3.OperationalError):  # no descriptor is left: wait for one that is open
                await self._grow()
        async with self._places:
            db = self._idle.pop()
            try:
                yield db
            finally:
                self._idle.append(db)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[aiosqlite.Connection]:
        """Open a further connection that keeps seeing the database as it is now, whatever is committed later.

        While it is open, the write-ahead log can't be truncated and grows.
        """
        db = await _open_for_reading(self._uri)
        try:
            await db.execute("BEGIN")
            await db.execute_fetchall("SELECT 1 FROM sqlite_master LIMIT 1")  # BEGIN alone starts no snapshot
            yield db
        finally:
            with anyio.CancelScope(shield=True):
                await db.close()

    async def fetch(self, query: str, parameters: dict[str, Any]) -> list[aiosqlite.Row]:
        """Fetch the rows of a statement in queries.sql."""
        return await self.select(query, QUERIES[query], parameters)

    async def select(self, query: str, statement: str, parameters: dict[str, Any]) -> list[aiosqlite.Row]:
        """Fetch the rows of a statement, under a name. The measured time excludes the wait for a connection."""
        async with self.lend() as db:
            began = time.perf_counter()
            try:
                return list(await db.execute_fetchall(statement, parameters))
            except sqlite3.Error as error:
                if is_damage(error):
                    self.damage = str(error)
                raise
            finally:
                self._on_query(query, time.perf_counter() - began)
