"""The changes by which a person is erased. Each is a function on the writer's connection, in one transaction.

Each reads the operation's row, which names the person, and stores how far it has come: a kill between two repeats
nothing and leaves out nothing. SQLite overwrites what they remove (`secure_delete`), and leaves none of it in free
pages.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite

from . import transactions
from .events import event
from .model import Job, as_text, now
from .sql import QUERIES

TABLES = (  # (statement, what it counts)
    ("erase_keys", "keys"),
    ("erase_tickets", "tickets"),
    ("erase_windows", "rate_limit_windows"),
    ("erase_usage", ""),
)


async def erasure_event(db: aiosqlite.Connection, kind: str, erasure_id: str) -> None:
    await event(db, kind, None, None, {"erasure_id": erasure_id})


async def delete_page(db: aiosqlite.Connection, number: int, limit: int) -> list[Job]:
    row = await _row(db, number)
    who = {"org_id": row["org_id"], "user_id": row["user_id"], "limit": limit}
    listed = [Job.of(found) for found in await db.execute_fetchall(QUERIES["jobs_of_person"], who)]
    deleted = []
    async with _overwriting(db):
        for job in listed:
            gone = await transactions.delete(db, job.job_id)
            assert gone is not None, "the same transaction has found it"
            values = {"number": number, "job_id": job.job_id, "mark": row["mark"]}
            for query in ("erase_job", "note_erased_job", "erase_events_of_job"):
                await db.execute(QUERIES[query], values)
            deleted.append(gone)
        removed = await _forget_deliveries(db, deleted)
    counts = Counter({"images": len(deleted), "deliveries": removed})
    await _store(db, row, "images" if deleted else "tables", counts)
    return deleted


async def _forget_deliveries(db: aiosqlite.Connection, jobs: list[Job]) -> int:
    """Outbox and delivery log; returns how many deliveries."""
    values = {"job_ids": json.dumps([job.job_id for job in jobs])}
    await db.execute(QUERIES["erase_attempts"], values)
    return (await db.execute(QUERIES["erase_deliveries"], values)).rowcount


async def clear(db: aiosqlite.Connection, number: int, query: str, what: str) -> None:
    row = await _row(db, number)
    async with _overwriting(db):
        removed = (await db.execute(QUERIES[query], {"org_id": row["org_id"], "user_id": row["user_id"]})).rowcount
    await _store(db, row, "tables", Counter({what: removed} if what else {}))


async def advance(db: aiosqlite.Connection, number: int, step: str) -> None:
    await _store(db, await _row(db, number), step, Counter())


async def clear_events(db: aiosqlite.Connection, number: int, rows: int) -> bool:
    row = await _row(db, number)
    (last,) = next(iter(await db.execute_fetchall(QUERIES["last_event"])))
    upto = min(row["position"] + rows, last)
    async with _overwriting(db):
        changed = await _replace_names(db, row, upto)
    more = bool(upto < last)
    await _store(db, row, "events" if more else "files", Counter({"events": changed}), position=upto)
    return more


async def add(db: aiosqlite.Connection, number: int, counts: Counter[str]) -> None:
    row = await _row(db, number)
    await _store(db, row, row["step"], counts)


async def end(db: aiosqlite.Connection, number: int) -> bool:
    """Look once more for what has come since each step, such as the denial of a request that was under way."""
    row = await _row(db, number)
    who = {"org_id": row["org_id"], "user_id": row["user_id"], "limit": 1}
    if await db.execute_fetchall(QUERIES["jobs_of_person"], who):
        await _store(db, row, "images", Counter())
        return False
    if await db.execute_fetchall(QUERIES["erased_jobs_with_files"], {"number": number, "after": "", "limit": 1}):
        return False
    counts = Counter(json.loads(row["counts"]))
    async with _overwriting(db):
        for query, what in TABLES:
            counts[what] += (await db.execute(QUERIES[query], who)).rowcount
        (last,) = next(iter(await db.execute_fetchall(QUERIES["last_event"])))
        counts["events"] += await _replace_names(db, row, last)
        for query in ("clear_erased_jobs", "clear_retired_keys", "drop_erased_jobs"):
            await db.execute(QUERIES[query], {"number": number, "mark": row["mark"]})
        del counts[""]
        values = {"number": number, "counts": json.dumps(counts), "now": as_text(now())}
        await db.execute(QUERIES["erasure_ended"], values)
    await erasure_event(db, "person_erased", row["erasure_id"])
    return True


async def _replace_names(db: aiosqlite.Connection, row: aiosqlite.Row, upto: int) -> int:
    values = {
        "after": row["position"],
        "upto": upto,
        "org_id": row["org_id"],
        "user_id": row["user_id"],
        "mark": row["mark"],
    }
    return (await db.execute(QUERIES["erase_events"], values)).rowcount


async def _row(db: aiosqlite.Connection, number: int) -> aiosqlite.Row:
    return next(iter(await db.execute_fetchall(QUERIES["erasure_of_number"], {"number": number})))


async def _store(db: aiosqlite.Connection, row: aiosqlite.Row, step: str, more: Counter[str], **position: int) -> None:
    counts = Counter(json.loads(row["counts"]))
    counts.update(more)
    values: dict[str, Any] = {"number": row["number"], "position": row["position"], **position}
    await db.execute(QUERIES["erasure_step"], values | {"step": step, "counts": json.dumps(counts)})


@asynccontextmanager
async def _overwriting(db: aiosqlite.Connection) -> AsyncIterator[None]:
    """Meanwhile this connection overwrites with zeros what it removes, instead of leaving it in free pages."""
    (before,) = next(iter(await db.execute_fetchall("PRAGMA secure_delete")))
    await db.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        await db.execute(f"PRAGMA secure_delete = {int(before)}")
