"""Gives a data folder and a storage folder to the database in the settings. Removes nothing."""

from collections import Counter
from dataclasses import field
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.to_thread

from ..jobs.instance import WHOLE_UPLOAD, Identity, identify, places_of, write_id
from ..jobs.lock import BRIEF_SECONDS, RESTORING, DataFolderInUse, data_folder_lock
from ..jobs.table.database import Readers, open_for_writing
from ..jobs.table.sql import QUERIES
from ..lazy_dataclass import dataclass
from ..settings import Settings
from ..storage.instance_marker import mark
from ..storage.keys import OURS
from ..storage.local import files_below
from .progress import MaintenanceFailed


@dataclass(frozen=True, slots=True)
class Adoption:
    """The folders' contents and the IDs that were found. `instance` is their ID now, if `done`."""

    database: str
    data_folder: str
    storage_folder: str
    database_id: str | None
    data_folder_id: str | None
    storage_folder_id: str | None
    jobs: dict[str, int]
    uploads: int
    set_aside: int
    stored_files: int
    stored_bytes: int
    foreign_files: int
    instance: str | None = None
    done: bool = field(default=False)


async def adopt(settings: Settings, *, dry_run: bool) -> Adoption:
    """Show or do the adoption. Raises MaintenanceFailed, DataFolderInUse, OSError or sqlite3.Error."""
    places = places_of(settings)
    if not places.data.is_dir():
        raise MaintenanceFailed(f"There is no data folder {places.data}: check DATABASE_PATH.")
    async with data_folder_lock(places.data, BRIEF_SECONDS):
        if (places.data / RESTORING).exists():
            raise DataFolderInUse(f"a restore into {places.data} is not finished: run imgsvc storage restore again")
        found = await anyio.to_thread.run_sync(identify, places)
        if found.log_without_database:
            raise MaintenanceFailed(
                f"The database {places.database} is missing or empty, and its log {places.log} is there. "
                "It would be lost: move it to another place first."
            )
        if dry_run:
            return await _seen(found, settings)
        instance = await _give(found)
        return await _seen(found, settings, instance)


async def _give(found: Identity) -> str:
    """Write the IDs in the order of a first start: after a kill in between, adopt can be repeated."""
    places, instance = found.places, found.database or str(uuid4())
    db = await open_for_writing(places.database)
    try:
        await db.execute(QUERIES["set_instance"], {"id": instance})
        await anyio.to_thread.run_sync(write_id, places.data, instance, found.has_jobs)
        await anyio.to_thread.run_sync(mark, places.storage, instance)
        await db.execute(QUERIES["mark_storage"])
    finally:
        with anyio.CancelScope(shield=True):
            await db.close()
    return instance


async def _seen(found: Identity, settings: Settings, instance: str | None = None) -> Adoption:
    places = found.places
    staged = await anyio.to_thread.run_sync(_uploads, places.staging)
    set_aside = await anyio.to_thread.run_sync(_uploads, places.orphaned)
    ours, size, foreign = await anyio.to_thread.run_sync(_stored, settings.storage.path)
    return Adoption(
        database=str(places.database),
        data_folder=str(places.data),
        storage_folder=str(places.storage),
        database_id=found.database,
        data_folder_id=found.folder,
        storage_folder_id=found.storage,
        jobs=await _jobs(places.database) if found.has_jobs else {},
        uploads=staged,
        set_aside=set_aside,
        stored_files=ours,
        stored_bytes=size,
        foreign_files=foreign,
        instance=instance,
        done=instance is not None,
    )


async def _jobs(database: Path) -> dict[str, int]:
    async with Readers(database) as readers:
        return {row["status"]: row["jobs"] for row in await readers.fetch("count_by_status", {})}


def _uploads(folder: Path) -> int:
    return sum(WHOLE_UPLOAD.fullmatch(path.name) is not None for path in folder.iterdir()) if folder.is_dir() else 0


def _stored(root: Path) -> tuple[int, int, int]:
    """Return (number of our files, their bytes, number of other files)."""
    counts = Counter[str]()
    if root.is_dir():
        for path, found in files_below(root):
            if OURS.fullmatch(str(Path(path).relative_to(root))):
                counts.update(ours=1, size=found.st_size)
            else:
                counts["foreign"] += 1
    return counts["ours"], counts["size"], counts["foreign"]
