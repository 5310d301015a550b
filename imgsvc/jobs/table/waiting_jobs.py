"""Which queues may have a job, so that an idle lane sends no query for a queue that is known to be empty.

It is exact: one process owns the table, and one connection writes. Triggers on that connection note every statement
that lets a job wait, or that takes a waiting job's twin away, and they count in the step in which its transaction ends,
before the caller of the change is answered. A queue counts as empty only if nothing was noted since before the claim
that found it so began; a job that joined it and was claimed in one transaction is left out of this count
(`taken_at_once`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import get_args

import aiosqlite

from .model import QueueName
from .sql import QUERIES

QUEUES: tuple[QueueName, ...] = get_args(QueueName)
WATCHES = ("watch_waiting_inserted", "watch_waiting_updated", "watch_twin_updated", "watch_twin_deleted")


class WaitingJobs:
    """Every queue may have a job until a claim has found or left none."""

    def __init__(self) -> None:
        self._changes: Counter[str] = Counter()  # of each queue
        self._empty: dict[QueueName, int] = {}  # the changes before the claim that found none
        self._noted: list[str] = []
        self._watching = False

    async def watch(self, db: aiosqlite.Connection) -> None:
        """Note from now on what this connection changes."""
        await db.create_function("job_waits", 1, self._noted.append)
        for query in WATCHES:
            await db.execute(QUERIES[query])
        self._watching = True

    def count_changes(self) -> None:
        """Count what the transaction that has just ended let wait, however it ended."""
        self._changes.update(self._noted)
        self._noted.clear()

    def changes(self) -> dict[QueueName, int]:
        """The number of changes so far: read it before a claim begins, and pass it to `found_none`."""
        return {queue: self._changes[queue] for queue in QUEUES}

    @property
    def total(self) -> int:
        """The number of changes of all queues so far: at least as many as jobs that have begun to wait."""
        return self._changes.total()

    def found_none(self, changes: Mapping[QueueName, int], *queues: QueueName) -> None:
        """A claim that began after so many changes has found, or left, no job in these queues."""
        if self._watching:
            self._empty.update((queue, changes[queue]) for queue in queues)

    def taken_at_once(self, before: Mapping[QueueName, int], queue: QueueName) -> None:
        """A job has joined this queue and left it in one transaction, since the queue had seen so many changes.

        If the queue was empty then, and no other job has joined, it is empty again.
        """
        if self._empty.get(queue) == before[queue] and self._changes[queue] == before[queue] + 1:
            self._empty[queue] += 1

    def may_wait(self, queue: QueueName) -> bool:
        """Whether this queue may have a job that a lane could claim."""
        return self._empty.get(queue) != self._changes[queue]

    def look_again(self) -> None:
        """Every queue may have a job again: for rows that were changed by another connection."""
        self._changes.update(QUEUES)
