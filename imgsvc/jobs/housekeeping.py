"""Periodic cleanup: finishes removals that a crash or a full disk interrupted, and applies the retention times."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread
import structlog

from ..settings import Settings
from ..storage.base import Storage, StorageError
from .clocks import Clocks
from .deletion_hold import DeletionHold
from .incoming import Incoming
from .publish import WITHDRAW_SECONDS, withdraw
from .retired_files import RetiredFiles
from .space_reserve import SpaceReserve
from .staging_area import KEPT, Staged, StagingArea
from .table.credentials import Credentials
from .table.job_table import JobTable
from .table.model import Job, as_text, now
from .table.quota import Quota
from .table.webhook_table import WebhookTable

if TYPE_CHECKING:
    from .data_folder import DataFolder

log = structlog.get_logger()

EVERY_SECONDS = 300.0
TOGETHER = 500  # staged files that are listed, and whose rows are read, at a time
DELETED_PAGE = 5_000  # rows
PAGE = 100  # rows read in one query
REFUSALS = 3  # consecutive failures after which a storage is skipped until the next sweep: each may take 20 s


class Housekeeping:
    """`staging_area` knows which staged files belong to an upload that has no row yet."""

    def __init__(
        self,
        table: JobTable,
        storages: Mapping[str, Storage],
        staging_area: StagingArea,
        *,
        quota: Quota,
        source_kept: timedelta,
        events_kept: timedelta,
        deleted_kept: timedelta = timedelta(0),
        hold: DeletionHold | None = None,
        space_reserve: SpaceReserve | None = None,
        webhooks: WebhookTable | None = None,
        clocks: Clocks | None = None,
        credentials: Credentials | None = None,
        incoming: Incoming | None = None,
    ) -> None:
        self._table = table
        self._storages = storages
        self._staging_area = staging_area
        self._quota = quota
        self._source_kept = source_kept
        self._events_kept = events_kept
        self._deleted_kept = deleted_kept  # 0: kept forever
        self._deleted_upto = 0  # the row up to which deleted jobs have been checked
        self._hold = hold or DeletionHold()
        self._space_reserve = space_reserve
        self._retired = RetiredFiles(table.further, storages, self._hold)
        self._webhooks = webhooks
        self._clocks = clocks or Clocks()
        self._credentials = credentials
        self._incoming = incoming
        self._wanted = anyio.Event()
        self._removing = anyio.Lock()
        self._deletions: list[str] = []  # job IDs; twice if two requests delete the same image

    @classmethod
    def of(
        cls,
        settings: Settings,
        data: "DataFolder",
        storages: Mapping[str, Storage],
        hold: DeletionHold,
        incoming: Incoming | None = None,
    ) -> Self:
        """Build from the settings, for the service and for stand-alone commands.

        `storages` must contain every backend that a row may name: files are removed from the row's own backend.
        """
        return cls(
            data.table,
            storages,
            data.staging_area,
            quota=Quota.of(settings.rate_limit),
            source_kept=timedelta(hours=settings.jobs.failed_source_hours),
            events_kept=timedelta(days=settings.jobs.events_days),
            deleted_kept=timedelta(days=settings.jobs.deleted_rows_days),
            hold=hold,
            space_reserve=data.space_reserve,
            webhooks=data.webhooks,
            clocks=data.clocks,
            credentials=data.credentials,
            incoming=incoming,
        )

    @property
    def holds_back(self) -> bool:
        """Whether a backup suspends removals."""
        return self._hold.active

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the lock for removing files that a row lists: a restarted job must not lose its own."""
        async with self._removing:
            yield

    @contextmanager
    def deletion(self, job_id: str) -> Iterator[None]:
        """Leave the files of a row that is about to be marked to the deletion, which counts what it removes."""
        self._deletions.append(job_id)
        try:
            yield
        finally:
            self._deletions.remove(job_id)

    async def run(self) -> None:
        while True:
            self._wanted = anyio.Event()
            await self.sweep()
            with anyio.move_on_after(EVERY_SECONDS):
                await self._wanted.wait()

    def sweep_soon(self) -> None:
        """Make `run` begin its next sweep as soon as the current one has ended."""
        self._wanted.set()

    async def sweep(self) -> None:
        """Run all cleanup steps. A failing step does not prevent the others.

        What is removed by its age is left alone while the clocks disagree.
        """
        by_age = (self._expire_sources, self._drop_orphans, self._drop_events, self._drop_deleted, self._drop_tickets)
        for step in (
            self._finish_removals,
            self._remove_retired,
            self._expire_sources,
            self._remove_orphans,
            self._drop_orphans,
            self._drop_rate_windows,
            self._drop_events,
            self._drop_deleted,
            self._tidy_webhooks,
            self._drop_tickets,
            self._tidy_incoming,
            self._refill_reserve,
        ):
            try:
                if step not in by_age or self._clocks.agree:
                    await step()
            except Exception as error:
                log.warning("housekeeping_failed", step=step.__name__.strip("_"), reason=str(error))

    async def _remove_retired(self) -> None:
        await self._retired.remove_due()

    async def _refill_reserve(self) -> None:
        if self._space_reserve is not None:
            await anyio.to_thread.run_sync(self._space_reserve.fill)

    async def _drop_rate_windows(self) -> None:
        await self._table.limits.drop_rate_windows(self._quota)

    async def _drop_events(self) -> None:
        while await self._table.drop_events(now() - self._events_kept, PAGE):
            pass

    async def _drop_tickets(self) -> None:
        if self._credentials is not None:
            await self._credentials.drop_tickets()

    async def _tidy_incoming(self) -> None:
        if self._incoming is not None:
            await self._incoming.tidy(self._table, clocks_agree=self._clocks.agree)

    async def _drop_deleted(self) -> None:
        """Drop one page per sweep: ten million rows take a week, soon enough for a retention time of a year."""
        if self._deleted_kept:
            before = now() - self._deleted_kept
            self._deleted_upto = await self._table.drop_deleted(before, self._deleted_upto, DELETED_PAGE)

    async def _tidy_webhooks(self) -> None:
        if self._webhooks is not None:
            await self._webhooks.tidy()

    async def _finish_removals(self) -> None:
        """Finish pending removals. The lock is held for one row at a time: deletions and retries wait for it."""
        refusals: Counter[str] = Counter()
        after = ""
        while not self._hold.active and (jobs := await self._table.files.leftovers(after, PAGE)):
            for listed in jobs:
                after = listed.job_id
                async with self._removing:
                    for job in await self._table.files.leftover(listed.job_id):
                        await self._finish_removal(job, refusals)

    async def _finish_removal(self, job: Job, refusals: Counter[str]) -> None:
        """Remove the files of one row. `refusals` counts consecutive failures for each backend."""
        if self._hold.active or job.job_id in self._deletions:
            return
        await self._remove_source(job)
        if refusals[job.storage_backend] >= REFUSALS:
            return
        _, confirmed = await self._remove_variants(job)
        refusals[job.storage_backend] = 0 if confirmed else refusals[job.storage_backend] + 1
        if refusals[job.storage_backend] == REFUSALS:
            log.warning("removals_postponed", backend=job.storage_backend, failures=REFUSALS)

    async def remove_files(self, job: Job) -> int:
        """Remove the files that the row names and no longer needs; returns their number.

        The row forgets a file only once it is known to be gone, so a later sweep finishes what fails here. During a
        deletion hold the files are only counted, and a later sweep removes them.
        """
        if self._hold.active:
            return await self._count(job)
        retired = await self._retired.remove_of(job) if job.deleted_at else 0
        return retired + await self._remove_source(job) + (await self._remove_variants(job))[0]

    async def _remove_source(self, job: Job) -> int:
        if not job.staging_path or not (job.deleted_at or job.status == "completed" or not job.retryable):
            return 0
        if not job.deleted_at and await self._table.files.source_wanted(job):
            return 0
        found, confirmed = await self._unlink(job.staging_path)
        if confirmed:
            await self._table.files.source_removed(job)
        return found

    async def _remove_variants(self, job: Job) -> tuple[int, bool]:
        """Return the number of files, and whether all of them are gone."""
        if not (job.deleted_at or job.status == "failed"):
            return 0, True
        found, confirmed = await withdraw(self._storages[job.storage_backend], job, job.stored_keys)
        if job.also_in:  # a move was interrupted; its copies don't count as files
            confirmed &= (await withdraw(self._storages[job.also_in], job, job.stored_keys))[1]
        if confirmed:
            await self._table.files.variants_removed(job)
        return found, confirmed

    async def _count(self, job: Job) -> int:
        staged = (
            await anyio.to_thread.run_sync(self._staging_area.whole(job.staging_path).is_file)
            if job.staging_path
            else 0
        )
        sizes = []
        with anyio.move_on_after(WITHDRAW_SECONDS):
            for key in job.stored_keys if job.deleted_at or job.status == "failed" else ():
                with suppress(StorageError):
                    sizes.append(await self._storages[job.storage_backend].size(job.storage_bucket, key))
        return int(staged) + sum(size is not None for size in sizes)

    async def _expire_sources(self) -> None:
        before = now() - self._source_kept
        after = ""
        while jobs := await self._table.files.expired_sources(before, after, PAGE):
            for job in jobs:
                after = job.job_id
                async with self._removing:
                    await self._expire_source(job, before)

    async def _expire_source(self, listed: Job, before: datetime) -> None:
        job = await self._table.job(listed.job_id) or listed  # `job` finds no deleted row, but the list contains them
        if self._hold.active:
            return
        if job.status != "failed" or not job.staging_path or (job.failed_at or "") >= as_text(before):
            return  # it has been restarted in the meantime
        _, confirmed = await self._unlink(job.staging_path)
        if confirmed:
            await self._table.files.expire_source(job, before)

    async def _remove_orphans(self) -> None:
        """Clean the staging folder.

        Incomplete uploads have no receipt and are removed. Complete ones without a row may be all that is left of a
        lost row, and are set aside.
        """
        area = self._staging_area
        with closing(area.batches(TOGETHER)) as batches:
            while staged := await anyio.to_thread.run_sync(next, batches, None):
                # The order matters: an upload stops being in use only once its row can be read.
                batch = [one for one in staged if not area.is_in_use(one.job_id)]
                known = await self._table.files.wanting_source({one.job_id for one in batch})
                for one in batch:
                    if not known.get(one.job_id):
                        await self._remove_orphan(one, known)

    async def _remove_orphan(self, one: Staged, known: Mapping[str, bool]) -> None:
        if one.part or one.job_id in known:  # the row does not need the file any more: only its removal was lost
            if (await self._unlink(one.name))[0]:
                log.info("orphan_removed", name=one.name)
            return
        try:
            await anyio.to_thread.run_sync(self._staging_area.put_aside, one.name)
        except FileNotFoundError:
            return
        except OSError as error:  # a file that can't be removed must not block the others
            log.warning("upload_not_set_aside", name=one.name, reason=error.strerror)
            return
        log.warning("upload_set_aside", name=one.name, days=KEPT.days)

    async def _drop_orphans(self) -> None:
        for name in await anyio.to_thread.run_sync(self._staging_area.drop_expired):
            log.warning("set_aside_upload_removed", name=name, days=KEPT.days)

    async def _unlink(self, name: str) -> tuple[int, bool]:
        """Return the number of staged files, and whether all are gone. A file that stays must not block the others."""
        try:
            return await anyio.to_thread.run_sync(_unlink, self._staging_area.folder / name), True
        except OSError as error:
            log.warning("unlink_failed", name=name, reason=error.strerror)
            return 0, False


def _unlink(path: Path) -> int:
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return 1
