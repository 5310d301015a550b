"""The ID shared by the database, the data folder and the local storage folder, and the check that they match.

A new or empty database beside existing files means a mistyped path or a lost file, never a fresh start: housekeeping
and gc would treat all those files as leftovers.
"""

import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import aiosqlite
import anyio
import anyio.to_thread
import structlog

from ..lazy_dataclass import dataclass
from ..settings import Settings
from ..storage.durable_files import write_file
from ..storage.instance_marker import mark, marker_of, read_id
from ..storage.keys import OURS, UUID
from ..storage.local import files_below
from .table.database import Readers
from .table.sql import QUERIES
from .table.writer import Writer

log = structlog.get_logger()

NAME = "instance"  # the file in the data folder: the ID, and on a second line ACCEPTED
ACCEPTED = "accepted"  # written once an upload was accepted: from then on a database without jobs has lost rows
WHOLE_UPLOAD = re.compile(UUID)
WAY_OUT = "to go on with this database run: imgsvc storage adopt; or set those files aside"


class InstanceMismatch(Exception):
    """Database, data folder and storage folder do not match. The message names the paths and the remedy."""


@dataclass(frozen=True, slots=True)
class Places:
    """The paths that must match."""

    data: Path
    database: Path
    storage: Path

    @property
    def staging(self) -> Path:
        return self.data / "staging"

    @property
    def orphaned(self) -> Path:
        return self.data / "orphaned"

    @property
    def log(self) -> Path:
        """The database's write-ahead log."""
        return self.database.with_name(f"{self.database.name}-wal")


def places_of(settings: Settings) -> Places:
    return Places(settings.data, settings.database.path, settings.storage.path)


@dataclass(frozen=True, slots=True)
class Identity:
    """The IDs and files as found, without changes. An ID is None where there is none."""

    places: Places
    database: str | None
    folder: str | None
    storage: str | None
    has_jobs: bool
    has_accepted: bool
    log_without_database: bool
    files: tuple[Path, ...]  # the folders that contain our files; checked only if there are no jobs

    def check(self) -> None:
        """Raises InstanceMismatch."""
        places = self.places
        if self.log_without_database:
            raise InstanceMismatch(
                f"the database {places.database} is missing or empty, and its log {places.log} is there: "
                "put the database back, or restore a backup, or set the log aside"
            )
        own = self.database or self.folder
        for other, folder in ((self.folder, places.data), (self.storage, places.storage)):
            if other is not None and other != own:
                whose = f"the database {places.database} has the id {own}" if own else "this service is new"
                raise InstanceMismatch(
                    f"{folder} belongs to another service: its id is {other}, and {whose}; check DATABASE_PATH and "
                    "STORAGE_PATH, or give the folder to this database with: imgsvc storage adopt"
                )
        if not self.has_jobs and (self.has_accepted or self.database is None) and (self.files or self._is_lost):
            found = " and ".join(str(path) for path in self.files) or f"{places.data / NAME}, which records it,"
            raise InstanceMismatch(
                f"the database {places.database} holds no job, but uploads were accepted here: {found} is there; "
                f"check that DATABASE_PATH is right and the database intact; {WAY_OUT}"
            )

    @property
    def _is_lost(self) -> bool:
        """Whether jobs were lost. A service whose images are all in S3 may have no files here."""
        return self.database is None and self.has_accepted


def identify(places: Places) -> Identity:
    """Read the IDs without changing anything. Raises OSError or sqlite3.Error."""
    lost = not _size(places.database) and _size(places.log) > 0
    instance, has_jobs = (None, False) if lost else _of_database(places)
    lines = _lines(places.data / NAME)
    folder = _valid(lines[0]) if lines else None
    known = instance is not None and instance == folder  # uploads set aside here never had a row of this database
    return Identity(
        places,
        database=instance,
        folder=folder,
        storage=marker_of(places.storage),
        has_jobs=has_jobs,
        has_accepted=ACCEPTED in lines[1:],
        log_without_database=lost,
        files=() if has_jobs else tuple(_with_files(places, set_aside=not known)),
    )


