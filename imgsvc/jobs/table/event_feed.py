"""Wakes who waits for audit events: server-sent events of a job, and the senders of webhooks.

A trigger on the writer's connection notes each event, whichever change writes it. They are woken once its transaction
has ended, and read the table again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import aiosqlite
import anyio

from .sql import QUERIES


class EventFeed:
    def __init__(self) -> None:
        self._noted: list[str] = []
        self._waiting: dict[str, set[Wake]] = defaultdict(set)
        self._listeners: list[Callable[[], None]] = []

    async def watch(self, db: aiosqlite.Connection) -> None:
        """Note from now on what this connection writes."""
        await db.create_function("event_recorded", 1, self._note)
        await db.execute(QUERIES["watch_events"])

    def _note(self, job_id: str) -> None:
        """Called in the connection's thread."""
        self._noted.append(job_id)

    def publish(self) -> None:
        """Wake those who wait for the jobs of the transaction that has just ended, however it ended."""
        noted, self._noted = self._noted, []
        if not noted:
            return
        for job_id in noted:
            for wake in self._waiting.get(job_id, ()):
                wake.set()
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each transaction with an event of any job."""
        self._listeners.append(listener)

    def wake_all(self) -> None:
        """Wake all that wait for a job: the service is stopping."""
        for waiting in self._waiting.values():
            for wake in waiting:
                wake.set()

    @contextmanager
    def waiting(self, job_ids: Iterable[str]) -> Iterator["Wake"]:
        """Subscribe before reading the table, so that no event is missed in between."""
        wake, jobs = Wake(), set(job_ids)
        for job_id in jobs:
            self._waiting[job_id].add(wake)
        try:
            yield wake
        finally:
            for job_id in jobs:
                self._waiting[job_id].discard(wake)
                if not self._waiting[job_id]:
                    del self._waiting[job_id]


class Wake:
    """An event that can be waited for again and again."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Until the next event since the last wait."""
        await self._event.wait()
        self._event = anyio.Event()
