"""The memory of small variants, so that one that was read before takes neither a thread nor an open file.

The bytes under a storage key do not change while its row names their digest; the key is that of the storage and not the
URL, so that all URLs of a variant share one copy. What a storage changes or removes is forgotten in the same step.
"""

from collections.abc import Hashable

from .base import Storage
from .bounded_memory import BoundedMemory

SMALL_BYTES = 64 * 1024
OVERHEAD_BYTES = 1024  # of a kept variant: its key, its digest, the entry


class VariantMemory:
    """Counts `hits` and `misses` of the small variants. Off, it counts nothing."""

    def __init__(self, memory: BoundedMemory) -> None:
        self.hits = self.misses = 0
        self._memory = memory

    @property
    def held_bytes(self) -> int:
        """Of the whole memory, which other reads share."""
        return self._memory.held_bytes

    def takes(self, size_bytes: int) -> bool:
        """Whether a variant of this size is kept."""
        return 0 < size_bytes <= min(SMALL_BYTES, self._memory.largest - OVERHEAD_BYTES)

    def get(self, backend: str, bucket: str, key: str, digest: str) -> bytes | None:
        """The whole variant, if its bytes are those of this digest."""
        found: tuple[str, bytes] | None = self._memory.get(_key(backend, bucket, key))
        if found is None or found[0] != digest:
            self.misses += 1
            return None
        self.hits += 1
        return found[1]

    async def read(self, storage: Storage, bucket: str, key: str, digest: str, size_bytes: int) -> bytes:
        """Read a whole variant that `takes` its size, and keep it. Raises NotStored or StorageError.

        Bytes that are fewer than the size are returned, and not kept.
        """
        with self._memory.fetch() as fetch:
            blob = await storage.read(bucket, key, 0, size_bytes)
            data = b"".join([blob.first, *[piece async for piece in blob.rest]])
            if len(data) == size_bytes:
                self._memory.put(fetch, _key(storage.name, bucket, key), (digest, data), size_bytes + OVERHEAD_BYTES)
        return data

    def forget(self, backend: str, bucket: str, key: str) -> None:
        """Forget a file that is replaced or removed."""
        self._memory.forget(_key(backend, bucket, key))


def _key(backend: str, bucket: str, key: str) -> Hashable:
    return (backend, bucket, key)
