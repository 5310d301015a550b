"""The single writer: the only connection that writes, used by one task.

Two coroutines on one connection would interleave their transactions, and a cancelled `execute` still takes effect.
Therefore callers pass whole functions. The task commits all functions that are waiting together (group commit), in one
visit to the connection's thread. That thread may wait for one thing: what a change comes after, while no other change
waits (`after` of `write`).
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
from ...storage.thread_visit import AwaitedVisit
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


class _MadeWay(Exception):
    """The change was rolled back in favour of another one, and is made again once what it comes after has ended."""


@dataclass(slots=True)
class _Waiting:
    change: Change[Any]
    frees: bool
    done: "asyncio.Future[None]"
    after: AwaitedVisit[None] | None = None
    held_seconds: float = 0.0  # that its transaction waited for `after`
    result: Any = None
    error: BaseException | None = None

    def hold(self) -> None:
        """Wait, in the connection's thread, for what the change comes after. Raises what that raised, or _MadeWay."""
        if self.after is None:
            return
        began = time.perf_counter()
        try:
            if not self.after.wait():
                raise _MadeWay
        finally:
            self.held_seconds = time.perf_counter() - began

    def end(self, error: BaseException | None) -> None:
        self.error = error
        if not self.done.done():  # its caller was cancelled
            self.done.set_result(None)


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
        self._held: AwaitedVisit[None] | None = None  # what the last change comes after
        self._later = 0  # changes that are to wait once what they come after has ended
        self._closed = False

    async def write(self, change: Change[T], *, frees: bool = False, after: AwaitedVisit[None] | None = None) -> T:
        """Commit `change` and return its result. It is committed as a whole or not at all.

        `frees`: the change leads to free space, so on a full disk it may use the reserve.

        `after`: the change is committed once that has ended, and rolled back if it raised something, which is raised
        here too. While no other change waits, the statements are made meanwhile.

        The change may be committed even if the caller is cancelled while it waits. Raises DatabaseUnavailable, or
        whatever the change raised (its statements are then rolled back).
        """
        waiting = _Waiting(change, frees, asyncio.get_running_loop().create_future(), after)
        if after is None or self._is_free:
            self._append(waiting)
        else:
            self._append_later(waiting, after)
        await waiting.done
        if waiting.error is not None:
            raise waiting.error
        return waiting.result  # type: ignore[no-any-return]

    @property
    def _is_free(self) -> bool:
        return self._idle is not None and not self._later

    def _append(self, waiting: _Waiting) -> None:
        if self._closed:
            waiting.end(DatabaseUnavailable("the database is closed"))
            return
        self._make_way()
        self._held = waiting.after
        self._waiting.append(waiting)
        self._wake()

    def _append_later(self, waiting: _Waiting, after: AwaitedVisit[None]) -> None:
        def append() -> None:
            self._later -= 1
            self._append(waiting)

        self._later += 1
        after.when_ended(append)

    def _make_way(self) -> None:
        """Let the transaction that is held, if there is one, go on without what it waits for."""
        if self._held is not None:
            self._held.interrupt()

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
        self._make_way()
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
            self._on_query("commit", time.perf_counter() - began - sum(waiting.held_seconds for waiting in batch))
            for waiting in batch:
                if waiting.after is not None and isinstance(waiting.error, _MadeWay):
                    waiting.error, waiting.held_seconds = None, 0.0
                    self._append_later(waiting, waiting.after)
                else:
                    waiting.end(waiting.error)
            if not self._waiting:
                self._held = None  # which refers to a whole upload

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
            waiting.hold()
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
