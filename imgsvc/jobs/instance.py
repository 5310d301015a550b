"""The id that database, data folder and local storage folder share, and the check that they belong together.

A database that is new or empty beside files of ours is a mistyped path or a lost file, and never a fresh start:
housekeeping and gc would take everything for leftovers.
"""

import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import aiosqlite
import anyio
import anyio.to_thread
import structlog

from ..settings import Settings
from ..storage.durable_files import write_file
from ..storage.instance_marker import mark, marker_of, read_id
from ..storage.keys import OURS, UUID
from ..storage.local import files_below
from .table.database import Readers
from .table.sql import QUERIES
from .table.writer import Writer

log = structlog.get_logger()

NAME = "instance"  # of the file in the data folder: the id, and on a second line ACCEPTED
ACCEPTED = "accepted"  # an upload has been accepted: from then on a database without jobs has lost them
WHOLE_UPLOAD = re.compile(UUID)
WAY_OUT = "to go on with this database run: imgsvc storage adopt; or set those files aside"


class InstanceMismatch(Exception):
    """Database, data folder and storage folder do not belong together; the message names the paths and the way out."""


@dataclass(frozen=True, slots=True)
class Places:
    """The paths that must belong together."""

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
    """What was found, and not changed. Ids are None where there is none."""

    places: Places
    database: str | None
    folder: str | None
    storage: str | None
    has_jobs: bool
    has_accepted: bool
    log_without_database: bool
    files: tuple[Path, ...]  # the folders that hold files of ours; only looked for where there are no jobs

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
                    f"{folder} belongs to another service: its id is {other}, and {whose}; see that DATABASE_PATH and "
                    "STORAGE_PATH are right, or give the folder to this database with: imgsvc storage adopt"
                )
        if not self.has_jobs and (self.has_accepted or self.database is None) and (self.files or self._is_lost):
            found = " and ".join(str(path) for path in self.files) or f"{places.data / NAME}, which says so,"
            raise InstanceMismatch(
                f"the database {places.database} holds no job, but uploads were accepted here: {found} is there; "
                f"see that DATABASE_PATH is right and the database whole; {WAY_OUT}"
            )

    @property
    def _is_lost(self) -> bool:
        """Of a service whose images lie elsewhere no file may be here."""
        return self.database is None and self.has_accepted


def identify(places: Places) -> Identity:
    """Look, and leave everything as it is. Raises OSError or sqlite3.Error."""
    lost = not _size(places.database) and _size(places.log) > 0
    instance, has_jobs = (None, False) if lost else _of_database(places)
    lines = _lines(places.data / NAME)
    return Identity(
        places,
        database=instance,
        folder=_valid(lines[0]) if lines else None,
        storage=marker_of(places.storage),
        has_jobs=has_jobs,
        has_accepted=ACCEPTED in lines[1:],
        log_without_database=lost,
        files=() if has_jobs else tuple(_with_files(places)),
    )


def _of_database(places: Places) -> tuple[str | None, bool]:
    """The id in the database, and whether there are jobs.

    Opened as usual, SQLite would remove a damaged log, and leave a new one beside a database that was closed properly.
    """
    if not _size(places.database):
        return None, False
    uri = f"{places.database.absolute().as_uri()}?{'mode=ro' if places.log.exists() else 'immutable=1'}"
    with closing(sqlite3.connect(uri, uri=True)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = db.execute(QUERIES["instance"]).fetchone() if "service_instance" in tables else None
        jobs = "processing_jobs" in tables and db.execute(QUERIES["any_job"]).fetchone() is not None
    return found[0] if found else None, jobs


def _with_files(places: Places) -> Iterator[Path]:
    for folder in (places.staging, places.orphaned):
        if folder.is_dir() and any(WHOLE_UPLOAD.fullmatch(path.name) for path in folder.iterdir()):
            yield folder
    if holds_images(places.storage):
        yield places.storage


def holds_images(root: Path) -> bool:
    """Whether any stored file of ours lies there."""
    return root.is_dir() and any(OURS.fullmatch(os.path.relpath(path, root)) for path, _ in files_below(root))


def _lines(path: Path) -> list[str]:
    return path.read_text("ascii", errors="replace").split() if read_id(path) else []


def _valid(text: str) -> str | None:
    """None for what an interrupted first start of version 0.1.0 left."""
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
    """The id of this service, durable in the database and in the data folder; made at the first start."""
    instance = found.database or found.folder or str(uuid.uuid4())
    if found.folder != instance or found.has_jobs > found.has_accepted:
        await anyio.to_thread.run_sync(write_id, found.places.data, instance, found.has_jobs)
    if found.database is None:
        await db.execute(QUERIES["set_instance"], {"id": instance})
    return instance


def write_id(data: Path, instance: str, accepted: bool) -> None:
    """Write the data folder's own file, durably. Raises OSError."""
    write_file(data / NAME, "\n".join([instance, *([ACCEPTED] if accepted else []), ""]).encode())


class FirstReceipt:
    """Remembers outside of the database that an upload was accepted, before its receipt is given."""

    def __init__(self, data: Path, instance: str, *, given: bool) -> None:
        self._data = data
        self._instance = instance
        self._given = given
        self._lock = anyio.Lock()

    async def note(self) -> None:
        """After the row is committed: it costs the first upload a sync, and the others nothing."""
        if self._given:
            return
        async with self._lock:
            if not self._given:
                try:
                    await anyio.to_thread.run_sync(write_id, self._data, self._instance, True)
                except OSError as error:  # the receipt stands without it
                    log.warning("first_receipt_not_noted", reason=str(error))
                    return
                self._given = True


class StorageClaim:
    """Gives a local storage folder this service's id, once in the life of a database.

    Afterwards a folder without it is a disk that is not mounted, or one that `imgsvc storage adopt` has to claim.
    """

    def __init__(self, root: Path, instance: str, readers: Readers, writer: Writer) -> None:
        self._root = root
        self._instance = instance
        self._readers = readers
        self._write = writer.write
        self._marked = False

    async def claim(self) -> None:
        """Where the folder may be ours. Raises OSError or DatabaseUnavailable."""
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
        """Whether images of this service may lie there: not where all of them went to S3 from the first on."""
        marked = (await self._readers.fetch("instance", {}))[0]["storage_marked"]
        return bool(marked or await self._readers.fetch("any_local", {}))

    async def _is_ours(self) -> bool:
        """An empty folder where there should be images is the place of a disk that is not mounted."""
        if await anyio.to_thread.run_sync(holds_images, self._root, abandon_on_cancel=True):
            return True
        return not await self._readers.fetch("any_local", {})


async def _mark_storage(db: aiosqlite.Connection) -> None:
    await db.execute(QUERIES["mark_storage"])
