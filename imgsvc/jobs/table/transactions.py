"""The changes that the writer commits. Each is a function on its connection and runs in one transaction.

A change writes its audit event too. Changes by a run are fenced with its run number (Kleppmann 2016): if the job was
claimed again or deleted, the function changes nothing and returns False.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import aiosqlite

from ...lazy_dataclass import dataclass
from ..retry import MAX_STARTS, Decision, Failure, exclusive
from . import byte_quota, credentials, erasure, further_changes, further_formats, patches, sources
from .events import event
from .model import Job, NewJob, QueueName, as_text, folded, now
from .quota import Quota, RateLimitStatus, Window, acquire, standing
from .sql import QUERIES
from .writer import Change

KEY_KEPT = timedelta(hours=24)  # how long an idempotency key is kept


@dataclass(frozen=True, slots=True)
class Blocked:
    """The next job needs more memory than is free now. No other job may be claimed first, or it could wait forever."""

    needs: int | None  # bytes; None: all of it


@dataclass(frozen=True, slots=True)
class Claimed:
    job: Job
    before: str
    twin: Job | None = None  # whose variants it takes over; None: rendered, or the twin is gone
    others_wait: bool = True  # whether another job was in a queue then


class Kept(Protocol):
    """A source that was put: its size in bytes and its SHA-256 in hex."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """The row of a receipt: a new one, or with `replayed` the existing one of the same idempotency key."""

    job: Job
    standing: RateLimitStatus
    replayed: bool = False
    has_twin: bool = False
    claimed: Claimed | None = None  # with it: usually this job


class IdempotencyConflict(Exception):
    """The key was used before with other bytes, another bucket or other metadata."""


def execute(query: str, **values: Any) -> Change[None]:
    async def change(db: aiosqlite.Connection) -> None:
        await db.execute(QUERIES[query], values)

    return change


async def touch(db: aiosqlite.Connection) -> None:
    await db.execute(QUERIES["touch"], {"now": as_text(now())})
    await db.execute(QUERIES["untouch"])


def key_expired(job: Job) -> bool:
    return datetime.fromisoformat(job.created_at) < now() - KEY_KEPT


async def accept(db: aiosqlite.Connection, new: NewJob, quota: Quota, *, claims_twin: bool = False) -> Accepted:
    """`claims_twin`: if the job has a twin, the next job that has one is claimed as well."""
    await erasure.require_none(db, new.org_id, new.user_id, new.erasures_seen)
    if new.idempotency_key is not None:
        values = {"org_id": new.org_id, "user_id": new.user_id, "key": new.idempotency_key}
        row = await (await db.execute(QUERIES["of_key"], values)).fetchone()
        if row is not None and not key_expired(Job.of(row)):
            if row["idempotency_digest"] != new.idempotency_digest:
                raise IdempotencyConflict
            window = await (await db.execute(QUERIES["rate_window"], values)).fetchone()
            return Accepted(Job.of(row), standing(Window.of(window), quota, now()), replayed=True)
        if row is not None:
            await db.execute(QUERIES["free_key"], {"job_id": row["job_id"]})
    await credentials.require_key(db, new.key_id)
    await credentials.spend(db, new.ticket_id)
    await byte_quota.require(db, new.org_id, new.user_id, quota.byte_limits, new.content_length)
    place = await acquire(db, new.org_id, new.user_id, quota)
    row = await insert(db, new)
    has_twin = new.reuse and await sources.add(db, new)
    claimed = await _next_with_twin(db) if has_twin and claims_twin else None
    return Accepted(Job.of(row), place, has_twin=has_twin, claimed=claimed)


async def insert(db: aiosqlite.Connection, new: NewJob) -> aiosqlite.Row:
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
        "folded_name": folded(new.original_filename),
        "expires_at": new.expires_at,
        "ticket_id": new.ticket_id,
        "source_key": new.source_key,
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
        "idempotency_key": new.idempotency_key,
        "idempotency_digest": new.idempotency_digest,
        "preview": "none" if new.preview_bytes is None else "wanted",
    }
    row = await (await db.execute(QUERIES["insert_job"], values)).fetchone()
    assert row is not None
    await event(db, "accepted", new.image_id, new.job_id, {"trace_id": new.trace_id, "bytes": new.content_length})
    if new.fetched_from is not None:
        details = {"trace_id": new.trace_id, "host": new.fetched_from}
        await event(db, "fetched", new.image_id, new.job_id, details)
    return row


async def delete(db: aiosqlite.Connection, job_id: str, *, only_expired: bool = False) -> Job | None:
    """Returns the deleted job, whose row lists its files; None if it was deleted before, or has not expired (yet)."""
    row = await (await db.execute(QUERIES["job"], {"job_id": job_id})).fetchone()
    if row is None:
        return None
    job = Job.of(row)
    if only_expired and not job.expired:
        return None
    await further_changes.delete_of(db, job)
    keys = {variant.name: job.key(variant.name) for variant in job.recipe.variants} | job.paths
    await db.execute(QUERIES["delete"], {"job_id": job_id, "now": as_text(now()), "processed_paths": json.dumps(keys)})
    await db.execute(QUERIES["drop_source"], {"job_id": job_id})
    await event(db, "expired" if only_expired else "deleted", job.image_id, job.job_id, facts(job, status=job.status))
    return replace(job, paths_text=json.dumps(keys), deleted_at=as_text(now()))


async def patch(
    db: aiosqlite.Connection, job_id: str, changes: Mapping[str, Any], check: patches.Check, crops: patches.Crops
) -> patches.Patched | None:
    """As `patches.patch`, with the audit event, which names the members and not what they say."""
    patched = await patches.patch(db, job_id, changes, check, crops)
    if patched is not None:
        job = patched.job
        await event(db, "updated", job.image_id, job.job_id, facts(job, members=sorted(changes)))
    return patched


async def drop_deleted(db: aiosqlite.Connection, before: datetime, after: int, rows: int) -> int:
    values = {"before": as_text(before), "after": after, "upto": after + rows}
    await db.execute(QUERIES["drop_deleted"], values)
    (last,) = next(iter(await db.execute_fetchall(QUERIES["last_row"])))
    return after + rows if after + rows < last else 0


async def drop_events(db: aiosqlite.Connection, before: datetime, limit: int) -> int:
    return (await db.execute(QUERIES["drop_events"], {"before": as_text(before), "limit": limit})).rowcount


async def claim(
    db: aiosqlite.Connection, queue: QueueName, free_bytes: int, nothing_running: bool
) -> Claimed | Blocked | None:
    query = "next_preview" if queue == "previews" else "next_waiting"
    row = await (await db.execute(QUERIES[query], {"queue": queue})).fetchone()
    if row is None:
        return None
    waiting = Job.of(row)
    needs = waiting.preview_bytes if queue == "previews" else waiting.render_bytes
    alone = exclusive(deaths=waiting.deaths, starts=waiting.starts) and queue == "renders"
    if not nothing_running and (alone or (needs or 0) > free_bytes):
        return Blocked(None if alone else needs)
    claimed = await _claimed(db, waiting, queue)
    return replace(claimed, others_wait=bool(await db.execute_fetchall(QUERIES["any_waiting"])))


async def claim_with_twin(db: aiosqlite.Connection) -> tuple[Claimed | None, bool]:
    """Claim the next job whose variants another has; returns too whether there may be more such jobs."""
    claimed = await _next_with_twin(db)
    return claimed, await sources.any_has_twin(db, beside=claimed.job.job_id if claimed else "")


async def _next_with_twin(db: aiosqlite.Connection) -> Claimed | None:
    row = await (await db.execute(QUERIES["next_with_twin"])).fetchone()
    if row is None:
        return None
    waiting = Job.of(row)
    assert waiting.queue is not None
    twin = await (await db.execute(QUERIES["job"], {"job_id": row["twin"]})).fetchone()
    return replace(await _claimed(db, waiting, waiting.queue), twin=Job.of(twin) if twin else None)


async def _claimed(db: aiosqlite.Connection, waiting: Job, queue: QueueName) -> Claimed:
    values = {"job_id": waiting.job_id, "queue": queue, "now": as_text(now())}
    query = "claim_again" if waiting.status == "processing" else "claim"
    claimed = await (await db.execute(QUERIES[query], values)).fetchone()
    assert claimed is not None
    job = Job.of(claimed)
    await event(db, "processing", job.image_id, job.job_id, facts(job, queue=queue))
    return Claimed(job, waiting.status)


async def ended(
    db: aiosqlite.Connection, query: str, job: Job, kind: str, values: dict[str, Any] | None = None, **details: str
) -> bool:
    """Run a fenced update and, only if it changed the row, write its event with the further facts `details`."""
    fence = {"job_id": job.job_id, "run": job.run, "now": as_text(now())}
    cursor = await db.execute(QUERIES[query], fence | (values or {}))
    if cursor.rowcount == 0:
        return False
    code = {"code": values["code"]} if values and "code" in values else {}
    await event(db, kind, job.image_id, job.job_id, facts(job, **code, **details))
    return True


async def complete(
    db: aiosqlite.Connection, job: Job, values: dict[str, Any], *, forgets_source: bool = False, **details: str
) -> tuple[bool, bool]:
    """Returns whether the row was changed, and whether other jobs have got a twin by it."""
    if not await ended(db, "complete", job, "completed", values, **details):
        return False, False
    if forgets_source:
        await _forget_source(db, job)
    await further_formats.order_formats(db, job)
    return True, await sources.complete(db, job.job_id)


async def _forget_source(db: aiosqlite.Connection, job: Job) -> None:
    """The job is completed even if that is refused: housekeeping makes up for it."""
    try:
        await db.execute(QUERIES["source_removed"], {"job_id": job.job_id})
    except sqlite3.Error:
        if not db.in_transaction:
            raise


async def decline_twin(db: aiosqlite.Connection, job: Job, reason: str) -> bool:
    """Undo the claim of a job that its twin was of no use to: the job is rendered."""
    if not await ended(db, "requeue", job, "twin_declined", {"undone": 1}, reason=reason):
        return False
    await db.execute(QUERIES["drop_twin"], {"job_id": job.job_id})
    return True


async def again(db: aiosqlite.Connection, job: Job, failure: Failure, decision: Decision) -> bool:
    due = now() + timedelta(seconds=decision.delay_seconds)
    values = {
        "code": failure.code,
        "message": failure.message,
        "death": int(failure.death),
        "next_attempt_at": as_text(due),
    }
    return await ended(db, "again_later", job, "retrying", values)


async def fail(db: aiosqlite.Connection, job: Job, failure: Failure, retryable: bool) -> bool:
    values = {
        "code": failure.code,
        "message": failure.message,
        "death": int(failure.death),
        "attempt": int(failure.code != "interrupted"),
        "retryable": int(retryable),
        "processed_paths": json.dumps({variant.name: job.key(variant.name) for variant in job.recipe.variants}),
    }
    if not await ended(db, "fail", job, "failed", values):
        return False
    await db.execute(QUERIES["drop_source"], {"job_id": job.job_id})
    return True


async def retry(db: aiosqlite.Connection, job_id: str) -> Job | None:
    row = await (await db.execute(QUERIES["retry"], {"job_id": job_id, "now": as_text(now())})).fetchone()
    if row is None:
        return None
    job = Job.of(row)
    await event(db, "retried", job.image_id, job.job_id, facts(job, by="operator"))
    return job


async def copying(db: aiosqlite.Connection, job: Job, backend: str) -> bool:
    values = {"job_id": job.job_id, "run": job.run, "before": job.storage_backend, "backend": backend}
    return (await db.execute(QUERIES["copying"], values)).rowcount > 0


async def move(db: aiosqlite.Connection, job: Job, backend: str) -> bool:
    values = {"job_id": job.job_id, "run": job.run, "before": job.storage_backend, "backend": backend}
    if (await db.execute(QUERIES["move"], values)).rowcount == 0:
        return False
    details = facts(job, before=job.storage_backend, after=backend)
    await event(db, "moved", job.image_id, job.job_id, details)
    return True


async def release_due(db: aiosqlite.Connection, upto: datetime | None) -> tuple[int, int]:
    """Returns the numbers of jobs and of further renders."""
    values = {"now": as_text(max(now(), upto) if upto else now())}
    jobs = len(list(await db.execute_fetchall(QUERIES["release_due"], values)))
    return jobs, (await db.execute(QUERIES["release_due_renders"], values)).rowcount


async def replay(db: aiosqlite.Connection, retry_delay_seconds: float) -> tuple[int, int]:
    replayed = given_up = 0
    latest = as_text(now() + timedelta(seconds=retry_delay_seconds))
    await db.execute(QUERIES["clamp_retries"], {"latest": latest})
    for row in await db.execute_fetchall(QUERIES["interrupted"]):
        job = Job.of(row)
        if job.queue is not None:
            continue
        went = await _restart(db, job)
        replayed += went == "pending"
        given_up += went == "failed"
    await db.execute(QUERIES["replay_waiting"])
    return replayed, given_up


async def recover(db: aiosqlite.Connection, job_id: str, run: int) -> Job | None:
    """Restart a job that no run works on, as at a start; returns the previous row, None if it has changed."""
    row = await (await db.execute(QUERIES["lost"], {"job_id": job_id, "run": run})).fetchone()
    if row is None:
        return None
    job = Job.of(row)
    return job if await _restart(db, job) else None


async def _restart(db: aiosqlite.Connection, job: Job) -> Literal["pending", "failed"] | None:
    """Restart or fail a job whose run was interrupted; returns the new status, None if its row has changed."""
    if job.starts < MAX_STARTS:
        return "pending" if await ended(db, "replay", job, "replayed") else None
    failure = Failure("interrupted", f"The service ended {job.starts} times while it worked on this image.")
    return "failed" if await fail(db, job, failure, retryable=True) else None


def found(paths: dict[str, str], measured: dict[str, Any]) -> dict[str, str]:
    return {"processed_paths": json.dumps(paths), "processing_metadata": json.dumps(measured)}


def facts(job: Job, **more: Any) -> dict[str, Any]:
    return {"trace_id": job.trace_id, "run": job.run, **more}
