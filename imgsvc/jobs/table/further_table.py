"""The interface of `renders` and `retired_keys`: what is made of completed images later, and what that replaces.

Methods that change something raise DatabaseUnavailable, and reads raise sqlite3.Error, if the database refuses.
"""

from ..retry import Decision, Failure
from . import further_changes
from .database import Readers
from .further_changes import MadeFiles
from .further_render import ClaimedRender, FurtherRender, Kind, NewRender, RetiredKey
from .model import Job, as_text, now
from .sql import QUERIES
from .transactions import execute
from .writer import Writer


class FurtherTable:
    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write
        self._may_wait = True  # rows: after a start, nothing is known of them
        self._claiming = 0  # claims under way, which may leave one that had no memory

    def wake(self) -> None:
        """Look for waiting rows at the next claim. Call after a change that makes one claimable."""
        self._may_wait = True

    @property
    def may_wait(self) -> bool:
        """Whether a row may wait. False is certain."""
        return self._may_wait or self._claiming > 0

    async def order(self, job: Job, new: NewRender) -> FurtherRender | None:
        """Have variants made. None: the image is not completed, or was deleted. Then wake the queue."""
        render = await self._write(lambda db: further_changes.order(db, job.job_id, new))
        self.wake()
        return render

    async def waiting_focal(self, job: Job) -> FurtherRender | None:
        """The crops of an image that are being made around another point; None: none are."""
        rows = await self._readers.select("waiting_focal", QUERIES["waiting_focal"], {"job_id": job.job_id})
        return FurtherRender.of(rows[0]) if rows else None

    async def claim(self, free_bytes: int, *, nothing_running: bool, held: bool = False) -> ClaimedRender | None:
        """Claim the next row. None: none waits, an upload waits, or the next one needs more than `free_bytes`.

        `held`: a backup keeps files from being removed, so what a task ordered waits.
        """
        if not self._may_wait:
            return None
        self._may_wait = False
        self._claiming += 1
        more = True
        try:
            claimed, more = await self._write(lambda db: further_changes.claim(db, free_bytes, nothing_running, held))
        finally:
            self._claiming -= 1
            self._may_wait |= more
        return claimed

    async def finish(self, render: FurtherRender, made: MadeFiles) -> bool:
        """Record what was made. False: the row was replaced or its image changed since the claim."""
        return await self._write(lambda db: further_changes.finish(db, render, made)) is not None

    async def overtaken(self, job: Job, render: FurtherRender) -> None:
        """After `finish` was refused: run again where the image is now, or list the files for removal."""
        await self._write(lambda db: further_changes.overtaken(db, job, render), frees=True)
        self.wake()

    async def requeue(self, job: Job, render: FurtherRender) -> None:
        await self._write(lambda db: further_changes.ended(db, "requeue_render", job, render, "render_requeued"))
        self.wake()

    async def unsuccessful(self, job: Job, render: FurtherRender, failure: Failure, decision: Decision) -> bool:
        """Record a failed attempt. False: the row was replaced or its image deleted in between."""
        if decision.outcome == "fail":
            return await self._write(lambda db: further_changes.fail(db, job, render, failure))
        recorded = await self._write(lambda db: further_changes.again(db, job, render, failure, decision))
        self.wake()
        return recorded

    async def replay(self) -> tuple[int, int]:
        """At start: requeue what was running. Returns the numbers of requeued and of abandoned rows."""
        return await self._write(further_changes.replay)

    async def drop_sources(self, limit: int) -> tuple[int, int]:
        """Forget so many kept sources, and list their files for removal. Returns the images and the bytes."""
        return await self._write(lambda db: further_changes.drop_sources(db, limit), frees=True)

    async def redirect(self, job: Job, key: str) -> str | None:
        """The variant that has replaced this key, as long as its URL leads there."""
        values = {"job_id": job.job_id, "bucket": job.storage_bucket, "key": key, "now": as_text(now())}
        rows = await self._readers.fetch("redirect", values)
        return rows[0]["variant"] if rows else None

    async def waits(self, job: Job, kind: Kind) -> bool:
        """Whether a row of this kind is still to be made."""
        return bool(await self._readers.fetch("waits", {"job_id": job.job_id, "kind": kind}))

    async def retired(self, after: int, limit: int) -> list[RetiredKey]:
        """A page of the files whose time is over, by their ids."""
        values = {"now": as_text(now()), "after": after, "limit": limit}
        return [RetiredKey.of(row) for row in await self._readers.fetch("retired_due", values)]

    async def retired_of(self, job: Job) -> list[RetiredKey]:
        """Those of one image."""
        values = {"now": as_text(now()), "job_id": job.job_id}
        return [RetiredKey.of(row) for row in await self._readers.fetch("retired_due_of", values)]

    async def retired_removed(self, retired: RetiredKey) -> None:
        await self._write(execute("retired_removed", key_id=retired.key_id), frees=True)

    async def drop_retired(self) -> None:
        await self._write(execute("drop_retired", now=as_text(now())), frees=True)
