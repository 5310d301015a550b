"""Variants in memory, for tests. They are lost with the process."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from .base import Blob, Differs, NotStored, Original, Stored, is_probe


class MemoryStorage:
    name = "memory"

    def __init__(self) -> None:
        self._stored: dict[tuple[str, str], bytes] = {}
        self._modified: dict[tuple[str, str], datetime] = {}

    async def put(self, bucket: str, key: str, source: Path) -> None:
        self._stored[bucket, key] = await anyio.to_thread.run_sync(source.read_bytes)
        self._modified[bucket, key] = datetime.now(UTC)

    async def copy(self, bucket: str, key: str, original: Original) -> None:
        data = self._stored.get((original.bucket, original.key))
        if data is None:
            raise NotStored(original.key)
        if len(data) != original.size_bytes or hashlib.sha256(data).hexdigest() != original.sha256:
            raise Differs(original.key)
        self._stored[bucket, key] = data
        self._modified[bucket, key] = datetime.now(UTC)

    async def remove(self, bucket: str, key: str) -> bool:
        return self._stored.pop((bucket, key), None) is not None

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        try:
            return Blob(self._stored[bucket, key][start : start + length], _nothing())
        except KeyError:
            raise NotStored(key) from None

    async def size(self, bucket: str, key: str) -> int | None:
        data = self._stored.get((bucket, key))
        return None if data is None else len(data)

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:  # noqa: ARG002
        if (bucket, key) not in self._stored:
            raise NotStored(key)
        await anyio.to_thread.run_sync(target.write_bytes, self._stored[bucket, key])

    async def everything(self) -> AsyncIterator[Stored]:
        for bucket, key in list(self._stored):
            data, modified = self._stored.get((bucket, key)), self._modified.get((bucket, key))
            if data is not None and modified is not None and not is_probe(bucket):
                yield Stored(bucket, key, len(data), modified)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
