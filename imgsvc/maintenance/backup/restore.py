"""Restores a backup, only while no service runs. The whole backup is checked before anything is written.

The database is written last. Until then a marker prevents a service from starting, and a repeated restore continues.
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.to_thread

from ...jobs.instance import write_id
from ...jobs.lock import BRIEF_SECONDS, RESTORING, data_folder_lock
from ...jobs.lock import NAME as LOCK
from ...jobs.revocations import NAME as REVOCATIONS
from ...jobs.revocations import add_restore
from ...jobs.table.database import MIGRATIONS, Readers
from ...jobs.table.model import Job, as_text, now
from ...jobs.table.scan import JobScan
from ...jobs.table.sql import QUERIES
from ...lazy_dataclass import dataclass
from ...settings import Settings
from ...storage.base import LOCAL, Storage, StorageError
from ...storage.durable_files import make_root, partial_of, sync_folder, write_file
from ...storage.instance_marker import mark
from ...storage.local import OWN_FILES
from ..context import Variant, digest_of, fetched_digest, for_each_concurrently, source_needed, variants_of
from ..progress import Finding, Kind, MaintenanceFailed, Progress
from .folder import BackupFolder, Manifest, copy

AT_ONCE = 4  # jobs
FIRST_WITH_ID = MIGRATIONS.index("004_service_instance.sql") + 1
FIRST_WITH_WEBHOOKS = MIGRATIONS.index("009_webhooks.sql") + 1
ASIDE = "replaced-"
MOVING_WORDS = b"The contents of this folder are being moved aside for a restore.\n"
RESTORING_WORDS = b"A restore into this folder was begun and is not finished.\n"


async def restore(
    settings: Settings,
    storages: Mapping[str, Storage],
    progress: Progress,
    *,
    source: Path,
    force: bool,
    dry_run: bool,
) -> None:
    """Restore. With `force` existing data is moved aside, not removed. Raises MaintenanceFailed or DataFolderInUse."""
    try:
        restoring = Restore(settings, storages, progress, BackupFolder(source))
        if dry_run:
            await restoring.check()
            found = await anyio.to_thread.run_sync(_in_the_way, settings)
            if found:  # not an error: a dry run may check a backup on the machine of its service
                progress.counts["in_the_way"] = len(found)
            return
        await anyio.to_thread.run_sync(make_root, settings.data, 0o700)
        async with data_folder_lock(settings.data, BRIEF_SECONDS):
            manifest = await restoring.check()
            await anyio.to_thread.run_sync(_make_room, settings, force)
            await restoring.put_back(manifest)
    except (OSError, sqlite3.Error, StorageError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MaintenanceFailed(f"The backup could not be restored: {reason}. It can be tried again.") from error


@dataclass(slots=True)
class Restore:
    settings: Settings
    storages: Mapping[str, Storage]
    progress: Progress
    folder: BackupFolder

    async def check(self) -> Manifest:
        """Read the whole backup. Raises MaintenanceFailed if anything is missing or damaged."""
        manifest = await anyio.to_thread.run_sync(self.folder.manifest)
        for check in (self._check_database, self._check_secrets, self._check_files):
            await check(manifest)
        return manifest

    async def _check_database(self, manifest: Manifest) -> None:
        database = self.folder.database(manifest.database)
        self.progress.begin("database")
        if (
            not await anyio.to_thread.run_sync(database.is_file)
            or await digest_of(database) != manifest.database_sha256
        ):
            raise MaintenanceFailed("The backup is damaged: its database does not match its manifest.")
        await anyio.to_thread.run_sync(_check_schema, database)

    async def _check_secrets(self, manifest: Manifest) -> None:
        for name, digest in manifest.secrets.items():
            if not self.folder.secret(digest).is_file() or await digest_of(self.folder.secret(digest)) != digest:
                raise MaintenanceFailed(f"The backup is damaged: the secret {name} does not match its manifest.")

    async def _check_files(self, manifest: Manifest) -> None:
        absent = set(manifest.absent)

        async def look(job: Job) -> None:
            try:
                listed = self._listed(job)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise MaintenanceFailed(
                    f"The backup is damaged: its row of {job.image_id} can't be understood."
                ) from error
            for path, name, size, digest in listed:
                wrong = None if name in absent else await _wrong(path, size, digest)
                if wrong is None:
                    self.progress.counts["files"] += name not in absent
                else:
                    self.progress.find(Finding(wrong, "backup", name, job.image_id, None, size))

        self.progress.begin("checking")
        async with Readers(self.folder.database(manifest.database)) as readers:
            await for_each_concurrently(JobScan(readers).jobs(self.progress.advance), look, AT_ONCE)
        if self.progress.found:
            count = self.progress.found
            raise MaintenanceFailed(f"The backup is damaged: {count} of its files are missing or changed.")

    def _listed(self, job: Job) -> list[tuple[Path, str, int, str]]:
        """List (path in the backup, name, bytes, digest) of the files that the backup should contain for a job."""
        found = [
            (self.folder.variant(one.bucket, one.key), one.path, one.size_bytes, one.digest)
            for one in self._variants(job)
        ]
        if source_needed(job) and (job.status != "failed" or self.folder.staged(job.staging_path or "").is_file()):
            name = job.staging_path or ""
            found.append((self.folder.staged(name), name, job.content_length, job.sha256))
        return found

    def _variants(self, job: Job) -> list[Variant]:
        """The variants to restore. Those of another backend are included only if they were backed up too."""
        variants = variants_of(job)
        if job.storage_backend == LOCAL:
            return variants
        held = [one for one in variants if self.folder.variant(one.bucket, one.key).is_file()]
        if held and job.storage_backend not in self.storages:
            raise MaintenanceFailed(
                f"The backup has images of the backend {job.storage_backend}, which is not configured here."
            )
        return held

    async def put_back(self, manifest: Manifest) -> None:
        data, instance = self.settings.data, str(uuid4())
        staging, scratch = data / "staging", data / "scratch"
        await anyio.to_thread.run_sync(mark, self.settings.storage.path, instance)
        for folder in (staging, scratch):
            await anyio.to_thread.run_sync(partial(folder.mkdir, mode=0o700, exist_ok=True))
        absent = set(manifest.absent)
        self.progress.counts.clear()

        async def one(job: Job) -> None:
            for variant in self._variants(job):
                if variant.path not in absent:
                    await self._put(self.storages[job.storage_backend], variant, scratch)
            if source_needed(job):
                held = self.folder.staged(job.staging_path or "")
                if await anyio.to_thread.run_sync(held.is_file):
                    await anyio.to_thread.run_sync(copy, held, staging / held.name)
                    self.progress.counts["sources"] += 1

        self.progress.begin("copying")
        async with Readers(self.folder.database(manifest.database)) as readers:
            await for_each_concurrently(JobScan(readers).jobs(self.progress.advance), one, AT_ONCE)
        for name, digest in manifest.secrets.items():
            await anyio.to_thread.run_sync(copy, self.folder.secret(digest), data / name)
        await anyio.to_thread.run_sync(write_id, data, instance, False)
        await self._put_database(manifest, instance)

    async def _put(self, storage: Storage, variant: Variant, scratch: Path) -> None:
        """Store a variant and read it back, unless an earlier try has stored it."""
        path = self.folder.variant(variant.bucket, variant.key)
        self.progress.counts["files"] += 1
        self.progress.counts["bytes"] += variant.size_bytes
        there = await storage.size(variant.bucket, variant.key) == variant.size_bytes
        if there and await fetched_digest(scratch, storage, variant) == variant.digest:
            return
        await storage.put(variant.bucket, variant.key, path)
        if await fetched_digest(scratch, storage, variant) != variant.digest:
            raise MaintenanceFailed(f"{variant.path} was written but reads back differently: check the disk.")

    async def _put_database(self, manifest: Manifest, instance: str) -> None:
        path = self.settings.database.path
        await anyio.to_thread.run_sync(copy, self.folder.database(manifest.database), path)
        if await digest_of(path) != manifest.database_sha256:
            await anyio.to_thread.run_sync(path.unlink)
            raise MaintenanceFailed("The database was written but reads back differently: check the disk.")
        before = await anyio.to_thread.run_sync(_assign_new_id, path, instance)
        recorded = await anyio.to_thread.run_sync(add_restore, self.settings.data, before, instance, manifest.taken_at)
        self.progress.counts["known_revocations"] = len(recorded.keys) + len(recorded.people)
        self.progress.counts["unknown_revocations"] = int(recorded.restores[-1] in recorded.unknown)
        await anyio.to_thread.run_sync((self.settings.data / RESTORING).unlink)
        await anyio.to_thread.run_sync(sync_folder, self.settings.data)


async def _wrong(path: Path, size: int, digest: str) -> Kind | None:
    try:
        if (await anyio.to_thread.run_sync(path.stat)).st_size != size:
            return "wrong_size"
        return None if await digest_of(path) == digest else "wrong_digest"
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"


def _check_schema(database: Path) -> None:
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise MaintenanceFailed(
                f"The backup's database has schema {version}; this program supports up to {len(MIGRATIONS)}."
            )
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise MaintenanceFailed("The backup is damaged: SQLite found errors in its database.")


def _assign_new_id(database: Path, instance: str) -> str | None:
    """Give the restored database a new ID, since the original may still run. An older schema gets one at its start.

    Returns the ID before, None if there was none.
    """
    before = None
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = FULL")
        if db.execute("PRAGMA user_version").fetchone()[0] >= FIRST_WITH_ID:
            before = next((row[0] for row in db.execute(QUERIES["instance"])), None)
            db.execute(QUERIES["set_instance"], {"id": instance})
            db.execute(QUERIES["mark_storage"])
        if db.execute("PRAGMA user_version").fetchone()[0] >= FIRST_WITH_WEBHOOKS:
            db.execute(QUERIES["hold_deliveries"], {"now": as_text(now())})  # they may have been delivered since
    return before


def _make_room(settings: Settings, force: bool) -> None:
    """Provide an empty, marked data folder. Raises MaintenanceFailed if existing data must not be moved aside.

    It is marked before anything is moved: a service that started on a part of it (a database without its log) would
    damage the rest.
    """
    data = settings.data
    marker = data / RESTORING
    if force or not marker.exists() or marker.read_bytes() != RESTORING_WORDS:
        found = _in_the_way(settings)
        if found and not force:
            raise MaintenanceFailed(
                "There is already data here. --force moves it aside (to a folder replaced-…) and does not remove it."
            )
        for path in found:
            if os.path.ismount(path):
                raise MaintenanceFailed(f"{path} is a mount point, which can't be moved aside: move its contents away.")
        write_file(marker, MOVING_WORDS)
        aside = f"{ASIDE}{now():%Y%m%dT%H%M%S.%f}"
        for path in found:
            if path.parent == data:
                (data / aside).mkdir(mode=0o700, exist_ok=True)
                path.rename(data / aside / path.name)
            else:
                path.rename(path.with_name(f"{path.name}.{aside}"))
    write_file(marker, RESTORING_WORDS)


def _in_the_way(settings: Settings) -> list[Path]:
    """The contents of the data folder, and the storage folder if it is elsewhere and contains files."""
    data, storage = settings.data, settings.storage.path
    kept = [path for path in data.iterdir() if _occupies(path)] if data.is_dir() else []
    outside = not Path(os.path.realpath(storage)).is_relative_to(os.path.realpath(data))
    stored = outside and storage.exists() and _holds_files(storage)
    return [*kept, storage] if stored and storage not in kept else kept


def _occupies(path: Path) -> bool:
    ours = (LOCK, RESTORING, partial_of(Path(RESTORING)).name, "scratch", REVOCATIONS)
    if path.name in ours or path.name.startswith(ASIDE):
        return False
    return not path.is_dir() or _holds_files(path)


def _holds_files(folder: Path) -> bool:
    """Whether the folder contains files other than the marker, which an empty storage folder has too."""
    own = {Path(name) for name in OWN_FILES}
    return any(not path.is_dir() and path.relative_to(folder) not in own for path in folder.rglob("*"))
