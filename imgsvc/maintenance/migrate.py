"""Moves images from one backend to another while they are being served.

For each image: record in its row that copies may exist in the target too; copy, read back, and compare with the row's
digest; record the new backend in one fenced UPDATE; then remove the old copies. An interruption leaves the image
complete in the backend that its row names, and at worst copies in the other one, which the row names as well: the next
run or `gc` removes them, and so does a deletion of the image.
"""

import shutil
from contextlib import suppress

import anyio
import anyio.to_thread
import structlog

from ..jobs.publish import withdraw
from ..jobs.table.model import Job
from ..jobs.table.writer import DatabaseUnavailable
from ..lazy_dataclass import dataclass
from ..settings.fields import MEGABYTE
from ..storage.base import NotStored, Storage, StorageError
from .context import (
    MaintenanceContext,
    Variant,
    digest_of,
    fetched_digest,
    for_each_concurrently,
    scratch_file,
    unfinished,
    variants_of,
)
from .progress import Finding, Kind, MaintenanceFailed, Progress

log = structlog.get_logger()

AT_ONCE = 4  # images: enough to hide a store's latency, few enough to leave the disk free for requests
GIVE_UP_AFTER = 10  # consecutive images that the storage refused
LAST_STEP_SECONDS = 10.0  # how long a cancellation waits for the UPDATE and the removal of one image's old copies


class _Damaged(Exception):
    def __init__(self, kind: Kind, variant: Variant) -> None:
        super().__init__(kind)
        self.kind, self.variant = kind, variant


async def migrate(context: MaintenanceContext, progress: Progress, *, to: str, dry_run: bool) -> bool:
    """Move all images; returns whether every image is in `to` now. Running jobs and damaged images are left alone.

    Raises MaintenanceFailed: there is no such backend, or it accepts nothing.
    """
    if to not in context.storages:
        known = ", ".join(context.storages)
        raise MaintenanceFailed(f"The backend {to} is not configured; configured are: {known}.")
    moving = Moving(context, progress, to, dry_run)
    progress.begin("jobs")
    await for_each_concurrently(context.scan.jobs(progress.advance), moving.look, AT_ONCE)
    return progress.found == 0 and not progress.counts["unfinished"]


