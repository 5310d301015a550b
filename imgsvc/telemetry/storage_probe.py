"""The health check of a storage: stores, reads and removes a probe under `.health`, where no image is."""

import time
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from ..storage.base import HEALTH, NotStored, SharedStorage, Storage, StorageAway, StorageError

PROBE = b"ok"
REMOVAL_SECONDS = 1.0  # the most that the removal may take, even if the check has ended or the service stops


class StorageProbe:
    """Checks one storage. `file` is the probe's local copy; `instance` distinguishes services that share a storage.

    `claim` is tried if the folder lacks this service's ID: it may never have received one.
    """

    def __init__(
        self, storage: Storage, file: Path, instance: str, claim: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._storage = storage
        self._file = file
        self._claim = claim
        self._every, self._bucket = 0.0, HEALTH
        if isinstance(storage, SharedStorage):
            self._every, self._bucket = storage.probe_interval, f"{HEALTH}/{instance}"
        self._proved = -inf

    async def check(self) -> str:
        """Run the check; returns what was done, in words. Raises StorageError or OSError: then a full check follows."""
        try:
            return await self._check()
        except StorageAway:
            if self._claim is None:
                raise
            await self._claim()
            return await self._check()

    async def _check(self) -> str:
        if not self._every:
            await self._put()
            try:
                await self._read()
            finally:  # bounded: on a disk that does not respond it would prevent the service from stopping
                with anyio.move_on_after(REMOVAL_SECONDS, shield=True) as removal:
                    await self._remove()
            await anyio.lowlevel.checkpoint_if_cancelled()
            if removal.cancelled_caught:
                raise StorageError("removing took too long", "The probe could not be removed in time.")
            return "written, read and removed"
        proved, self._proved = self._proved, -inf
        if time.monotonic() - proved < self._every and await self._still_there():
            self._proved = proved
            return "read"
        await self._put()
        await self._read()
        await self._remove()
        await self._put()  # it stays, for the reads until the next full check
        await self._read()
        self._proved = time.monotonic()
        return "written, read and removed"

    async def _still_there(self) -> bool:
        try:
            await self._read()
        except NotStored:  # the probe was removed by someone else
            return False
        return True

    async def _put(self) -> None:
        await anyio.to_thread.run_sync(self._file.write_bytes, PROBE, abandon_on_cancel=True)
        await self._storage.put(self._bucket, "probe", self._file)

    async def _read(self) -> None:
        blob = await self._storage.read(self._bucket, "probe", 0, len(PROBE))
        if blob.first != PROBE:
            raise StorageError("the bytes read differ from those written", "The bytes read differ from those written.")

    async def _remove(self) -> None:
        await self._storage.remove(self._bucket, "probe")
