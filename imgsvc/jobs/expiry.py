"""Deletes images whose time has come: row and files, within a minute."""

from collections.abc import Callable

from .clocks import Clocks
from .deletion import Deletion
from .periodic import repeat
from .table.job_table import JobTable

EVERY_SECONDS = 15.0
PAGE = 100


class Expiry:
    """`expired` is called with the number of images that were deleted.

    Reads do not wait for this: an image whose moment has passed is not found, whatever its row and files.
    """

    def __init__(self, table: JobTable, deletion: Deletion, clocks: Clocks, expired: Callable[[int], None]) -> None:
        self._table = table
        self._deletion = deletion
        self._clocks = clocks
        self._expired = expired

    async def run(self) -> None:
        """Delete periodically, without end. What fails (the database refuses) is repeated at the next time."""
        await repeat(self.sweep, EVERY_SECONDS, "expiry_failed")

    async def sweep(self) -> None:
        """Delete all images that have expired, while both clocks agree. Raises sqlite3.Error or DatabaseUnavailable."""
        while self._clocks.agree and (jobs := await self._table.expired_images(PAGE)):
            for job in jobs:
                if not self._clocks.agree:
                    return
                if await self._deletion.expire(job) is not None:
                    self._expired(1)
