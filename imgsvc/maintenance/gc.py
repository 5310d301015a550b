"""Removes files that no row names: the only maintenance task that deletes anything for good."""

from contextlib import aclosing
from datetime import timedelta

import structlog

from ..storage.base import HEALTH, SharedStorage, StorageError
from .context import MaintenanceContext
from .orphans import Orphan, orphans
from .ownership import disposition
from .progress import Finding, Kind, MaintenanceFailed, Progress

log = structlog.get_logger()


async def gc(
    context: MaintenanceContext, progress: Progress, *, older_than: timedelta, foreign: bool, dry_run: bool
) -> bool:
    """Remove orphans that have not changed for the given time, foreign files only on request; returns whether all went.

    Raises MaintenanceFailed if another service's images would look like orphans.
    """
    if not dry_run:
        if not context.clocks.agree:
            raise MaintenanceFailed(
                "The wall clock jumped, so the age of a file means little: gc removes nothing until it and the time "
                f"since the boot have agreed for {context.clocks.seconds_left / 60:.0f} more minutes."
            )
        await _alone(context)
    progress.begin("files")
    found = orphans(context, older_than, progress)
    async with aclosing(found):
        async for orphan in found:
            if orphan.place is None and not foreign:
                progress.counts["foreign"] += 1
            elif dry_run:
                kind: Kind = "orphaned" if orphan.place else "foreign"
                progress.find(Finding(kind, orphan.storage.name, orphan.path, None, orphan.stored.size_bytes))
            else:
                await _remove(context, progress, orphan)
    return dry_run or progress.found == 0


async def _alone(context: MaintenanceContext) -> None:
    """Check that no other service shares the storage: files without a row here could have one there."""
    for name, storage in context.storages.items():
        others = set(await storage.services()) - {context.instance} if isinstance(storage, SharedStorage) else ()
        for other in others:
            raise MaintenanceFailed(
                f"Another service keeps its images in {name} too, and gc would remove them. "
                f"If it is gone for good, remove the object {HEALTH}/{other}/probe first."
            )


async def _remove(context: MaintenanceContext, progress: Progress, orphan: Orphan) -> None:
    """Remove one orphan, under housekeeping's lock: no failed job may restart between the check and the removal."""
    place, stored = orphan.place, orphan.stored
    async with context.housekeeping.exclusive():
        if place is not None:
            owners = await context.scan.owners([place.image_id])
            if disposition(place, orphan.storage.name, owners.get(place.image_id)) != "orphaned":
                return
        bucket, key = (place.bucket, place.key) if place else (stored.bucket, stored.key)
        try:
            removed = await orphan.storage.remove(bucket, key)
        except StorageError as error:
            log.warning("orphan_not_removed", backend=orphan.storage.name, path=orphan.path, reason=str(error))
            progress.find(Finding("not_removed", orphan.storage.name, orphan.path, None, stored.size_bytes))
            return
    if removed:
        progress.counts["removed"] += 1
        progress.counts["removed_bytes"] += stored.size_bytes
        log.info("stored_orphan_removed", backend=orphan.storage.name, path=orphan.path, bytes=stored.size_bytes)
