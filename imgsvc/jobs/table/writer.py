"""The single writer: the only connection that writes, used by one task.

Two coroutines on one connection would interleave their transactions, and a cancelled `execute` still takes effect.
Therefore callers pass whole functions. The task commits all functions that are waiting together (group commit), in one
visit to the connection's thread.
"""

import asyncio
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import aiosqlite
import anyio
import anyio.to_thread
import structlog

from ...lazy_dataclass import dataclass
from .connection_thread import in_connection_thread, to_the_end
from .sql import OnQuery, ignore, is_damage

T = TypeVar("T")
Change = Callable[[aiosqlite.Connection], Coroutine[Any, Any, T]]  # waits for nothing but the connection
log = structlog.get_logger()

FULL = re.compile(r"disk is full|disk I/O error")
MAX_BATCH = 200  # changes in one transaction, which bounds how long the first one waits


class DatabaseUnavailable(Exception):
    """The change was not committed: the disk is full or failing, or the database is closed."""

    @property
    def is_full(self) -> bool:
        """Whether space was missing: in the database, its log, or the log's index (SQLITE_IOERR_SHMSIZE)."""
        return bool(FULL.search(str(self)))


@dataclass(slots=True)
class _Waiting:
    change: Change[Any]
    frees: bool
    done: "asyncio.Future[None]"
    result: Any = None
    error: BaseException | None = None


class Writer:
    def __init__(
        self,
        db: aiosqlite.Connection,
        on_query: OnQuery = ignore,
        make_room: Callable[[], bool] = lambda: False,
        on_transaction: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`make_room` frees some space on a full disk, for changes that free more; False if it has none (left).

        `on_transaction` is called at the end of each transaction, before the callers of its changes go on, with
        whether all of them were committed.
        """
        self._db = db
        self._on_query = on_query
        self._make_room = make_room
        self._on_transaction = on_transaction
        self.damage = ""  # SQLite's message about a damaged page; empty: none was found
        self._waiting: deque[_Waiting] = deque()
        self._idle: asyncio.Future[None] | None = None  # what `run` waits for while there is no change
        self._closed = False

    async def write(self, change: Change[T], *, frees: bool = False) -> T:
        """Commit `change` and return its result. It is committed as a whole or not at all.

        `frees`: the change leads to free space, so on a full disk it may use the reserve.

        The change may be committed even if the caller is cancelled while it waits. Raises DatabaseUnavailable, or
        whatever the change raised (its statements are then rolled back).
        """
        if self._closed:
            raise DatabaseUnavailable("the database is closed")
        waiting = _Waiting(change, frees, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake()
        await waiting.done
        if waiting.error is not None:
            raise waiting.error
        return waiting.result  # type: ignore[no-any-return]

    async def run(self) -> None:
        """Write until `close` is called and everything passed before that is written."""
        with anyio.CancelScope(shield=True):  # a commit must not be interrupted
            try:
                while self._waiting or not self._closed:
                    if self._waiting:
                        await self._commit(self._batch())
                    else:
                        self._idle = asyncio.get_running_loop().create_future()
                        await self._idle
            finally:
                self._closed = True

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)

    def _batch(self) -> list[_Waiting]:
        return [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]

    async def _commit(self, batch: list[_Waiting]) -> None:
        began = time.perf_counter()
        try:
            await self._transact(batch)
            kept_out = [one for one in batch if one.frees and _is_full(one.error)]
            room: bool = kept_out != [] and await anyio.to_thread.run_sync(self._make_room)
            if room:
                for waiting in kept_out:
                    waiting.error = None
                await self._transact(kept_out)
        finally:
            for waiting in batch:
                if not waiting.done.done():  # its caller was cancelled
                    waiting.done.set_result(None)
            self._on_query("commit", time.perf_counter() - began)

    async def _transact(self, batch: list[_Waiting]) -> None:
        """Commit the changes; one that is not committed has its error set."""
        try:
            await in_connection_thread(self._db, partial(self._apply_all, batch))
        except Exception as error:
            self._note(error)
            log.error("database_write_failed", reason=str(error), changes=len(batch))
            for waiting in batch:
                waiting.error = DatabaseUnavailable(str(error))
            await self._roll_back()
        finally:
            self._on_transaction(all(waiting.error is None for waiting in batch))

    async def _apply_all(self, batch: list[_Waiting], db: aiosqlite.Connection) -> None:
        await db.execute("BEGIN IMMEDIATE")
        alone = len(batch) == 1
        for waiting in batch:
            await self._apply(waiting, db, alone=alone)
        if db.in_transaction:
            await db.execute("COMMIT")

    async def _apply(self, waiting: _Waiting, db: aiosqlite.Connection, *, alone: bool) -> None:
        """Run one change, under a savepoint unless it is alone in its transaction.

        Raises only if SQLite has rolled back the whole transaction.
        """
        if not alone:
            await db.execute("SAVEPOINT change")
        try:
            waiting.result = to_the_end(waiting.change(db))
        except Exception as error:
            if not db.in_transaction:
                raise  # a full disk or an I/O error: the changes before this one are rolled back too
            self._note(error)
            operational = isinstance(error, sqlite3.OperationalError) or is_damage(error)
            waiting.error = DatabaseUnavailable(str(error)) if operational else error
            await db.execute("ROLLBACK" if alone else "ROLLBACK TO change")
        if not alone:
            await db.execute("RELEASE change")

    def _note(self, error: Exception) -> None:
        if is_damage(error):
            self.damage = str(error)

    async def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                await self._db.execute("ROLLBACK")
        except Exception as error:
            log.error("database_rollback_failed", reason=str(error))


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, DatabaseUnavailable) and error.is_full
