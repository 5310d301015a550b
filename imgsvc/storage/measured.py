"""Any storage, with somebody told how each operation went."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

from .base import Blob, NotStored, Storage, Stored

Operation = Literal["put", "read", "remove"]
OperationStatus = Literal["ok", "missing", "error"]
Told = Callable[[str, Operation, OperationStatus, float], None]


class MeasuredStorage:
    """`told` gets the backend, the operation, how it went, and the seconds. A read ends with its first bytes.

    What only the operator's upkeep asks for is not measured: it would drown what clients see.
    """

    def __init__(self, storage: Storage, told: Told) -> None:
        self.name = storage.name
        self._storage = storage
        self._told = told

    async def put(self, bucket: str, key: str, source: Path) -> None:
        began = time.perf_counter()
        try:
            await self._storage.put(bucket, key, source)
        except Exception:
            self._tell("put", "error", began)
            raise
        self._tell("put", "ok", began)

    async def remove(self, bucket: str, key: str) -> bool:
        began = time.perf_counter()
        try:
            found = await self._storage.remove(bucket, key)
        except Exception:
            self._tell("remove", "error", began)
            raise
        self._tell("remove", "ok" if found else "missing", began)
        return found

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        began = time.perf_counter()
        try:
            blob = await self._storage.read(bucket, key, start, length)
        except NotStored:
            self._tell("read", "missing", began)
            raise
        except Exception:
            self._tell("read", "error", began)
            raise
        self._tell("read", "ok", began)
        return blob

    async def size(self, bucket: str, key: str) -> int | None:
        return await self._storage.size(bucket, key)

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        await self._storage.fetch(bucket, key, target, size)

    def everything(self) -> AsyncIterator[Stored]:
        return self._storage.everything()

    async def services(self) -> list[str]:
        return await self._storage.services()

    def _tell(self, operation: Operation, status: OperationStatus, began: float) -> None:
        self._told(self.name, operation, status, time.perf_counter() - began)
