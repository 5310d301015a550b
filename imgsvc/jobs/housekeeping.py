"""Removing what nobody needs any more: the second chance of everything that a crash or a full disk cut short."""

import shutil
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from ..storage.base import Storage
from .model import now
from .publish import withdraw
from .table import Table

log = structlog.get_logger()

EVERY_SECONDS = 300.0
PAGE = 100  # rows looked at in one query
FAILED_SOURCE_KEPT = timedelta(hours=24)  # an operator may want to try again; it may hold GPS, so not for ever


class Housekeeping:
    """`uploads` holds the names of staged files whose upload is still on its way to the table."""

    def __init__(self, table: Table, storage: Storage, staging: Path, uploads: set[str]) -> None:
        self._table = table
        self._storage = storage
        self._staging = staging
        self._uploads = uploads

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception as error:
                log.warning("housekeeping_failed", reason=str(error), again_in_seconds=EVERY_SECONDS)
            await anyio.sleep(EVERY_SECONDS)

    async def sweep(self) -> None:
        """Finish deletions, drop sources that were kept long enough, remove staged files that have no row."""
        await self._finish_removals()
        await self._expire_sources()
        await self._remove_orphans()

    async def _finish_removals(self) -> None:
        after = ""
        while jobs := await self._table.leftovers(after, PAGE):
            for job in jobs:
                after = job.job_id
                if job.staging_path and (job.deleted_at or job.status == "completed" or not job.retryable):
                    await self._unlink(job.staging_path)
                    await self._table.source_removed(job)
                if (job.deleted_at or job.status == "failed") and await withdraw(
                    self._storage, job, job.paths.values()
                ):
                    await self._table.variants_removed(job)

    async def _expire_sources(self) -> None:
        before = now() - FAILED_SOURCE_KEPT
        while jobs := await self._table.expired_sources(before, PAGE):
            for job in jobs:
                assert job.staging_path
                await self._unlink(job.staging_path)
                await self._table.expire_source(job, before)

    async def _remove_orphans(self) -> None:
        for name in await anyio.to_thread.run_sync(_names, self._staging):
            # The order matters: an upload leaves `uploads` only once its row can be read.
            if name not in self._uploads and not await self._table.is_staged(name):
                await self._unlink(name)
                log.info("orphan_removed", name=name)

    async def _unlink(self, name: str) -> None:
        await anyio.to_thread.run_sync(lambda: (self._staging / name).unlink(missing_ok=True))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def empty_folder(folder: Path) -> None:
    """Make `folder` exist and hold nothing (mode 0700): scratch of a process that is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