def _of_database(places: Places) -> tuple[str | None, bool]:
    """Return the ID in the database, and whether there are jobs.

    Opened normally, SQLite would remove a damaged log, and would create one beside a properly closed database.
    """
    if not _size(places.database):
        return None, False
    uri = f"{places.database.absolute().as_uri()}?{'mode=ro' if places.log.exists() else 'immutable=1'}"
    with closing(sqlite3.connect(uri, uri=True)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = db.execute(QUERIES["instance"]).fetchone() if "service_instance" in tables else None
        jobs = "processing_jobs" in tables and db.execute(QUERIES["any_job"]).fetchone() is not None
    return found[0] if found else None, jobs


def _with_files(places: Places, *, set_aside: bool) -> Iterator[Path]:
    for folder in (places.staging, *([places.orphaned] if set_aside else [])):
        if folder.is_dir() and any(WHOLE_UPLOAD.fullmatch(path.name) for path in folder.iterdir()):
            yield folder
    if holds_images(places.storage):
        yield places.storage


def holds_images(root: Path) -> bool:
    """Whether the folder contains any file stored by this program."""
    return root.is_dir() and any(OURS.fullmatch(os.path.relpath(path, root)) for path, _ in files_below(root))


def _lines(path: Path) -> list[str]:
    return path.read_text("ascii", errors="replace").split() if read_id(path) else []


def _valid(text: str) -> str | None:
    """Return the ID; None for a file that an interrupted first start of version 0.1.0 left."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def settle_id(db: aiosqlite.Connection, found: Identity) -> str:
    """Return this service's ID, durable in the database and the data folder. It is created at the first start."""
    instance = found.database or found.folder or str(uuid.uuid4())
    if found.folder != instance or found.has_jobs > found.has_accepted:
        await anyio.to_thread.run_sync(write_id, found.places.data, instance, found.has_jobs)
    if found.database is None:
        await db.execute(QUERIES["set_instance"], {"id": instance})
    return instance


def write_id(data: Path, instance: str, accepted: bool) -> None:
    """Write the file in the data folder, durably. Raises OSError."""
    write_file(data / NAME, "\n".join([instance, *([ACCEPTED] if accepted else []), ""]).encode())


class FirstReceipt:
    """Records outside the database that an upload was accepted, before its receipt is sent."""

    def __init__(self, data: Path, instance: str, *, given: bool) -> None:
        self._data = data
        self._instance = instance
        self._given = given
        self._lock = anyio.Lock()

    async def record(self) -> None:
        """Call after the row is committed. The first upload costs a sync, later ones nothing."""
        if self._given:
            return
        async with self._lock:
            if not self._given:
                try:
                    await anyio.to_thread.run_sync(write_id, self._data, self._instance, True)
                except OSError as error:  # the receipt is valid without it
                    log.warning("first_receipt_not_recorded", reason=str(error))
                    return
                self._given = True


class StorageClaim:
    """Gives a local storage folder this service's ID, once in a database's life.

    Afterwards a folder without the ID is an unmounted disk, or one that `imgsvc storage adopt` has to claim.
    """

    def __init__(self, root: Path, instance: str, readers: Readers, writer: Writer) -> None:
        self._root = root
        self._instance = instance
        self._readers = readers
        self._write = writer.write
        self._marked = False

    async def claim(self) -> None:
        """Claim the folder if it may be ours. Raises OSError or DatabaseUnavailable."""
        if self._marked:
            return
        if (await self._readers.fetch("instance", {}))[0]["storage_marked"]:
            self._marked = True
            return
        found = await anyio.to_thread.run_sync(marker_of, self._root, abandon_on_cancel=True)
        if found is None and await self._is_ours():
            await anyio.to_thread.run_sync(mark, self._root, self._instance, abandon_on_cancel=True)
            log.info("storage_folder_claimed", path=str(self._root), instance=self._instance)
        elif found != self._instance:
            return
        await self._write(_mark_storage)
        self._marked = True

    async def is_used(self) -> bool:
        """Whether the folder may contain images of this service: not if all of them have been in S3 from the start."""
        marked = (await self._readers.fetch("instance", {}))[0]["storage_marked"]
        return bool(marked or await self._readers.fetch("any_local", {}))

    async def _is_ours(self) -> bool:
        """Whether the folder may be ours. If it should have images, an empty one is an unused mount point."""
        if await anyio.to_thread.run_sync(holds_images, self._root, abandon_on_cancel=True):
            return True
        return not await self._readers.fetch("any_local", {})


async def _mark_storage(db: aiosqlite.Connection) -> None:
    await db.execute(QUERIES["mark_storage"])
