"""The memory of completed rows, so that reading an image that was read before takes no statement.

It is exact: one process owns the table, and one connection writes. Triggers on that connection note every change of a
completed row, whichever statement makes it, and the row is forgotten in the step in which its transaction ends, before
the caller of the change is answered. A row is kept only if it was not forgotten since before its query began.

The memory holds data and no decision: each request judges signature, organisation and permission again.
"""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import aiosqlite

from ...storage.bounded_memory import BoundedMemory, Fetch
from .model import Job
from .sql import QUERIES

Key = Literal["job", "image"]  # whether an id is that of the job or of its image

# What a row takes in memory, at most: itself, and each of its texts with what is parsed from it and kept as JSON.
ROW_BYTES, PARSED = 4096, 9


class RowMemory:
    """Counts `hits` and `misses`: reads that took no statement, and those that took one. Off, it counts nothing."""

    def __init__(self, memory: BoundedMemory) -> None:
        self.hits = self.misses = 0
        self._memory = memory
        self._changed: list[tuple[str, str]] = []

    async def watch(self, db: aiosqlite.Connection) -> None:
        """Note from now on what this connection changes."""
        await db.create_function("completed_row_changed", 2, self._note)
        for query in ("watch_completed_updated", "watch_completed_deleted"):
            await db.execute(QUERIES[query])

    def _note(self, job_id: str, image_id: str) -> None:
        """Called in the connection's thread."""
        self._changed.append((job_id, image_id))

    def forget_changed(self) -> None:
        """Forget the rows of the transaction that has just ended, however it ended."""
        changed, self._changed = self._changed, []
        for job_id, image_id in changed:
            self._memory.forget(_key("job", job_id))
            self._memory.forget(_key("image", image_id))

    def clear(self) -> None:
        """Forget everything: for rows that were changed past the writer."""
        self._memory.clear()

    def get(self, kind: Key, id: str) -> Job | None:
        found: Job | None = self._memory.get(_key(kind, id))
        if found is not None:
            self.hits += 1
        elif self._memory.max_bytes:
            self.misses += 1
        return found

    def get_images(self, image_ids: Sequence[str]) -> dict[str, Job]:
        """{image id: job} of those that are in memory."""
        get = self._memory.get
        found = {image_id: job for image_id in image_ids if (job := get(("image", image_id))) is not None}
        self.hits += len(found)
        if self._memory.max_bytes:
            self.misses += len(image_ids) - len(found)
        return found

    def fetch(self) -> AbstractContextManager[Fetch]:
        """Begin before the query that `keep` is to keep the row of."""
        return self._memory.fetch()

    def keep(self, fetch: Fetch, kind: Key, job: Job) -> None:
        """Keep the row if it is that of a completed job, and has not changed since the fetch began."""
        if job.status != "completed" or job.deleted_at:
            return
        size = ROW_BYTES + PARSED * job.text_length
        self._memory.put(fetch, _key(kind, job.job_id if kind == "job" else job.image_id), job, size)


def _key(kind: Key, id: str) -> Hashable:
    return (kind, id)
