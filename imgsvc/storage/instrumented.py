"""Any storage, with somebody told how each operation went."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .base import Blob, NotStored, Storage, Stored

Operation = Literal["put", "read", "remove"]
OperationStatus = Literal["ok", "missing", "error"]
Told = Callable[[str, Operation, OperationStatus, float], None]


@dataclass(slots=True)
class _Timed:
    """How an operation went that raised nothing."""

    status: OperationStatus = "ok"


class InstrumentedStorage:
    """`told` gets the backend, the operation, how it went, and the seconds. A read ends with its first bytes.

    What only the operator's upkeep asks for is not measured: it would drown what clients see.
    """

    def __init__(self, storage: Storage, told: Told) -> None:
        self.name = storage.name
        self._storage = storage
        self._told = told

    async def put(self, bucket: str, key: str, source: Path) -> None:
        with self._timed("put"):
            await self._storage.put(bucket, key, source)

    async def remove(self, bucket: str, key: str) -> bool:
        with self._timed("remove") as timed:
            found = await self._storage.remove(bucket, key)
            timed.status = "ok" if found else "missing"
        return found

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        with self._timed("read"):
            return await self._storage.read(bucket, key, start, length)

    async def size(self, bucket: str, key: str) -> int | None:
        return await self._storage.size(bucket, key)

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        await self._storage.fetch(bucket, key, target, size)

    def everything(self) -> AsyncIterator[Stored]:
        return self._storage.everything()

    async def services(self) -> list[str]:
        return await self._storage.services()

    @contextmanager
    def _timed(self, operation: Operation) -> Iterator[_Timed]:
        """Tell how the body of the `with` statement went; one that was cancelled is not told."""
        timed, began = _Timed(), time.perf_counter()
        try:
            yield timed
        except Exception as error:
            status: OperationStatus = "missing" if isinstance(error, NotStored) else "error"
            self._told(self.name, operation, status, time.perf_counter() - began)
            raise
        self._told(self.name, operation, timed.status, time.perf_counter() - began)
