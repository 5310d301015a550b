"""Runs a whole transaction in the thread of its aiosqlite connection: one visit for all of its statements.

aiosqlite sends every statement to the connection's thread and waits for its answer in the event loop, which costs more
than most statements do. Two private parts of it are used here: `_execute`, through which every call of a connection and
of its cursors goes to the thread, and `_connection`, the connection of sqlite3.
"""

import sqlite3
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiosqlite

T = TypeVar("T")
Work = Callable[[aiosqlite.Connection], Coroutine[Any, Any, T]]


_copying = threading.Lock()  # a source is one connection, which several services of a process may use


class _InThread(aiosqlite.Connection):
    """The connection as its own thread sees it: each call is done at once, so that awaiting it never suspends."""

    def __init__(self, db: aiosqlite.Connection) -> None:  # without the thread that the base class would make
        self._connection = db._connection
        self._iter_chunk_size = db._iter_chunk_size

    async def _execute(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return fn(*args, **kwargs)

    def __del__(self) -> None:
        """Nothing is to be closed here."""


async def in_connection_thread(db: aiosqlite.Connection, work: Work[T]) -> T:
    """Run `work` in the connection's thread and return its result.

    `work` gets a connection that is good in that thread alone, and may await only what that connection offers. Raises
    RuntimeError if it waits for anything else, ValueError if the connection is closed, or what `work` raises.
    """
    result: T = await db._execute(lambda: to_the_end(work(_InThread(db))))  # type: ignore[no-untyped-call]
    return result


async def copy_into(db: aiosqlite.Connection, source: sqlite3.Connection) -> None:
    """Replace the database by `source`, in one transaction (sqlite.org/backup). The connection's thread uses both."""

    def copy() -> None:
        assert db._connection
        with _copying:
            source.backup(db._connection)

    await db._execute(copy)  # type: ignore[no-untyped-call]


def to_the_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what awaits only such a connection. Raises RuntimeError if it waits for anything else."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a change waits for something else than its connection")
