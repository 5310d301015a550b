"""Does the storage still take, give and remove? Under `.health`, which holds nobody's picture."""

import time
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from ..storage.base import NotStored, Storage, StorageAway, StorageError

PROVE_EVERY_SECONDS = {"s3": 300.0}  # where each request is paid for, a read has to do between two proofs
PROBE = b"ok"
REMOVAL_SECONDS = 1.0  # that the removal may take, also when the check is over or the service stops


class StorageProbe:
    """`file` is written here and put there. `instance` tells the services apart that share a storage.

    `claim` is tried where the folder does not hold this service's id: it may never have got one.
    """

    def __init__(
        self, storage: Storage, file: Path, instance: str, claim: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._storage = storage
        self._file = file
        self._claim = claim
        self._every = PROVE_EVERY_SECONDS.get(storage.name, 0.0)
        self._bucket = f".health/{instance}" if self._every else ".health"
        self._proved = -inf

    async def check(self) -> str:
        """What was done, in words. Raises StorageError or OSError; then the next check does it all again."""
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
            finally:  # bounded: on a disk that does not answer it would keep the service from ending
                with anyio.move_on_after(REMOVAL_SECONDS, shield=True) as removal:
                    await self._remove()
            await anyio.lowlevel.checkpoint_if_cancelled()
            if removal.cancelled_caught:
                raise StorageError("removing took too long", "What was written could not be removed in time.")
            return "written, read and removed"
        proved, self._proved = self._proved, -inf
        if time.monotonic() - proved < self._every and await self._still_there():
            self._proved = proved
            return "read"
        await self._put()
        await self._read()
        await self._remove()
        await self._put()  # it stays, for the reads until the next proof
        await self._read()
        self._proved = time.monotonic()
        return "written, read and removed"

    async def _still_there(self) -> bool:
        try:
            await self._read()
        except NotStored:  # somebody tidied up
            return False
        return True

    async def _put(self) -> None:
        await anyio.to_thread.run_sync(self._file.write_bytes, PROBE, abandon_on_cancel=True)
        await self._storage.put(self._bucket, "probe", self._file)

    async def _read(self) -> None:
        blob = await self._storage.read(self._bucket, "probe", 0, len(PROBE))
        if blob.first != PROBE:
            raise StorageError("what was read is not what was written", "What was read is not what was written.")

    async def _remove(self) -> None:
        await self._storage.remove(self._bucket, "probe")
