"""Removes files that only earlier backups needed, after a backup."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import cast

import anyio.to_thread

from ...jobs.table.model import Job
from ...jobs.table.scan import JobScan
from ...storage.base import Stored
from ...storage.local import LocalStorage
from ..context import source_needed
from ..ownership import place_of
from .folder import SECRETS, STAGED, VARIANTS, BackupFolder, Manifest

TOGETHER = 100


async def prune(folder: BackupFolder, scan: JobScan, manifest: Manifest) -> None:
    await anyio.to_thread.run_sync(folder.drop_databases, manifest.database)
    await anyio.to_thread.run_sync(_old_secrets, folder.root, set(manifest.secrets.values()))
    await _variants(folder, scan)
    await _sources(folder, scan)


def _old_secrets(root: Path, current: set[str]) -> None:
    for path in (root / SECRETS).iterdir():
        if path.name not in current and not path.is_dir():
            path.unlink()


async def _variants(folder: BackupFolder, scan: JobScan) -> None:
    everything = LocalStorage(folder.root / VARIANTS).everything()
    batch: list[Stored] = []
    async with aclosing(cast(AsyncGenerator[Stored, None], everything)):
        async for stored in everything:
            batch.append(stored)
            if len(batch) == TOGETHER:
                await _prune_variants(folder, scan, batch)
                batch.clear()
    await _prune_variants(folder, scan, batch)


async def _prune_variants(folder: BackupFolder, scan: JobScan, batch: list[Stored]) -> None:
    placed = [(stored, place_of(stored)) for stored in batch]
    owners = await scan.owners(place.image_id for _, place in placed if place)
    for _, place in placed:
        owner = owners.get(place.image_id) if place and not place.partial else None
        if place is None:  # a file of a file manager or a sync program: not ours to remove
            continue
        if owner is None or not _names(owner.job, place.key) or owner.job.storage_bucket != place.bucket:
            path = folder.variant(place.bucket, place.key)
            await anyio.to_thread.run_sync(partial(path.unlink, missing_ok=True))


def _names(job: Job, key: str) -> bool:
    return key in job.names or (job.kept_source is not None and key == job.source_key)


async def _sources(folder: BackupFolder, scan: JobScan) -> None:
    needed = {job.staging_path async for job in scan.jobs(lambda _done, _total: None) if source_needed(job)}

    def remove() -> None:
        for path in (folder.root / STAGED).iterdir():
            if path.name not in needed and not path.is_dir():
                path.unlink()

    await anyio.to_thread.run_sync(remove)
