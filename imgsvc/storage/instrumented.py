"""Wraps a storage and reports the duration of each operation, and which files change."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from ..lazy_dataclass import dataclass
from .base import Blob, Copying, NotStored, Original, PuttingTogether, SharedStorage, Storage, StorageError, Stored

Operation = Literal["put", "copy", "read", "remove"]
OperationStatus = Literal["ok", "missing", "error"]
OnOperation = Callable[[str, Operation, OperationStatus, float], None]
OnChange = Callable[[str, str, str], None]


@dataclass(slots=True)
class _Timed:
    """The outcome of an operation that did not raise."""

    status: OperationStatus = "ok"


class InstrumentedStorage:
    """Calls `on_operation` with (backend, operation, outcome, seconds). A read ends with its first bytes.

    Calls `on_change` with (backend, bucket, key) once a file was put, copied or removed, or may have been.

    Operations that only maintenance uses are not measured: they would outnumber the clients'.
    """

    def __init__(self, storage: Storage, on_operation: OnOperation, on_change: OnChange) -> None:
        self.name = storage.name
        self._storage = storage
        self._on_operation = on_operation
        self._on_change = on_change

    async def put(self, bucket: str, key: str, source: Path) -> None:
        with self._timed("put"), self._changing(bucket, key):
            await self._storage.put(bucket, key, source)

    async def copy(self, bucket: str, key: str, original: Original) -> None:
        if not isinstance(self._storage, Copying):
            raise StorageError("this storage can't copy")
        with self._timed("copy"), self._changing(bucket, key):
            await self._storage.copy(bucket, key, original)

    async def remove(self, bucket: str, key: str) -> bool:
        with self._timed("remove") as timed, self._changing(bucket, key):
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

    @contextmanager
    def _changing(self, bucket: str, key: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._on_change(self.name, bucket, key)

    @contextmanager
    def _timed(self, operation: Operation) -> Iterator[_Timed]:
        """Report the outcome of the `with` body. A cancelled operation is not reported."""
        timed, began = _Timed(), time.perf_counter()
        try:
            yield timed
        except Exception as error:
            status: OperationStatus = "missing" if isinstance(error, NotStored) else "error"
            self._on_operation(self.name, operation, status, time.perf_counter() - began)
            raise
        self._on_operation(self.name, operation, timed.status, time.perf_counter() - began)


class InstrumentedSharedStorage(InstrumentedStorage):
    def __init__(self, storage: Storage, shared: SharedStorage, on_operation: OnOperation, on_change: OnChange) -> None:
        super().__init__(storage, on_operation, on_change)
        self.probe_interval = shared.probe_interval
        self.services = shared.services


class InstrumentedTogether(InstrumentedStorage):
    """Of files that are put or copied together each counts, and takes as long as all."""

    def __init__(
        self, storage: Storage, together: PuttingTogether, on_operation: OnOperation, on_change: OnChange
    ) -> None:
        super().__init__(storage, on_operation, on_change)
        self._together = together

    async def put_all(self, bucket: str, sources: Mapping[str, Path]) -> None:
        with self._watched("put", bucket, sources):
            await self._together.put_all(bucket, sources)

    async def copy_all(self, bucket: str, originals: Mapping[str, Original]) -> None:
        with self._watched("copy", bucket, originals):
            await self._together.copy_all(bucket, originals)

    @contextmanager
    def _watched(self, operation: Operation, bucket: str, keys: Iterable[str]) -> Iterator[None]:
        with ExitStack() as watched:
            for key in keys:
                watched.enter_context(self._timed(operation))
                watched.enter_context(self._changing(bucket, key))
            yield


def instrumented(storage: Storage, on_operation: OnOperation, on_change: OnChange) -> Storage:
    """Measure a storage without hiding that services share it, or that it puts files together."""
    if isinstance(storage, SharedStorage):
        return InstrumentedSharedStorage(storage, storage, on_operation, on_change)
    if isinstance(storage, PuttingTogether):
        return InstrumentedTogether(storage, storage, on_operation, on_change)
    return InstrumentedStorage(storage, on_operation, on_change)
