"""What the queries mean: reading jobs, and the changes that the writer commits.

Every change also writes its event; a change that finds its run overtaken changes nothing and returns False.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiosqlite

from .database import Readers
from .model import Job, NewJob, QueueName, as_text, now
from .retry import MAX_STARTS, Decision, Failure, runs_alone
from .sql import QUERIES
from .writer import Change, Writer


@dataclass(frozen=True, slots=True)
class Blocked:
    """The next job in line needs more memory than is free now, and nobody may overtake it for ever."""

    needs: int | None  # bytes; None: all of it


class Table:
    """The job table, for everybody but the writer task itself."""

    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write

    async def job(self, job_id: str) -> Job | None:
        return await self._one("job", job_id=job_id)

    async def job_of_image(self, image_id: str) -> Job | None:
        return await self._one("job_of_image", image_id=image_id)

    async def is_staged(self, job_id: str) -> bool:
        return bool(await self._readers.fetch(QUERIES["staged"], {"job_id": job_id}))

    async def leftovers(self, after: str, limit: int) -> list[Job]:
        rows = await self._readers.fetch(QUERIES["leftovers"], {"after": after, "limit": limit})
        return [Job.of(row) for row in rows]

    async def expired_sources(self, before: datetime, limit: int) -> list[Job]:
        rows = await self._readers.fetch(QUERIES["expired_sources"], {"before": as_text(before), "limit": limit})
        return [Job.of(row) for row in rows]

    async def next_due(self) -> datetime | None:
        rows = await self._readers.fetch(QUERIES["next_due"], {})
        return datetime.fromisoformat(rows[0][0]) if rows[0][0] else None

    async def first_in_line(self) -> str | None:
        """created_at of the waiting job with the lowest turn; None when nothing waits."""
        rows = [
            await self._readers.fetch(QUERIES["next_waiting"], {"queue": queue}) for queue in ("previews", "renders")
        ]
        return min((found[0]["created_at"] for found in rows if found), default=None)

    async def touch(self) -> None:
        """Commit a real write that leaves nothing. Raises DatabaseUnavailable."""
        await self._write(_touch)

    async def accept(self, new: NewJob) -> str:
        """Insert the job; returns its created_at. The receipt may be given once this has returned."""
        return await self._write(lambda db: _accept(db, new))

    async def claim(self, queue: QueueName, free_bytes: int, *, nothing_running: bool) -> Job | Blocked | None:
        """The next job of a queue, now running; Blocked while it does not fit; None when nobody waits."""
        return await self._write(lambda db: _claim(db, queue, free_bytes, nothing_running))

    async def give_back(self, job: Job) -> bool:
        return await self._write(lambda db: _ended(db, "give_back", job, "given_back"))

    async def end_preview(
        self, job: Job, preview: str, paths: dict[str, str], measured: dict[str, Any], *, death: bool = False
    ) -> bool:
        """However the preview ended (done, failed, none), the job goes on to the renders."""
        values = {"preview": preview, "death": int(death), **_found(paths, measured)}
        return await self._write(lambda db: _ended(db, "end_preview", job, f"preview_{preview}", values))

    async def complete(self, job: Job, paths: dict[str, str], measured: dict[str, Any]) -> bool:
        values = _found(paths, measured)
        return await self._write(lambda db: _ended(db, "complete", job, "completed", values))

    async def unsuccessful(self, job: Job, failure: Failure, decision: Decision) -> bool:
        """Record a failed attempt: tried again later, or failed for good."""
        if decision.outcome == "retry":
            return await self._write(lambda db: _again(db, job, failure, decision))
        return await self._write(lambda db: _fail(db, job, failure, decision.retryable))

    async def release_due(self) -> int:
        """Put the jobs whose time has come back into their queues; returns how many."""
        return await self._write(_release_due)

    async def replay(self, retry_delay_seconds: float) -> tuple[int, int]:
        """At start: what was running waits again. Returns how many were replayed and how many given up."""
        return await self._write(lambda db: _replay(db, retry_delay_seconds))

    async def source_removed(self, job: Job) -> None:
        await self._write(_execute("source_removed", job_id=job.job_id))

    async def variants_removed(self, job: Job) -> None:
        await self._write(_execute("variants_removed", job_id=job.job_id))

    async def expire_source(self, job: Job, before: datetime) -> None:
        await self._write(_execute("expire_source", job_id=job.job_id, before=as_text(before)))

    async def _one(self, query: str, **values: str) -> Job | None:
        rows = await self._readers.fetch(QUERIES[query], values)
        return Job.of(rows[0]) if rows else None


def _execute(query: str, **values: Any) -> Change[None]:
    async def change(db: aiosqlite.Connection) -> None:
        await db.execute(QUERIES[query], values)

    return change


async def _touch(db: aiosqlite.Connection) -> None:
    await db.execute(QUERIES["touch"], {"now": as_text(now())})
    await db.execute(QUERIES["untouch"])


async def _accept(db: aiosqlite.Connection, new: NewJob) -> str:
    created_at = as_text(now())
    values = {
        "job_id": new.job_id,
        "image_id": new.image_id,
        "storage_bucket": new.bucket,
        "staging_path": new.staging_path,
        "max_retries": new.max_attempts,
        "created_at": created_at,
        "user_id": new.user_id,
        "org_id": new.org_id,
        "original_filename": new.original_filename,
        "client_metadata": json.dumps(new.client_metadata),
        "trace_id": new.trace_id,
        "mime_type": new.mime_type,
        "content_length": new.content_length,
        "sha256": new.sha256,
        "pixels": new.pixels,
        "preview_bytes": new.preview_bytes,
        "render_bytes": new.render_bytes,
        "storage_backend": new.storage_backend,
        "recipe": new.recipe.to_json(),
        "preview": "none" if new.preview_bytes is None else "wanted",
    }
    await db.execute(QUERIES["insert_job"], values)
    await _event(db, "accepted", new.image_id, new.job_id, {"trace_id": new.trace_id, "bytes": new.content_length})
    return created_at


async def _claim(
    db: aiosqlite.Connection, queue: QueueName, free_bytes: int, nothing_running: bool
) -> Job | Blocked | None:
    row = await (await db.execute(QUERIES["next_waiting"], {"queue": queue})).fetchone()
    if row is None:
        return None
    waiting = Job.of(row)
    needs = waiting.preview_bytes if queue == "previews" else waiting.render_bytes
    alone = runs_alone(deaths=waiting.deaths, starts=waiting.starts) and queue == "renders"
    if not nothing_running and (alone or (needs or 0) > free_bytes):
        return Blocked(None if alone else needs)
    values = {"job_id": waiting.job_id, "queue": queue, "now": as_text(now())}
    claimed = await (await db.execute(QUERIES["claim"], values)).fetchone()
    assert claimed is not None
    job = Job.of(claimed)
    await _event(db, "processing", job.image_id, job.job_id, _facts(job, queue=queue))
    return job


async def _ended(
    db: aiosqlite.Connection, query: str, job: Job, event: str, values: dict[str, Any] | None = None
) -> bool:
    """Run a fenced update; the event is written only if it took effect."""
    fence = {"job_id": job.job_id, "run": job.run, "now": as_text(now())}
    cursor = await db.execute(QUERIES[query], fence | (values or {}))
    if cursor.rowcount == 0:
        return False
    code = {"code": values["code"]} if values and "code" in values else {}
    await _event(db, event, job.image_id, job.job_id, _facts(job, **code))
    return True


async def _again(db: aiosqlite.Connection, job: Job, failure: Failure, decision: Decision) -> bool:
    due = now() + timedelta(seconds=decision.delay_seconds)
    values = {
        "code": failure.code,
        "message": failure.message,
        "death": int(failure.death),
        "next_attempt_at": as_text(due),
    }
    return await _ended(db, "again_later", job, "retrying", values)


async def _fail(db: aiosqlite.Connection, job: Job, failure: Failure, retryable: bool) -> bool:
    values = {
        "code": failure.code,
        "message": failure.message,
        "death": int(failure.death),
        "attempt": int(failure.code != "interrupted"),
        "retryable": int(retryable),
        "processed_paths": json.dumps({variant.name: job.key(variant.name) for variant in job.recipe.variants}),
    }
    return await _ended(db, "fail", job, "failed", values)


async def _release_due(db: aiosqlite.Connection) -> int:
    return len(list(await db.execute_fetchall(QUERIES["release_due"], {"now": as_text(now())})))


async def _replay(db: aiosqlite.Connection, retry_delay_seconds: float) -> tuple[int, int]:
    replayed = given_up = 0
    latest = as_text(now() + timedelta(seconds=retry_delay_seconds))
    await db.execute(QUERIES["clamp_retries"], {"latest": latest})
    for row in await db.execute_fetchall(QUERIES["interrupted"]):
        job = Job.of(row)
        if job.queue is not None:
            continue
        if job.starts >= MAX_STARTS:
            failure = Failure("interrupted", f"The service ended {job.starts} times while it worked on this image.")
            given_up += await _fail(db, job, failure, retryable=True)
        else:
            replayed += await _ended(db, "replay", job, "replayed")
    await db.execute(QUERIES["replay_waiting"])
    return replayed, given_up


def _found(paths: dict[str, str], measured: dict[str, Any]) -> dict[str, str]:
    return {"processed_paths": json.dumps(paths), "processing_metadata": json.dumps(measured)}


def _facts(job: Job, **more: Any) -> dict[str, Any]:
    return {"trace_id": job.trace_id, "run": job.run, **more}


async def _event(
    db: aiosqlite.Connection, kind: str, image_id: str | None, job_id: str | None, facts: dict[str, Any]
) -> None:
    values = {
        "event_type": kind,
        "image_id": image_id,
        "job_id": job_id,
        "metadata": json.dumps(facts),
        "created_at": as_text(now()),
    }
    await db.execute(QUERIES["insert_event"], values)
