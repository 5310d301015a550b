"""Copies everything while the service runs. The backup is of the moment at which the database was copied.

No file of a job is removed meanwhile, so that all files that the copied rows name can still be copied.
"""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import field
from functools import partial
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import structlog

from ... import __version__
from ...jobs.table.database import Readers
from ...jobs.table.model import Job, as_text, now
from ...jobs.table.scan import JobScan
from ...lazy_dataclass import dataclass
from ...settings.fields import MEGABYTE
from ...storage.base import LOCAL, NotStored, StorageError
from ...storage.durable_files import partial_of, sync_folder, write_file
from ..context import (
    MaintenanceContext,
    Variant,
    digest_of,
    for_each_concurrently,
    source_needed,
    unfinished,
    variants_of,
)
from ..progress import Finding, Kind, MaintenanceFailed, Progress
from .folder import SECRET_FILES, BackupFolder, Manifest, Whole, copy, make_folders, settle
from .prune import prune

log = structlog.get_logger()

AT_ONCE = 4  # jobs
PAGES = 512  # of the database in one step: 2 MB, after which a cancellation is noticed


async def backup(
    context: MaintenanceContext, progress: Progress, *, destination: Path, with_s3: bool, digests: bool, dry_run: bool
) -> bool:
    """Make a backup; returns whether it is complete. With `digests` earlier copies are read and compared too.

    Raises MaintenanceFailed, and leaves an earlier complete backup as it was.
    """
    _check_destination(context, destination)
    making = Backup(context, progress, BackupFolder(destination), with_s3, digests, dry_run)
    try:
        if dry_run:
            await making.measure(context.scan)
            return True
        with context.hold.held():
            await making.make()
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MaintenanceFailed(f"The backup could not be written: {reason}. An earlier one is unchanged.") from error
    context.housekeeping.sweep_soon()  # removals that were suspended; not waited for, since the backup is complete
    return progress.found == 0


def _check_destination(context: MaintenanceContext, destination: Path) -> None:
    if not destination.is_absolute():
        raise MaintenanceFailed("The destination must be an absolute path.")
    wanted = Path(os.path.realpath(destination))
    for folder in (context.settings.data, context.settings.storage.path):
        own = Path(os.path.realpath(folder))
        if wanted.is_relative_to(own) or own.is_relative_to(wanted):
            raise MaintenanceFailed("The destination must be outside the service's own folders.")


