"""Everything a maintenance task needs, whether it runs in the service or in a stand-alone command."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, cast
from uuid import uuid4

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream

from ..imaging.recipe import SOURCE
from ..jobs.clocks import Clocks
from ..jobs.deletion_hold import DeletionHold
from ..jobs.housekeeping import Housekeeping
from ..jobs.instance import StorageClaim
from ..jobs.staging_area import StagingArea
from ..jobs.table.job_table import JobTable
from ..jobs.table.model import Job
from ..jobs.table.scan import JobScan
from ..lazy_dataclass import dataclass
from ..settings import Settings
from ..storage.base import Storage

if TYPE_CHECKING:
    from ..jobs.data_folder import DataFolder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MaintenanceContext:
    settings: Settings
    table: JobTable
    scan: JobScan
    storages: Mapping[str, Storage]
    staging: Path
    staging_area: StagingArea
    scratch: Path
    housekeeping: Housekeeping
    hold: DeletionHold
    instance: str  # this service's ID in a storage that several may share
    claim: StorageClaim
    clocks: Clocks

    @classmethod
    def of(
        cls,
        settings: Settings,
        data: "DataFolder",
        storages: Mapping[str, Storage],
        housekeeping: Housekeeping,
        hold: DeletionHold,
    ) -> Self:
        return cls(
            settings,
            data.table,
            data.scan,
            storages,
            data.staging,
            data.staging_area,
            data.scratch,
            housekeeping,
            hold,
            data.instance,
            data.claim,
            data.clocks,
        )


@dataclass(frozen=True, slots=True)
class Variant:
    """A stored variant as its row names it."""

    name: str
    bucket: str
    key: str
    size_bytes: int
    digest: str

    @property
    def path(self) -> str:
        return f"{self.bucket}/{self.key}"


def variants_of(job: Job) -> list[Variant]:
    """The variants that can be fetched, and the kept source: none of a failed job, although its row may list files for
    removal.
    """
    made, kept = job.measured.get("variants", {}), job.kept_source
    source = [Variant(SOURCE, kept.bucket, kept.key, kept.size_bytes, kept.digest)] if kept else []
    return source + [
        Variant(name, job.storage_bucket, key, made[name]["size_bytes"], made[name]["sha256"])
        for name, key in job.ready.items()
        if name in made
    ]


def unfinished(job: Job) -> bool:
    return job.status in ("pending", "processing", "retrying")


def source_needed(job: Job) -> bool:
    """Whether the uploaded bytes are still needed, or may be."""
    return job.staging_path is not None and (unfinished(job) or job.can_retry)


@asynccontextmanager
async def scratch_file(scratch: Path) -> AsyncIterator[Path]:
    """Yield the path of a temporary local file, which is removed afterwards."""
    path = scratch / f"upkeep-{uuid4().hex}"
    try:
        yield path
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))


async def fetched_digest(scratch: Path, storage: Storage, variant: Variant) -> str:
    """The SHA-256 of a stored variant, in hex. Raises NotStored or StorageError."""
    async with scratch_file(scratch) as path:
        await storage.fetch(variant.bucket, variant.key, path, variant.size_bytes)
        return await digest_of(path)


async def digest_of(path: Path) -> str:
    def digest() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return await anyio.to_thread.run_sync(digest)


async def for_each_concurrently(items: AsyncIterator[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Run `work` for each item, `at_once` at a time, with no more items in memory. The first error ends everything."""
    send, receive = anyio.create_memory_object_stream[T](0)
    failures: list[Exception] = []

    async def serve(mine: MemoryObjectReceiveStream[T], scope: anyio.CancelScope) -> None:
        async with mine:
            async for item in mine:
                try:
                    await work(item)
                except Exception as error:
                    failures.append(error)
                    scope.cancel()
                    return

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(serve, receive.clone(), group.cancel_scope)
        # `items` is an async generator: if it is abandoned halfway, close it now rather than in garbage collection.
        async with send, receive, aclosing(cast(AsyncGenerator[T, None], items)):
            try:
                async for item in items:
                    await send.send(item)
            except Exception as error:  # raised here, it would be wrapped in an exception group
                failures.append(error)
                group.cancel_scope.cancel()
    if failures:
        raise failures[0]
