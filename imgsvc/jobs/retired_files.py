"""Removes files that were replaced by newer ones, or that a further render left, once their time is over."""

from collections.abc import Mapping, Sequence

import anyio
import structlog

from ..storage.base import Storage
from .deletion_hold import DeletionHold
from .publish import WITHDRAW_SECONDS
from .table.further_render import RetiredKey
from .table.further_table import FurtherTable
from .table.model import Job

log = structlog.get_logger()

PAGE = 100  # rows read in one query


class RetiredFiles:
    def __init__(self, table: FurtherTable, storages: Mapping[str, Storage], hold: DeletionHold) -> None:
        self._table = table
        self._storages = storages
        self._hold = hold

    async def remove_due(self) -> None:
        """Remove all whose time is over. What can't be removed now is tried again at the next sweep."""
        after = 0
        while not self._hold.active and (page := await self._table.retired(after, PAGE)):
            await self._remove(page)
            after = page[-1].key_id
        await self._table.drop_retired()

    async def remove_of(self, job: Job) -> int:
        """Remove those of a deleted image; returns how many files there were."""
        return 0 if self._hold.active else await self._remove(await self._table.retired_of(job))

    async def _remove(self, retired: Sequence[RetiredKey]) -> int:
        found = 0
        for one in retired:
            if self._hold.active:
                break
            try:
                with anyio.fail_after(WITHDRAW_SECONDS):
                    found += await self._storages[one.backend].remove(one.bucket, one.key)
            except Exception as error:  # a custom storage may raise anything
                log.warning("retired_file_not_removed", backend=one.backend, key=one.key, reason=str(error))
                continue
            await self._table.retired_removed(one)
        return found
