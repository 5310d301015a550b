"""The data folder, locked by this process, with its database open: for the service and for stand-alone commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
import anyio
import anyio.to_thread
import structlog

from ..access.secrets import drop_drafts
from ..lazy_dataclass import dataclass
from ..settings import Settings
from ..storage.base import LOCAL
from ..storage.bounded_memory import BoundedMemory
from ..storage.durable_files import make_root, partial_of
from .clocks import ClockKeeper, Clocks, stored_clocks
from .counters import JobCounters
from .instance import NAME, FirstReceipt, Identity, Places, StorageClaim, identify, places_of, settle_id
from .lock import RESTORING, DataFolderInUse, DataFolderLock, data_folder_lock
from .reconciliation import reconcile
from .revocations import Revocations
from .space_reserve import SpaceReserve
from .staging_area import StagingArea
from .table.admission_memory import AdmissionMemory
from .table.connection_thread import in_connection_thread
from .table.credentials import Credentials
from .table.database import Readers, open_for_writing
from .table.event_feed import EventFeed
from .table.figures import Figures
from .table.job_table import JobTable
from .table.listing import ImageLists
from .table.render_tasks import RenderTasks
from .table.reports import JobReports
from .table.row_memory import RowMemory
from .table.scan import JobScan
from .table.session_rows import SessionRows
from .table.sql import OnQuery, ignore
from .table.usage import JobSums
from .table.waiting_jobs import WaitingJobs
from .table.webhook_table import WebhookTable
from .table.writer import Writer
from .trees import empty_folder

log = structlog.get_logger()

SCRATCH = "scratch"
CLAIM_SECONDS = 10.0  # after that the start continues without: the disk does not respond


@dataclass(frozen=True, slots=True)
class _Database:
    """The open database, the instance's ID and the clocks' last reading in it, and what watches its transactions."""

    instance: str
    readers: Readers
    writer: Writer
    clocks: Clocks
    rows: RowMemory
    feed: EventFeed
    waiting: WaitingJobs
    admissions: AdmissionMemory


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The opened data folder. `staging` contains uploads not processed yet, `scratch` the files of active runs.

    `instance` is this service's ID: in the database, in this folder, and by `claim` in the local storage folder.
    """

    lock: DataFolderLock
    table: JobTable
    overview: JobReports
    lists: ImageLists
    scan: JobScan
    sums: JobSums
    counters: JobCounters
    session_rows: SessionRows
    webhooks: WebhookTable
    feed: EventFeed
    staging: Path
    staging_area: StagingArea
    scratch: Path
    instance: str
    claim: StorageClaim
    first_receipt: FirstReceipt
    space_reserve: SpaceReserve
    clocks: Clocks
    clock_keeper: ClockKeeper
    credentials: Credentials
    figures: Figures
    revocations: Revocations
    render_tasks: RenderTasks


@asynccontextmanager
async def open_data_folder(
    settings: Settings,
    lock_wait_seconds: float,
    on_query: OnQuery = ignore,
    counters: JobCounters | None = None,
    memory: BoundedMemory | None = None,
) -> AsyncIterator[DataFolder]:
    """Lock the folder and migrate the database. `memory` keeps completed rows; None: nothing does.

    Raises DataFolderInUse, InstanceMismatch, SchemaTooNew or OSError.
    """
    rows, feed = RowMemory(memory or BoundedMemory(0)), EventFeed()
    folder, places, counters = settings.data, places_of(settings), counters or JobCounters()
    if not await anyio.to_thread.run_sync(folder.exists):  # probably a mistyped path: create nothing there
        (await anyio.to_thread.run_sync(identify, places)).check()
    await anyio.to_thread.run_sync(make_root, folder, 0o700)
    async with data_folder_lock(folder, lock_wait_seconds) as lock:
        reserve = SpaceReserve(folder)
        found = await anyio.to_thread.run_sync(_prepare, places, reserve)
        async with _open_database(settings, found, on_query, reserve, rows, feed) as database:
            data = _built(database, lock, found, reserve, counters)
            await reconcile(data.revocations, data.credentials, data.table.erasures, data.instance)
            await anyio.to_thread.run_sync(reserve.fill)
            if settings.storage.backend == LOCAL:
                await _claimed(data.claim)
            yield data