@dataclass(slots=True)
class Backup:
    context: MaintenanceContext
    progress: Progress
    folder: BackupFolder
    with_s3: bool
    digests: bool
    dry_run: bool
    absent: list[str] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)  # of the files that this backup names

    async def make(self) -> None:
        await anyio.to_thread.run_sync(self.folder.prepare)
        taken_at = as_text(now())
        name = f"database-{now():%Y%m%dT%H%M%S.%f}.db"
        database = self.folder.database(name)
        self.progress.begin("database")
        await anyio.to_thread.run_sync(_copy_database, self.context.settings.database.path, database, self._copied)
        async with Readers(database) as readers:
            scan = JobScan(readers)
            await self.measure(scan)
            self.progress.counts.clear()
            self.progress.begin("jobs")
            await for_each_concurrently(scan.jobs(self.progress.advance), self._keep, AT_ONCE)
            secrets = await anyio.to_thread.run_sync(self._copy_secrets)
            manifest = await self._manifest(taken_at, database, secrets)
            await anyio.to_thread.run_sync(self._sync_names)
            await anyio.to_thread.run_sync(self.folder.complete, manifest)
            self.progress.begin("tidying")
            try:
                await prune(self.folder, scan, manifest)
            except (OSError, StorageError) as error:  # the backup is complete: superfluous files are removed next time
                log.warning("backup_prune_failed", reason=str(error))

    def _sync_names(self) -> None:
        """Make the names of all files durable that the manifest is to list.

        An earlier backup may have been killed between giving a file or a folder its name and syncing that: such a file
        is found and not copied again.
        """
        above = {
            parent for folder in self.folders for parent in folder.parents if parent.is_relative_to(self.folder.root)
        }
        for folder in sorted({*self.folders, *above}):
            sync_folder(folder)

    def _copied(self, left: int, total: int) -> None:
        self.progress.advance(total - left, total)
        anyio.from_thread.check_cancelled()

    async def measure(self, scan: JobScan) -> None:
        """Count the files to copy, and check the free space. Raises MaintenanceFailed."""
        self.progress.begin("measuring")
        new = 0
        async for job in scan.jobs(self.progress.advance):
            for path, size in await anyio.to_thread.run_sync(self._wanted, job):
                new += size if _size(path) != size else 0
                self.progress.counts["files"] += 1
                self.progress.counts["bytes"] += size
        self.progress.counts["new_bytes"] = new
        free = await anyio.to_thread.run_sync(self._free)
        if free < new:
            raise MaintenanceFailed(f"There are {max(0, free)} bytes free at the destination; {new} are needed.")

    def _free(self) -> int:
        """Free bytes; on the service's own disk, those beyond its reserve."""
        folder, data = self.folder.root, self.context.settings.data
        while not folder.exists():
            folder = folder.parent
        own = folder.stat().st_dev == data.stat().st_dev
        return shutil.disk_usage(folder).free - (self.context.settings.storage.reserve_mb * MEGABYTE if own else 0)

    def _wanted(self, job: Job) -> list[tuple[Path, int]]:
        found = [(self.folder.variant(one.bucket, one.key), one.size_bytes) for one in self._variants(job)]
        if source_needed(job):
            found.append((self.folder.staged(job.staging_path or ""), job.content_length))
        return found

    def _variants(self, job: Job) -> list[Variant]:
        return variants_of(job) if job.storage_backend == LOCAL or self.with_s3 else []

    async def _keep(self, job: Job) -> None:
        for variant in self._variants(job):
            await self._keep_variant(job, variant)
        if not self._variants(job):
            self.progress.counts["elsewhere"] += len(variants_of(job))
        if source_needed(job):
            await self._keep_source(job)

    async def _keep_variant(self, job: Job, variant: Variant) -> None:
        path = self.folder.variant(variant.bucket, variant.key)
        if not await self._has(path, variant.size_bytes, variant.digest):
            wrong = await self._fetch(job, variant, path)
            if wrong:
                self.absent.append(variant.path)
                self.progress.find(Finding(wrong, job.storage_backend, variant.path, job.image_id))
                return
        self.folders.add(path.parent)
        self._count("variants", variant.size_bytes)

    async def _has(self, path: Path, size: int, digest: str) -> bool:
        """Whether an earlier backup has copied the file. Under its final name its bytes are complete and synced."""
        if await anyio.to_thread.run_sync(_size, path) != size:
            return False
        return not self.digests or await digest_of(path) == digest

    async def _fetch(self, job: Job, variant: Variant, path: Path) -> Kind | None:
        """Copy a variant; returns the fault of the variant, if any. Raises OSError if the destination fails."""
        partial_path = partial_of(path)
        storage = self.context.storages.get(job.storage_backend)
        if storage is None:
            return "no_backend"
        await anyio.to_thread.run_sync(make_folders, path.parent, self.folder.root)
        await anyio.to_thread.run_sync(partial(partial_path.unlink, missing_ok=True))
        try:
            await storage.fetch(variant.bucket, variant.key, partial_path, variant.size_bytes)
        except NotStored:
            return "missing"
        except StorageError as error:
            await anyio.to_thread.run_sync(_try_to_write, partial_path, variant.size_bytes)
            log.warning("variant_not_read", path=variant.path, reason=str(error))
            return "unreadable"
        if await digest_of(partial_path) != variant.digest:
            await anyio.to_thread.run_sync(partial_path.unlink)
            return "wrong_digest"
        await anyio.to_thread.run_sync(settle, partial_path, path)
        self.progress.counts["copied"] += 1
        return None

    async def _keep_source(self, job: Job) -> None:
        name = job.staging_path or ""
        path = self.folder.staged(name)
        if not await self._has(path, job.content_length, job.sha256):
            try:
                await anyio.to_thread.run_sync(copy, self.context.staging / name, path)
            except FileNotFoundError:
                if unfinished(job):  # the source of a failed job may just have reached its retention time
                    self.absent.append(name)
                    self.progress.find(Finding("no_source", "staging", name, job.image_id))
                return
            self.progress.counts["copied"] += 1
        self.folders.add(path.parent)
        self._count("sources", job.content_length)

    def _count(self, what: str, size: int) -> None:
        self.progress.counts[what] += 1
        self.progress.counts[f"{what}_bytes"] += size

    def _copy_secrets(self) -> dict[str, str]:
        """Copy the secrets; returns {name: digest}. Named by digest: the earlier manifest may need old ones."""
        found: dict[str, str] = {}
        for name in SECRET_FILES:
            with suppress(FileNotFoundError):
                data = (self.context.settings.data / name).read_bytes()
                found[name] = hashlib.sha256(data).hexdigest()
                write_file(self.folder.secret(found[name]), data)
        return found

    async def _manifest(self, taken_at: str, database: Path, secrets: dict[str, str]) -> Manifest:
        counts = self.progress.counts
        return Manifest(
            version=__version__,
            taken_at=taken_at,
            database=database.name,
            database_bytes=(await anyio.to_thread.run_sync(database.stat)).st_size,
            database_sha256=await digest_of(database),
            variants=Whole(files=counts["variants"], bytes=counts["variants_bytes"]),
            staged=Whole(files=counts["sources"], bytes=counts["sources_bytes"]),
            elsewhere=counts["elsewhere"],
            absent=tuple(sorted(self.absent)),
            secrets=secrets,
        )


def _copy_database(path: Path, target: Path, copied: Callable[[int, int], None]) -> None:
    """Copy with SQLite's online backup inside a transaction: concurrent commits do not make it start over."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    target.touch(mode=0o600)
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as source,
            closing(sqlite3.connect(target, isolation_level=None)) as copy_,
        ):
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
            source.backup(copy_, pages=PAGES, progress=lambda _, left, total: copied(left, total))
            copy_.execute("PRAGMA journal_mode = DELETE")
        settle(target, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _try_to_write(path: Path, size: int) -> None:
    """Write a file of this size, to find out which side failed. Raises OSError if the destination can't take it."""
    path.unlink(missing_ok=True)
    try:
        with path.open("wb") as stream:
            stream.write(bytes(size))
            stream.flush()
            os.fsync(stream.fileno())
    finally:
        with suppress(OSError):
            path.unlink()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