@dataclass(slots=True)
class Moving:
    context: MaintenanceContext
    progress: Progress
    to: str
    dry_run: bool
    refused: int = 0  # consecutive images

    async def look(self, job: Job) -> None:
        if job.storage_backend == self.to:
            await self._finish(job)
            return
        if unfinished(job):
            self.progress.counts["unfinished"] += 1
        if job.status != "completed":
            return
        source = self.context.storages.get(job.storage_backend)
        if source is None:
            self.progress.find(Finding("no_backend", job.storage_backend, "", job.image_id))
        elif self.dry_run:
            self._count(variants_of(job))
        else:
            await self._move(job, source)

    async def _move(self, job: Job, source: Storage) -> None:
        target, variants = self.context.storages[self.to], variants_of(job)
        if self.to == "local":
            await self._room(sum(variant.size_bytes for variant in variants))
        if not await self._noted(job):
            return
        try:
            for variant in variants:
                await self._copy(variant, source, target)
        except (_Damaged, StorageError) as error:
            await self._not_moved(job, error, target)
            return
        self.refused = 0
        # A cancellation from here on would leave files that no row names.
        moved, left = None, list(variants)
        with anyio.move_on_after(LAST_STEP_SECONDS, shield=True):
            try:
                moved = await self.context.table.files.move(job, self.to)
            except DatabaseUnavailable as error:
                raise MaintenanceFailed("The database does not accept changes; see the log.") from error
            if moved:
                self._count(variants)
                await self._remove(job, source, left)
            else:
                await self._overtaken(job, target)
        if moved is None:
            raise MaintenanceFailed("The database does not answer in time.")
        if moved:
            self._leave(source, left)

    async def _noted(self, job: Job) -> bool:
        """Record that copies may exist in the target too; returns whether the row was unchanged."""
        try:
            return await self.context.table.files.copying(job, self.to)
        except DatabaseUnavailable as error:
            raise MaintenanceFailed("The database does not accept changes; see the log.") from error

    async def _settled(self, job: Job, storage: Storage) -> None:
        with suppress(DatabaseUnavailable):  # a row that still names both backends only costs a deletion one more check
            await self.context.table.files.copies_removed(job, storage.name)

    async def _finish(self, job: Job) -> None:
        """Remove copies that an earlier run had left in the previous backend."""
        source = self.context.storages.get(job.also_in) if job.also_in else None
        if self.dry_run or source is None or job.status != "completed":
            return
        left = variants_of(job)
        await self._remove(job, source, left)
        self.progress.counts["old_copies_removed"] += len(variants_of(job)) - len(left)
        self._leave(source, left)

    def _leave(self, source: Storage, left: list[Variant]) -> None:
        if left:
            self.progress.counts["old_copies_left"] += len(left)
            log.warning("old_copies_not_removed", backend=source.name, paths=[variant.path for variant in left])

    async def _room(self, size: int) -> None:
        """Check the free space: a full disk would stop the service. Raises MaintenanceFailed."""
        storage = self.context.settings.storage
        try:
            await self.context.claim.claim()  # without any local image so far, the folder may not exist yet
            free = (await anyio.to_thread.run_sync(shutil.disk_usage, storage.path)).free
        except OSError as error:
            raise MaintenanceFailed(f"The storage folder can't be used: {error.strerror}.") from error
        if free - size < storage.reserve_mb * MEGABYTE:
            raise MaintenanceFailed(
                f"The disk is full: {free // MEGABYTE} MB are free, and {storage.reserve_mb} MB kept in reserve."
            )

    def _count(self, variants: list[Variant]) -> None:
        self.progress.counts["images"] += 1
        self.progress.counts["files"] += len(variants)
        self.progress.counts["bytes"] += sum(variant.size_bytes for variant in variants)

    async def _copy(self, variant: Variant, source: Storage, target: Storage) -> None:
        async with scratch_file(self.context.scratch) as path:
            try:
                await source.fetch(variant.bucket, variant.key, path, variant.size_bytes)
            except NotStored:
                raise _Damaged("missing", variant) from None
            if await digest_of(path) != variant.digest:
                raise _Damaged("wrong_digest", variant)
            await target.put(variant.bucket, variant.key, path)
        if await fetched_digest(self.context.scratch, target, variant) != variant.digest:
            raise StorageError("the bytes read back differ from those written")

    async def _not_moved(self, job: Job, error: _Damaged | StorageError, target: Storage) -> None:
        """Report an image that was not moved. It stays where its row says."""
        latest = await self.context.table.job(job.job_id)
        await self._overtaken(job, target)
        if latest is None or latest.storage_backend != job.storage_backend:
            return
        if isinstance(error, _Damaged):
            path = error.variant.path
            self.progress.find(Finding(error.kind, job.storage_backend, path, job.image_id))
            return
        log.warning("image_not_moved", image_id=job.image_id, to=self.to, reason=str(error))
        self.progress.find(Finding("not_moved", job.storage_backend, "", job.image_id))
        self.refused += 1
        if self.refused >= GIVE_UP_AFTER:
            raise MaintenanceFailed(f"{self.refused} images in a row could not be moved; the last one: {error}.")

    async def _overtaken(self, job: Job, target: Storage) -> None:
        """Remove the copies, unless the row names them as its own by now."""
        latest = await self.context.table.job(job.job_id)
        if latest is not None and latest.storage_backend == self.to:
            return
        _, gone = await withdraw(target, job, job.stored_keys)
        if gone:
            await self._settled(job, target)
        elif latest is None:  # the deletion's own removal may already have ended
            await self.context.table.files.list_again(job, job.paths, also_in=self.to)

    async def _remove(self, job: Job, source: Storage, left: list[Variant]) -> None:
        """Remove the old copies. Files that are gone are taken out of `left`."""
        for variant in list(left):
            try:
                await source.remove(variant.bucket, variant.key)
            except StorageError as error:
                log.warning("old_copy_not_removed", backend=source.name, path=variant.path, reason=str(error))
            else:
                left.remove(variant)
        if not left:
            await self._settled(job, source)
