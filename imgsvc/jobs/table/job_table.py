"""The job table's interface: reading jobs, and passing changes to the writer.

Methods that change something raise DatabaseUnavailable, and reads raise sqlite3.Error, if the database refuses.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import aiosqlite

from ...storage.thread_visit import AwaitedVisit
from ..retry import MAX_STARTS, Decision, Failure
from . import patches, transactions
from .admission_memory import AdmissionMemory
from .database import Readers
from .erasures import ErasureTable
from .events import event
from .file_table import FileTable
from .further_table import FurtherTable
from .limit_table import LimitTable
from .model import Job, NewJob, QueueName, Status, as_text, now
from .quota import Quota
from .row_memory import Key, RowMemory
from .transactions import Accepted, Blocked, Claimed
from .twin_claims import TwinClaims
from .usage import Observer
from .waiting_jobs import QUEUES, WaitingJobs
from .writer import Change, DatabaseUnavailable, Writer


class JobTable:
    """The job table. Used by everything except the writer task."""

    def __init__(
        self,
        readers: Readers,
        writer: Writer,
        observer: Observer,
        memory: RowMemory,
        waiting: WaitingJobs | None = None,
        admissions: AdmissionMemory | None = None,
    ) -> None:
        """`waiting` and `admissions` watch the writer's connection; None: every claim, or upload, asks the database."""
        self.memory = memory
        self._waiting = waiting or WaitingJobs()
        self.further = FurtherTable(readers, writer)
        self.files = FileTable(readers, writer)
        self.limits = LimitTable(readers, writer, admissions or AdmissionMemory(self._waiting))
        self.erasures = ErasureTable(readers, writer)
        self._readers = readers
        self._writer = writer
        self._write = writer.write
        self._observer = observer
        self._unanswered: set[tuple[str, int, Status]] = set()  # run ends without a confirmation
        self.twins = TwinClaims()

    async def job(self, job_id: str, *, expired: bool = False) -> Job | None:
        """A job that is not deleted, and that has not expired unless `expired`."""
        job = self.memory.get("job", job_id) or await self._fetched("job", "job", {"job_id": job_id})
        return job if job is None or expired or not job.expired else None

    async def job_of_image(self, image_id: str) -> Job | None:
        """The job of an image that is neither deleted nor expired."""
        job = self.memory.get("image", image_id) or await self._fetched("job_of_image", "image", {"image_id": image_id})
        return job if job is None or not job.expired else None

    async def patch(
        self, job: Job, changes: Mapping[str, Any], check: patches.Check, crops: patches.Crops
    ) -> patches.Patched | None:
        """Change a completed image; None if it is gone. Then wake the queue if crops are to be rendered again.

        Raises NotCompleted, and what `check` raises.
        """
        patched = await self._write(lambda db: transactions.patch(db, job.job_id, changes, check, crops))
        self.further.wake()
        return patched

    async def expired_images(self, limit: int) -> list[Job]:
        """Images whose time is over, the earliest first."""
        rows = await self._readers.fetch("expired_images", {"now": as_text(now()), "limit": limit})
        return [Job.of(row) for row in rows]

    async def next_due(self) -> datetime | None:
        rows = await self._readers.fetch("next_due", {})
        return datetime.fromisoformat(rows[0][0]) if rows[0][0] else None

    async def first_in_line(self) -> str | None:
        """When the waiting job with the lowest turn was accepted or retried (RFC 3339); None if none is waiting."""
        rows = [await self._readers.fetch("next_waiting", {"queue": queue}) for queue in ("previews", "renders")]
        return min((Job.of(found[0]).began_at for found in rows if found), default=None)

    @property
    def damage(self) -> str:
        """SQLite's message about a damaged page, from any statement; empty if none was found."""
        return self._writer.damage or self._readers.damage

    async def touch(self) -> None:
        """Commit a real write that leaves no change. Raises DatabaseUnavailable."""
        await self._write(transactions.touch)

    async def images(self, image_ids: Sequence[str]) -> dict[str, Job]:
        """{image id: job} for the images that exist and have not expired."""
        found = self.memory.get_images(image_ids)
        missing = [image_id for image_id in image_ids if image_id not in found]
        if missing:
            with self.memory.fetch() as fetch:
                for row in await self._readers.fetch("images", {"image_ids": json.dumps(missing)}):
                    job = found[row["image_id"]] = Job.of(row)
                    self.memory.keep(fetch, "image", job)
        return {image_id: job for image_id, job in found.items() if not job.expired}

    async def latest_failed(self, limit: int) -> list[Job]:
        return [Job.of(row) for row in await self._readers.fetch("latest_failed", {"limit": limit})]

    async def has_key(self, org_id: str, user_id: str, key: str) -> bool:
        """Whether an upload with this idempotency key was accepted within KEY_KEPT."""
        rows = await self._readers.fetch("of_key", {"org_id": org_id, "user_id": user_id, "key": key})
        return bool(rows) and not transactions.key_expired(Job.of(rows[0]))

    async def accept(self, new: NewJob, quota: Quota, stored: AwaitedVisit[None] | None = None) -> Accepted:
        """Count the upload against the quota and insert the job, or return the job of the same idempotency key.

        The row is committed once the file is `stored`, durably; None: it is. Once this has returned, the receipt may be
        sent. Raises RateLimited, QuotaExceeded or IdempotencyConflict, or what `stored` has raised.
        """
        wait = self.twins.reserve() if new.reuse else None
        changes, claimed = self._waiting.changes(), None
        try:
            accepted = await self._write(
                lambda db: transactions.accept(db, new, quota, claims_twin=wait is not None), after=stored
            )
            claimed = accepted.claimed
        finally:
            if wait is not None and claimed is None:
                self.twins.return_reservation(wait)
        if not accepted.replayed:
            self._observer.moved(None, "pending")
        if claimed is None:
            self.twins.look_again(accepted.has_twin)
            return accepted
        if claimed.job.job_id == new.job_id:
            self._waiting.taken_at_once(changes, "renders" if new.preview_bytes is None else "previews")
        else:
            self.twins.look_again()
        await self._hand(claimed)
        return accepted

    async def _hand(self, claimed: Claimed) -> None:
        self._observer.moved(claimed.before, "processing")
        self.twins.hand(claimed)
        if self.twins.closed:  # meanwhile: nobody takes it any more
            await self.give_back_handed()

    async def record_event(self, kind: str, facts: dict[str, Any], job: Job | None = None) -> None:
        """Add an event to the audit trail without changing a job."""
        image_id, job_id = (job.image_id, job.job_id) if job else (None, None)
        await self._write(lambda db: event(db, kind, image_id, job_id, facts))

    async def delete(self, job: Job) -> Job | None:
        """Delete the image. The row still lists the files to remove. None if the image was already deleted."""
        return await self._deleted(lambda db: transactions.delete(db, job.job_id))

    async def expire(self, job: Job) -> Job | None:
        """Delete the image if it has expired. None if it was deleted already, or expires later now."""
        return await self._deleted(lambda db: transactions.delete(db, job.job_id, only_expired=True))

    async def _deleted(self, change: Change[Job | None]) -> Job | None:
        deleted = await self._write(change, frees=True)
        if deleted is not None:
            self._observer.moved(deleted.status, None)
        return deleted

    async def drop_deleted(self, before: datetime, after: int, rows: int) -> int:
        """Drop deleted jobs from before a time whose files are gone, among the next `rows` rows after row `after`.

        Returns the row to continue after: 0 once all rows have been checked.
        """
        return await self._write(lambda db: transactions.drop_deleted(db, before, after, rows), frees=True)

    async def drop_events(self, before: datetime, limit: int) -> int:
        """Drop the oldest events from before a time; returns their number."""
        return await self._write(lambda db: transactions.drop_events(db, before, limit), frees=True)

    async def claim(self, queue: QueueName, free_bytes: int, *, nothing_running: bool) -> Job | Blocked | None:
        """Claim the next job of a queue. Blocked: it needs more than `free_bytes`. None: no job is waiting."""
        if not self._waiting.may_wait(queue):
            return None
        changes = self._waiting.changes()
        claimed = await self._write(lambda db: transactions.claim(db, queue, free_bytes, nothing_running))
        if claimed is None:
            self._waiting.found_none(changes, queue)
        if not isinstance(claimed, Claimed):
            return claimed
        if not claimed.others_wait:
            self._waiting.found_none(changes, *QUEUES)
        self._observer.moved(claimed.before, "processing")
        return claimed.job

    async def claim_with_twin(self) -> Claimed | None:
        """Claim the next job that has a twin. None: no such job is waiting."""
        self.twins.stop_waiting()
        claimed = self.twins.take()
        if claimed is None and self.twins.begin_claim():
            more = True
            try:
                claimed, more = await self._write(transactions.claim_with_twin)
            finally:
                self.twins.look_again(more)
            if claimed is not None:
                self._observer.moved(claimed.before, "processing")
        if claimed is None:
            self.twins.want()
        return claimed

    async def give_back_handed(self) -> None:
        """Requeue what the queue has not taken, which has stopped. If the database refuses, the next start does."""
        while (claimed := self.twins.take()) is not None:
            with suppress(DatabaseUnavailable):
                await self.requeue(claimed.job)

    async def decline_twin(self, job: Job, reason: str) -> bool:
        """Let a job be rendered whose twin was of no use. This is no attempt."""
        return await self._end_run(job, "pending", lambda db: transactions.decline_twin(db, job, reason))

    async def drop_twins(self) -> None:
        """Let all waiting jobs be rendered."""
        await self._write(transactions.execute("drop_twins"))

    async def requeue(self, job: Job, *, started: bool = False) -> bool:
        """Requeue a job, as if this run had never happened; with `started` it counts as a start."""
        values = {"undone": int(not started)}
        requeued = await self._end_run(
            job, "pending", lambda db: transactions.ended(db, "requeue", job, "given_back", values)
        )
        self.twins.look_again()
        return requeued

    async def end_preview(
        self, job: Job, preview: str, paths: dict[str, str], measured: dict[str, Any], *, death: bool = False
    ) -> bool:
        """End the preview (done, failed or skipped). The job moves on to the render queue."""
        values = {"preview": preview, "death": int(death), **transactions.found(paths, measured)}
        return await self._write(lambda db: transactions.ended(db, "end_preview", job, f"preview_{preview}", values))

    async def complete(
        self,
        job: Job,
        paths: dict[str, str],
        measured: dict[str, Any],
        twin: Job | None = None,
        kept: transactions.Kept | None = None,
        *,
        forgets_source: bool = False,
    ) -> bool:
        """`twin`: the job whose variants it took over. `kept`: the source that was put under the row's key.

        `forgets_source`: the row names the upload no more, which is to be removed after that.
        """
        source = {"source_bytes": kept and kept.size_bytes, "source_sha256": kept and kept.sha256}
        values, details = transactions.found(paths, measured) | source, {"twin": twin.job_id} if twin else {}

        async def complete(db: aiosqlite.Connection) -> bool:
            recorded, found_twins = await transactions.complete(
                db, job, values, forgets_source=forgets_source, **details
            )
            self.twins.look_again(found_twins)
            return recorded

        try:
            return await self._end_run(job, "completed", complete)
        finally:
            if job.recipe.further:
                self.further.wake()

    async def unsuccessful(self, job: Job, failure: Failure, decision: Decision) -> bool:
        """Record a failed attempt: the job is retried later, or has failed for good."""
        if decision.outcome == "retry":
            return await self._end_run(job, "retrying", lambda db: transactions.again(db, job, failure, decision))
        return await self._end_run(job, "failed", lambda db: transactions.fail(db, job, failure, decision.retryable))

    async def _end_run(self, job: Job, status: Status, change: Change[bool]) -> bool:
        """Record a run's end; False if the row has changed since its claim. Raises DatabaseUnavailable.

        A change whose confirmation was lost may have been committed: a second try then counts as recorded.
        """
        unanswered = (job.job_id, job.run, status)
        try:
            recorded = await self._write(change)
        except DatabaseUnavailable:
            self._unanswered.add(unanswered)
            raise
        if not recorded and unanswered in self._unanswered:
            ended = {"job_id": job.job_id, "run": job.run, "status": status}
            recorded = bool(await self._readers.fetch("ended_by", ended))
        self._unanswered.discard(unanswered)
        if recorded:
            self._observer.moved("processing", status)
            if status in ("completed", "failed"):
                self._observer.ended(status, job.began_at, job.started_at, as_text(now()))
        return recorded

    async def retry(self, job: Job) -> Job | None:
        """Restart a failed job; None unless it has failed and only its source is left."""
        retried = await self._write(lambda db: transactions.retry(db, job.job_id))
        if retried is not None:
            self._observer.moved("failed", "pending")
        return retried

    async def release_due(self, upto: datetime | None = None) -> int:
        """Requeue jobs and further renders whose next_attempt_at has passed; returns their number.

        Those due up to `upto` are included even if the wall clock is earlier: that time is known to have passed.
        """
        jobs, renders = await self._write(lambda db: transactions.release_due(db, upto))
        self._observer.moved("retrying", "pending", jobs)
        if renders:
            self.further.wake()
        return jobs + renders

    async def replay(self, retry_delay_seconds: float) -> tuple[int, int]:
        """At start: requeue the jobs that were running. Returns the numbers of requeued and of abandoned jobs."""
        replayed, given_up = await self._write(lambda db: transactions.replay(db, retry_delay_seconds))
        self._observer.moved("processing", "failed", given_up)
        return replayed, given_up

    async def under_way(self, after: str, limit: int) -> list[tuple[str, int, bool]]:
        """A page of the `processing` jobs by id: (id, run, whether it waits for its render)."""
        rows = await self._readers.fetch("under_way", {"after": after, "limit": limit})
        return [(row["job_id"], row["run"], row["queue"] is not None) for row in rows]

    @property
    def may_wait(self) -> bool:
        """Whether a job may be in a queue. False is certain, here as in the next two."""
        return any(self._waiting.may_wait(queue) for queue in QUEUES)

    def may_claim(self, queue: QueueName) -> bool:
        """Whether a lane of this queue may find a job, or a further render."""
        return self._waiting.may_wait(queue) or (queue == "renders" and self.further.may_wait)

    def look_again(self) -> None:
        """Let the next claim of each kind, and the next upload, query the database, for a change that was not seen."""
        self._waiting.look_again()
        self.twins.look_again()
        self.limits.memory.forget()

    async def next_in(self, queue: QueueName) -> str | None:
        """The id of the next job of this queue."""
        rows = await self._readers.fetch("next_waiting", {"queue": queue})
        return rows[0]["job_id"] if rows else None

    async def recover(self, job_id: str, run: int) -> bool:
        """Requeue a job that is `processing` in this run although nothing works on it."""
        job = await self._write(lambda db: transactions.recover(db, job_id, run))
        if job is not None:
            self._observer.moved("processing", "failed" if job.starts >= MAX_STARTS else "pending")
            self.twins.look_again()
        return job is not None

    async def _fetched(self, query: str, kind: Key, values: dict[str, Any]) -> Job | None:
        with self.memory.fetch() as fetch:
            rows = await self._readers.fetch(query, values)
            if not rows:
                return None
            job = Job.of(rows[0])
            self.memory.keep(fetch, kind, job)
            return job
