"""Variants in memory, for tests: gone with the process."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread

from .base import Blob, NotStored


class MemoryStorage:
    name = "memory"

    def __init__(self) -> None:
        self._stored: dict[tuple[str, str], bytes] = {}

    async def put(self, bucket: str, key: str, source: Path) -> None:
        self._stored[bucket, key] = await anyio.to_thread.run_sync(source.read_bytes)

    async def remove(self, bucket: str, key: str) -> bool:
        return self._stored.pop((bucket, key), None) is not None

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        try:
            return Blob(self._stored[bucket, key][start : start + length], _nothing())
        except KeyError:
            raise NotStored(key) from None


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
