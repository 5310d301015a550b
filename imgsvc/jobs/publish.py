"""Moves variants from a scratch folder into storage: each one is durable before the table names it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path

import anyio
import structlog

from ..imaging.recipe import SOURCE
from ..lazy_dataclass import dataclass
from ..storage.base import Copying, Original, PuttingTogether, Storage, StorageBusy, StorageError
from .incoming import IncomingRun
from .kept_source import KeptFile
from .lanes.messages import VariantMade
from .lanes.time_limit import TimeLimit
from .rendered_files import checked_file
from .table.model import Job

log = structlog.get_logger()

WITHDRAW_SECONDS = 20.0  # a storage that hangs must not delay a deletion: a later sweep continues
PUT_SECONDS = 60.0
PUT_BYTES_PER_SECOND = 200_000
_LATE: set["asyncio.Future[None]"] = set()  # abandoned puts that still run: asyncio keeps only weak references to tasks


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """Where the checked variants of a run are: each is its `checked_file` of `copies`, and the storage may have it too.

    `source` is to be kept beside them.
    """

    copies: Path
    variants: Sequence[VariantMade]
    incoming: IncomingRun | None = None
    source: KeptFile | None = None


async def publish(storage: Storage, bucket: str, keys: Mapping[str, str], files: CheckedFiles) -> None:
    """Store variants under {variant: key}, and the source that is kept. Raises as `store_all`."""
    made, source = {one.name: one for one in files.variants}, files.source

    async def put(name: str, key: str) -> None:
        if source is not None and name == SOURCE:
            await storage.put(bucket, key, source.path)
            return
        original = files.incoming.original(made[name]) if files.incoming else None
        if original is None or not await _copied(storage, bucket, key, original):
            await storage.put(bucket, key, checked_file(files.copies, name))

    every = {**keys, SOURCE: source.key} if source else keys
    size_bytes = sum(one.size_bytes for one in (*files.variants, *([source] if source else ())))
    if files.incoming is None and isinstance(storage, PuttingTogether):
        await in_time(_put_together(storage, storage, bucket, keys, files), size_bytes)
    else:
        await store_all(every, size_bytes, put)


async def _put_together(
    storage: Storage, together: PuttingTogether, bucket: str, keys: Mapping[str, str], files: CheckedFiles
) -> None:
    """The files may be linked: this process has written them, and writes to none of them again."""
    sources = {key: checked_file(files.copies, name) for name, key in keys.items()}
    if files.source and files.source.path == checked_file(files.copies, SOURCE):
        sources[files.source.key] = files.source.path
    elif files.source:  # the upload itself, whose mode is another
        await storage.put(bucket, files.source.key, files.source.path)
    await together.put_all(bucket, sources)


async def _copied(storage: Storage, bucket: str, key: str, original: Original) -> bool:
    """Whether the store has copied what a machine put. It may have put something else meanwhile: then it has not."""
    if not isinstance(storage, Copying):
        return False
    try:
        await storage.copy(bucket, key, original)
    except StorageBusy:
        raise
    except StorageError as error:
        log.warning("incoming_not_copied", key=original.key, reason=str(error))
        return False
    return True


async def store_all(keys: Mapping[str, str], size_bytes: int, store: Callable[[str, str], Awaitable[None]]) -> None:
    """Call `store` with each (variant, key) concurrently.

    Raises StorageBusy if any call raised it, else the first failure: a StorageError, or whatever the storage raised.
    Calls that take too long (`in_time`) are a StorageError too.
    """
    failures: list[Exception] = []

    async def put(name: str, key: str) -> None:
        try:
            await store(name, key)
        except Exception as error:  # all calls end before the first failure is raised
            failures.append(error)

    async def put_all() -> None:
        async with anyio.create_task_group() as group:
            for name, key in keys.items():
                group.start_soon(put, name, key)

    await in_time(put_all(), size_bytes)
    if failures:
        raise next((failure for failure in failures if isinstance(failure, StorageBusy)), failures[0])


async def in_time(storing: Coroutine[None, None, None], size_bytes: int) -> None:
    """Raises StorageError if it takes longer than PUT_SECONDS plus a second for each PUT_BYTES_PER_SECOND."""
    scope = anyio.CancelScope()

    async def store() -> None:
        with scope:
            await storing

    seconds = PUT_SECONDS + size_bytes / PUT_BYTES_PER_SECOND
    # A separate task: a thread that hangs in a system call can't be cancelled, and must not block the job.
    putting = asyncio.ensure_future(store())
    try:
        with TimeLimit(seconds):
            await asyncio.wait({putting})
    except TimeoutError:
        raise StorageError(f"not stored within {seconds:.0f} seconds") from None
    finally:
        if not putting.done():
            scope.cancel()
            _LATE.add(putting)
            putting.add_done_callback(_end_late)
    putting.result()


def _end_late(putting: "asyncio.Future[None]") -> None:
    _LATE.discard(putting)
    if not putting.cancelled():
        putting.exception()  # retrieved, so that asyncio does not report it


async def withdraw(storage: Storage, job: Job, keys: Iterable[str]) -> tuple[int, bool]:
    """Remove stored variants; returns their number, and whether storage has confirmed that all are gone."""
    wanted = list(keys)
    found: list[bool] = []

    async def remove(key: str) -> None:
        try:
            found.append(await storage.remove(job.storage_bucket, key))
        except Exception as error:  # a custom storage may raise anything
            log.warning("withdraw_failed", job_id=job.job_id, trace_id=job.trace_id, key=key, reason=str(error))

    with anyio.move_on_after(WITHDRAW_SECONDS):
        async with anyio.create_task_group() as group:
            for key in wanted:
                group.start_soon(remove, key)
    return sum(found), len(found) == len(wanted)