@asynccontextmanager
async def _open_database(
    settings: Settings, found: Identity, on_query: OnQuery, reserve: SpaceReserve, rows: RowMemory, feed: EventFeed
) -> AsyncIterator[_Database]:
    db, waiting = await open_for_writing(settings.database.path), WaitingJobs()
    admissions = AdmissionMemory(waiting)
    try:
        instance = await settle_id(db, found)

        async def watch(db: aiosqlite.Connection) -> Clocks:
            await rows.watch(db)
            await feed.watch(db)
            await waiting.watch(db)
            await admissions.watch(db)
            return await stored_clocks(db)

        clocks = await in_connection_thread(db, watch)

        def transaction_ended(committed: bool) -> None:
            rows.forget_changed()
            waiting.count_changes()
            admissions.settle(committed)
            feed.publish()

        writer = Writer(db, on_query, reserve.release, transaction_ended)
        async with Readers(settings.database.path, on_query) as readers, anyio.create_task_group() as writing:
            writing.start_soon(writer.run)
            try:
                yield _Database(instance, readers, writer, clocks, rows, feed, waiting, admissions)
            finally:
                writer.close()
    finally:
        with anyio.CancelScope(shield=True):
            await db.close()


async def _claimed(claim: StorageClaim) -> None:
    """Claim the storage folder. If it can't be written the start continues: the health check retries and reports it."""
    try:
        with anyio.move_on_after(CLAIM_SECONDS):
            await claim.claim()
    except OSError as error:
        log.error("storage_folder_not_claimed", path=str(error.filename), reason=error.strerror)


def _prepare(places: Places, reserve: SpaceReserve) -> Identity:
    """Whose the folders are, and an empty scratch folder. Raises DataFolderInUse, InstanceMismatch or OSError."""
    if (places.data / RESTORING).exists():
        raise DataFolderInUse(f"a restore into {places.data} is not finished: run imgsvc storage restore again")
    found = identify(places)
    found.check()
    reserve.release_if_low()
    make_root(places.staging, 0o700)
    partial_of(places.data / NAME).unlink(missing_ok=True)
    drop_drafts(places.data)
    empty_folder(places.data / SCRATCH)
    return found


def _built(
    database: _Database, lock: DataFolderLock, found: Identity, reserve: SpaceReserve, counters: JobCounters
) -> DataFolder:
    instance, readers, writer, places = database.instance, database.readers, database.writer, found.places
    revocations = Revocations(places.data)
    return DataFolder(
        lock=lock,
        table=JobTable(readers, writer, counters, database.rows, database.waiting, database.admissions),
        overview=JobReports(readers),
        lists=ImageLists(readers),
        scan=JobScan(readers),
        sums=JobSums(readers, writer, counters),
        counters=counters,
        session_rows=SessionRows(readers, writer),
        webhooks=WebhookTable(readers, writer),
        feed=database.feed,
        staging=places.staging,
        staging_area=StagingArea(places.staging, places.orphaned),
        scratch=places.data / SCRATCH,
        instance=instance,
        claim=StorageClaim(places.storage, instance, readers, writer),
        first_receipt=FirstReceipt(places.data, instance, given=found.has_jobs or found.has_accepted),
        space_reserve=reserve,
        clocks=database.clocks,
        clock_keeper=ClockKeeper(database.clocks, writer),
        credentials=Credentials(readers, writer, instance, revocations.add_key),
        figures=Figures(readers, writer),
        revocations=revocations,
        render_tasks=RenderTasks(readers, writer),
    )
