"""Which jobs have the same user, source and recipe: parts of the transactions that accept and complete a job."""

import aiosqlite

from .model import NewJob
from .sql import QUERIES


async def add(db: aiosqlite.Connection, new: NewJob) -> bool:
    """Record the source of a new job; returns whether another has been completed with it."""
    values = {"job_id": new.job_id, "source": new.source, "backend": new.storage_backend}
    row = await (await db.execute(QUERIES["insert_source"], values)).fetchone()
    return row is not None and row["twin"] is not None


async def any_has_twin(db: aiosqlite.Connection, *, beside: str) -> bool:
    """Whether any job beside this one has a twin, though it may be amid another run now."""
    return await (await db.execute(QUERIES["any_with_twin"], {"beside": beside})).fetchone() is not None


async def complete(db: aiosqlite.Connection, job_id: str) -> bool:
    """Make a completed job the twin of those that wait with the same source; returns whether there are any."""
    row = await (await db.execute(QUERIES["source_completed"], {"job_id": job_id})).fetchone()
    if row is None:
        return False  # accepted without reuse, or by an older version
    return (await db.execute(QUERIES["set_twins"], {"job_id": job_id, "source": row["source"]})).rowcount > 0
