"""Which files the rows of jobs name, in the staging folder and in a storage, and what becomes of them.

Methods that change something raise DatabaseUnavailable, and reads raise sqlite3.Error, if the database refuses.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from . import transactions
from .database import Readers
from .model import Job, as_text, now
from .writer import Writer

SOURCE_KEPT = timedelta(hours=1)  # at most, of a completed job's upload from which a further format is made


class FileTable:
    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write

    async def wanting_source(self, job_ids: Iterable[str]) -> dict[str, bool]:
        """{job id: whether its row still names the staged file}, for jobs that have a row, deleted ones included."""
        rows = await self._readers.fetch("wanting_source", {"job_ids": json.dumps(sorted(job_ids))})
        return {row["job_id"]: bool(row["wanted"]) for row in rows}

    async def leftovers(self, after: str, limit: int) -> list[Job]:
        """A page of the rows that still name a file they no longer need, by job ID."""
        return await self._leftovers(f"{after} ", "~", limit)  # with a space it sorts right behind itself

    async def leftover(self, job_id: str) -> list[Job]:
        """The job, if it is still a leftover."""
        return await self._leftovers(job_id, job_id, 1)

    async def _leftovers(self, first: str, last: str, limit: int) -> list[Job]:
        values = {"first": first, "last": last, "limit": limit, "source_kept": as_text(now() - SOURCE_KEPT)}
        rows = await self._readers.fetch("leftovers", values)
        return [Job.of(row) for row in rows]

    async def expired_sources(self, before: datetime, after: str, limit: int) -> list[Job]:
        values = {"before": as_text(before), "after": after, "limit": limit}
        rows = await self._readers.fetch("expired_sources", values)
        return [Job.of(row) for row in rows]

    async def source_wanted(self, job: Job) -> bool:
        """Whether a further render still needs the upload of a completed job. It is kept for SOURCE_KEPT at most."""
        if not await self._readers.fetch("wanting_staged", {"job_id": job.job_id}):
            return False
        return (job.completed_at or as_text(now())) > as_text(now() - SOURCE_KEPT)

    async def source_removed(self, job: Job) -> None:
        await self._write(transactions.execute("source_removed", job_id=job.job_id), frees=True)

    async def variants_removed(self, job: Job) -> None:
        await self._write(transactions.execute("variants_removed", job_id=job.job_id), frees=True)

    async def list_again(self, job: Job, paths: Mapping[str, str], also_in: str | None = None) -> None:
        """List {variant: key} in a deleted job's row again: the files were stored after the others had been removed."""
        values = {"job_id": job.job_id, "processed_paths": json.dumps(dict(paths)), "also_in": also_in}
        await self._write(transactions.execute("list_again", **values))

    async def copying(self, job: Job, backend: str) -> bool:
        """Record that copies may exist in `backend`: a deletion then removes them too. False: the row has changed."""
        return await self._write(lambda db: transactions.copying(db, job, backend))

    async def copies_removed(self, job: Job, backend: str) -> None:
        """Clear the second backend: its copies are gone."""
        await self._write(transactions.execute("copies_removed", job_id=job.job_id, backend=backend))

    async def move(self, job: Job, backend: str) -> bool:
        """Make `backend` the home of the variants. False: the row has changed since `job` was read.

        Copies may remain in the previous backend until `copies_removed`.
        """
        return await self._write(lambda db: transactions.move(db, job, backend))

    async def expire_source(self, job: Job, before: datetime) -> None:
        await self._write(transactions.execute("expire_source", job_id=job.job_id, before=as_text(before)), frees=True)
