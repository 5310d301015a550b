"""Finds files that no row names."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import cast

from ..jobs.table.model import now
from ..lazy_dataclass import dataclass
from ..storage.base import LOCAL, Storage, Stored
from ..storage.keys import StoredName
from .context import MaintenanceContext
from .ownership import disposition, place_of
from .progress import Progress

TOGETHER = 100  # files whose rows are read in one query


@dataclass(frozen=True, slots=True)
class Orphan:
    """A stored file without a row. `place` is None for a foreign file."""

    storage: Storage
    stored: Stored
    place: StoredName | None

    @property
    def path(self) -> str:
        return f"{self.stored.bucket}/{self.stored.key}".lstrip("/")


async def orphans(
    context: MaintenanceContext, older_than: timedelta, progress: Progress
) -> AsyncGenerator[Orphan, None]:
    """Yield the files that no row needs and that have not changed for `older_than`; younger ones count as `settling`.

    Rows are read after the files were listed, since a row exists before its files. Each file is checked once more after
    its row, since it may have been deleted in between. Raises StorageError.
    """
    for storage in context.storages.values():
        if storage.name == LOCAL and not await context.claim.is_used():
            continue
        batch: list[Stored] = []
        everything = storage.everything()
        async with aclosing(cast(AsyncGenerator[Stored, None], everything)):
            async for stored in everything:
                batch.append(stored)
                if len(batch) == TOGETHER:
                    for orphan in await _of(context, storage, batch, older_than, progress):
                        yield orphan
                    batch.clear()
        for orphan in await _of(context, storage, batch, older_than, progress):
            yield orphan


async def _of(
    context: MaintenanceContext, storage: Storage, batch: list[Stored], older_than: timedelta, progress: Progress
) -> list[Orphan]:
    placed = [(stored, place_of(stored)) for stored in batch]
    owners = await context.scan.owners(place.image_id for _, place in placed if place)
    latest = now() - older_than
    found = []
    for stored, place in placed:
        progress.advance(progress.done + 1, max(progress.total, progress.done + 1))
        if place and disposition(place, storage.name, owners.get(place.image_id)) != "orphaned":
            continue
        if await storage.size(stored.bucket, stored.key) is None:
            continue
        if stored.modified > latest:
            progress.counts["settling"] += 1
            continue
        found.append(Orphan(storage, stored, place))
    return found
