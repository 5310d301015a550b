"""The data folder, held by this process alone, with its database open: for the service, or a command without one."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from .jobs.database import Readers, open_for_writing
from .jobs.housekeeping import empty_folder
from .jobs.inventory import Inventory
from .jobs.lock import RESTORING, DataFolderInUse, DataFolderLock, data_folder_lock
from .jobs.overview import Overview
from .jobs.table import Table
from .jobs.writer import Writer
from .settings import Settings
from .telemetry.figures import Figures
from .telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class DataFolder:
    """`staging` holds uploads that are not yet processed, `scratch` what runs are making.

    `instance` names this folder among all services that may share a storage.
    """

    lock: DataFolderLock
    table: Table
    overview: Overview
    inventory: Inventory
    figures: Figures
    staging: Path
    scratch: Path
    instance: str


@asynccontextmanager
async def open_data_folder(
    settings: Settings, lock_wait_seconds: float, metrics: Metrics | None = None
) -> AsyncIterator[DataFolder]:
    """Lock it and bring the database up to date. Raises DataFolderInUse, SchemaTooNew or OSError."""
    metrics = metrics or Metrics(settings)  # nobody asks for those of a command
    folder = settings.data
    staging, scratch = folder / "staging", folder / "scratch"
    await anyio.to_thread.run_sync(lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
    async with data_folder_lock(folder, lock_wait_seconds) as lock:
        if await anyio.to_thread.run_sync((folder / RESTORING).exists):
            raise DataFolderInUse(f"a restore into {folder} is not finished: run imgsvc storage restore again")
        await anyio.to_thread.run_sync(_prepare, staging, scratch)
        instance = await anyio.to_thread.run_sync(_instance, folder / "instance")
        db = await open_for_writing(settings.database.path)
        try:
            writer = Writer(db, metrics.query)
            async with Readers(settings.database.path, metrics.query) as readers, anyio.create_task_group() as writing:
                writing.start_soon(writer.run)
                try:
                    figures = Figures(metrics.job_came_to)
                    table = Table(readers, writer, figures)
                    inventory = Inventory(readers)
                    yield DataFolder(lock, table, Overview(readers), inventory, figures, staging, scratch, instance)
                finally:
                    writer.close()
        finally:
            with anyio.CancelScope(shield=True):
                await db.close()


def _prepare(staging: Path, scratch: Path) -> None:
    staging.mkdir(mode=0o700, exist_ok=True)
    empty_folder(scratch)


def _instance(path: Path) -> str:
    """Made at the first start. Nothing is lost with it but a probe of a few bytes that stays in the storage."""
    with suppress(FileNotFoundError, ValueError):
        return str(uuid.UUID(path.read_text("ascii").strip()))
    made = str(uuid.uuid4())
    path.write_text(f"{made}\n", "ascii")
    return made
