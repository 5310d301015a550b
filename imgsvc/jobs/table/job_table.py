"""The job table for the rest of the house: reading jobs, and handing changes to the writer."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import anyio
import structlog

from ..retry import MAX_STARTS, Decision, Failure
from . import transactions, usage
from .database import Readers
from .model import Job, NewJob, QueueName, Status, as_text, now
from .quota import Quota, RateLimitStatus, standing
from .transactions import Accepted, Blocked, Claimed
from .usage import KEPT, MINUTE, Minute
from .writer import Change, DatabaseUnavailable, Writer

log = structlog.get_logger()

COUNTING_DELAY_SECONDS = 1.0  # a start has more urgent things to do
COUNTING_PAUSE_SECONDS = 0.02  # between two pieces: others write meanwhile
COUNT_AGAIN_SECONDS = 60.0  # after the database refused


class Observer(Protocol):
    """Told of every committed change of status, so that nobody has to ask for it."""

    def seed(self, statuses: Mapping[str, int]) -> None: ...
    def seed_minutes(self, minutes: Sequence[Minute]) -> None: ...
    def moved(self, before: str | None, after: str | None, jobs: int = 1) -> None: ...
    def ended(self, status: str, began_at: str, started_at: str | None, ended_at: str) -> None: ...


class JobTable:
    """The job table, for everybody but the writer task itself."""

    def __init__(self, readers: Readers, writer: Writer, observer: Observer) -> None:
        self._readers = readers
        self._writer = writer
        self._write = writer.write
        self._observer = observer
        self._unanswered: set[tuple[str, int, Status]] = set()  # ends of runs that may be recorded already

    async def job(self, job_id: str) -> Job | None:
        return await self._one("job", job_id=job_id)

    async def job_of_image(self, image_id: str) -> Job | None:
        return await self._one("job_of_image", image_id=image_id)

    async def wanting_source(self, job_ids: Iterable[str]) -> dict[str, bool]:
        """{job id: whether the row still names its staged file} of those that have a row, deleted ones too."""
        rows = await self._readers.fetch("wanting_source", {"job_ids": json.dumps(sorted(job_ids))})
        return {row["job_id"]: bool(row["wanted"]) for row in rows}

    async def leftovers(self, after: str, limit: int) -> list[Job]:
        rows = await self._readers.fetch("leftovers", {"after": after, "limit": limit})
        return [Job.of(row) for row in rows]

    async def leftover(self, job_id: str) -> list[Job]:
        """The job, if it still is a leftover."""
        return [Job.of(row) for row in await self._readers.fetch("leftover", {"job_id": job_id})]

    async def expired_sources(self, before: datetime, after: str, limit: int) -> list[Job]:
        values = {"before": as_text(before), "after": after, "limit": limit}
        rows = await self._readers.fetch("expired_sources", values)
        return [Job.of(row) for row in rows]

    async def next_due(self) -> datetime | None:
        rows = await self._readers.fetch("next_due", {})
        return datetime.fromisoformat(rows[0][0]) if rows[0][0] else None

    async def first_in_line(self) -> str | None:
        """When the waiting job with the lowest turn came in, or was retried; None when nothing waits."""
        rows = [await self._readers.fetch("next_waiting", {"queue": queue}) for queue in ("previews", "renders")]
        return min((Job.of(found[0]).began_at for found in rows if found), default=None)

    @property
    def damage(self) -> str:
        """What SQLite said when it met a damaged page, by whatever statement; empty: it has met none."""
        return self._writer.damage or self._readers.damage

    async def touch(self) -> None:
        """Commit a real write that leaves nothing. Raises DatabaseUnavailable."""
        await self._write(transactions.touch)

    async def images(self, image_ids: Sequence[str]) -> dict[str, Job]:
        """{image id: job} of those that exist."""
        rows = await self._readers.fetch("images", {"image_ids": json.dumps(list(image_ids))})
        return {row["image_id"]: Job.of(row) for row in rows}

    async def latest_failed(self, limit: int) -> list[Job]:
        return [Job.of(row) for row in await self._readers.fetch("latest_failed", {"limit": limit})]

    async def waiting(self) -> int:
        """How many jobs wait for a lane."""
        return int((await self._readers.fetch("waiting", {}))[0]["jobs"])

    async def standing(self, org_id: str, user_id: str, quota: Quota) -> RateLimitStatus:
        """How much of the quota is left, without taking any."""
        rows = await self._readers.fetch("rate_window", {"org_id": org_id, "user_id": user_id})
        return standing(rows[0] if rows else None, quota, now())

    async def has_key(self, org_id: str, user_id: str, key: str) -> bool:
        """Whether an upload with this idempotency key was accepted, and not too long ago."""
        rows = await self._readers.fetch("of_key", {"org_id": org_id, "user_id": user_id, "key": key})
        return bool(rows) and not transactions.key_expired(Job.of(rows[0]))

    async def seed(self) -> None:
        """Read the sums of which the observer will be told the changes. Before any other change."""
        self._observer.seed(await self._sums("jobs"))
        rows = await self._readers.fetch("minutes", {"since": as_text(now() - KEPT)[:MINUTE]})
        self._observer.seed_minutes([Minute.of(row) for row in rows])

    async def _sums(self, kind: str) -> dict[str, int]:
        return {row["name"]: row["total"] for row in await self._readers.fetch("sums", {"kind": kind})}

    async def stored_bytes(self) -> dict[str, int] | None:
        """{variant: bytes} of the completed images; None until those of an older version have been counted."""
        counted = (await self._readers.fetch("counting", {}))[0]["bytes_upto"] is None
        return await self._sums("bytes") if counted else None

    async def count(self) -> None:
        """Count what an older version left uncounted, in the background and in small pieces. Call once."""
        try:
            if all(left is None for left in (await self._readers.fetch("counting", {}))[0]):
                return
        except sqlite3.Error as error:
            log.error("counting_stopped", reason=str(error))
            return
        await anyio.sleep(COUNTING_DELAY_SECONDS)
        for piece in (self._count_minutes, self._count_bytes):
            while True:
                try:
                    if not await piece():
                        break
                    pause = COUNTING_PAUSE_SECONDS
                except (DatabaseUnavailable, sqlite3.Error) as error:
                    log.error("counting_stopped", reason=str(error), again_in_seconds=COUNT_AGAIN_SECONDS)
                    pause = COUNT_AGAIN_SECONDS
                await anyio.sleep(pause)

    async def _count_bytes(self) -> bool:
        return await self._write(usage.count_bytes)

    async def _count_minutes(self) -> bool:
        minutes, more = await self._write(usage.count_minutes)
        self._observer.seed_minutes(minutes)
        return more

    async def accept(self, new: NewJob, quota: Quota) -> Accepted:
        """Take a place and insert the job, or find the one that the same idempotency key made before.

        The receipt may be given once this has returned. Raises RateLimited, IdempotencyConflict.
        """
        accepted = await self._write(lambda db: transactions.accept(db, new, quota))
        if not accepted.replayed:
            self._observer.moved(None, "pending")
        return accepted

    async def note(self, kind: str, facts: dict[str, Any], job: Job | None = None) -> None:
        """Add an event to the audit trail that goes with no change of a job."""
        image_id, job_id = (job.image_id, job.job_id) if job else (None, None)
        await self._write(lambda db: transactions.event(db, kind, image_id, job_id, facts))

    async def delete(self, job: Job) -> Job | None:
        """Make the image gone for everybody; the row still lists the files to remove. None if it was gone already."""
        deleted = await self._write(lambda db: transactions.delete(db, job.job_id))
        if deleted is not None:
            self._observer.moved(deleted.status, None)
        return deleted

    async def drop_rate_windows(self, quota: Quota) -> None:
        await self._write(transactions.execute("drop_rate_windows", before=as_text(now() - quota.window)))

    async def drop_deleted(self, before: datetime, after: int, rows: int) -> int:
        """Of so many rows after one, drop deletions from before a time whose files are known to be gone.

        Returns after which row to go on: 0 once all have been looked at.
        """
        return await self._write(lambda db: transactions.drop_deleted(db, before, after, rows))

    async def drop_events(self, before: datetime, limit: int) -> int:
        """Forget the oldest events from before a time; returns how many went."""
        return await self._write(lambda db: transactions.drop_events(db, before, limit))

    async def claim(self, queue: QueueName, free_bytes: int, *, nothing_running: bool) -> Job | Blocked | None:
        """The next job of a queue, now running; Blocked while it does not fit; None when nobody waits."""
        claimed = await self._write(lambda db: transactions.claim(db, queue, free_bytes, nothing_running))
        if not isinstance(claimed, Claimed):
            return claimed
        self._observer.moved(claimed.before, "processing")
        return claimed.job

    async def give_back(self, job: Job) -> bool:
        return await self._end_run(job, "pending", lambda db: transactions.ended(db, "give_back", job, "given_back"))

    async def end_preview(
        self, job: Job, preview: str, paths: dict[str, str], measured: dict[str, Any], *, death: bool = False
    ) -> bool:
        """However the preview ended (done, failed, none), the job goes on to the renders."""
        values = {"preview": preview, "death": int(death), **transactions.found(paths, measured)}
        return await self._write(lambda db: transactions.ended(db, "end_preview", job, f"preview_{preview}", values))

    async def complete(self, job: Job, paths: dict[str, str], measured: dict[str, Any]) -> bool:
        values = transactions.found(paths, measured)
        return await self._end_run(
            job, "completed", lambda db: transactions.ended(db, "complete", job, "completed", values)
        )

    async def unsuccessful(self, job: Job, failure: Failure, decision: Decision) -> bool:
        """Record a failed attempt: tried again later, or failed for good."""
        if decision.outcome == "retry":
            return await self._end_run(job, "retrying", lambda db: transactions.again(db, job, failure, decision))
        return await self._end_run(job, "failed", lambda db: transactions.fail(db, job, failure, decision.retryable))

    async def _end_run(self, job: Job, status: Status, change: Change[bool]) -> bool:
        """Record how a run ended; False when the row has moved on. Raises DatabaseUnavailable.

        A change whose answer was lost may have taken effect: the second try counts as recorded then.
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
        """Let a failed job begin anew; None unless it has failed and nothing is left of it but its source."""
        retried = await self._write(lambda db: transactions.retry(db, job.job_id))
        if retried is not None:
            self._observer.moved("failed", "pending")
        return retried

    async def release_due(self, upto: datetime | None = None) -> int:
        """Put the jobs whose time has come back into their queues; returns how many.

        Those up to a time that is known to have come too, whatever the wall clock says now.
        """
        released = await self._write(lambda db: transactions.release_due(db, upto))
        self._observer.moved("retrying", "pending", released)
        return released

    async def replay(self, retry_delay_seconds: float) -> tuple[int, int]:
        """At start: what was running waits again. Returns how many were replayed and how many given up."""
        replayed, given_up = await self._write(lambda db: transactions.replay(db, retry_delay_seconds))
        self._observer.moved("processing", "failed", given_up)
        return replayed, given_up

    async def under_way(self, after: str, limit: int) -> list[tuple[str, int, bool]]:
        """A page of the jobs that are `processing`, by id: (id, run, whether it waits for its render)."""
        rows = await self._readers.fetch("under_way", {"after": after, "limit": limit})
        return [(row["job_id"], row["run"], row["queue"] is not None) for row in rows]

    async def next_in(self, queue: QueueName) -> str | None:
        """The id of the job that this queue hands out next."""
        rows = await self._readers.fetch("next_waiting", {"queue": queue})
        return rows[0]["job_id"] if rows else None

    async def recover(self, job_id: str, run: int) -> bool:
        """Hand a job out again that is `processing` in this run without anything working on it."""
        job = await self._write(lambda db: transactions.recover(db, job_id, run))
        if job is not None:
            self._observer.moved("processing", "failed" if job.starts >= MAX_STARTS else "pending")
        return job is not None

    async def source_removed(self, job: Job) -> None:
        await self._write(transactions.execute("source_removed", job_id=job.job_id))

    async def variants_removed(self, job: Job) -> None:
        await self._write(transactions.execute("variants_removed", job_id=job.job_id))

    async def list_again(self, job: Job, paths: Mapping[str, str], also_in: str | None = None) -> None:
        """A deleted job's row lists these {variant: key} once more: they were put after its files had been removed."""
        values = {"job_id": job.job_id, "processed_paths": json.dumps(dict(paths)), "also_in": also_in}
        await self._write(transactions.execute("list_again", **values))

    async def copying(self, job: Job, backend: str) -> bool:
        """From now on copies may lie in `backend` too, and a deletion removes them; False when the row has changed."""
        return await self._write(lambda db: transactions.copying(db, job, backend))

    async def settled(self, job: Job, backend: str) -> None:
        """Nothing lies in `backend` any more, the second one."""
        await self._write(transactions.execute("settled", job_id=job.job_id, backend=backend))

    async def move(self, job: Job, backend: str) -> bool:
        """From now on its variants are those in `backend`; False when the row has changed since `job` was read.

        Old copies may lie where it was, until it is `settled`.
        """
        return await self._write(lambda db: transactions.move(db, job, backend))

    async def expire_source(self, job: Job, before: datetime) -> None:
        await self._write(transactions.execute("expire_source", job_id=job.job_id, before=as_text(before)))

    async def _one(self, query: str, **values: str) -> Job | None:
        rows = await self._readers.fetch(query, values)
        return Job.of(rows[0]) if rows else None
