"""From a scratch folder into storage: every variant durable before the table may say so."""

from collections.abc import Iterable
from pathlib import Path

import anyio
import structlog

from ..imaging.recipe import scratch_file
from ..storage.base import Storage, StorageBusy
from .model import Job

log = structlog.get_logger()

WITHDRAW_SECONDS = 20.0  # a storage that hangs must not hold up whoever deletes: a later sweep goes on


async def publish(storage: Storage, job: Job, variants: Iterable[str], folder: Path) -> dict[str, str]:
    """Put the named variants, side by side; returns {variant: key}.

    Raises StorageBusy if one met it, else the first failure: a StorageError, or whatever the storage raised.
    """
    keys = {name: job.key(name) for name in variants}
    failures: list[Exception] = []

    async def put(name: str, key: str) -> None:
        try:
            await storage.put(job.storage_bucket, key, scratch_file(folder, name))
        except Exception as error:  # all are ended before the first failure is told
            failures.append(error)

    async with anyio.create_task_group() as group:
        for name, key in keys.items():
            group.start_soon(put, name, key)
    if failures:
        raise next((failure for failure in failures if isinstance(failure, StorageBusy)), failures[0])
    return keys


async def withdraw(storage: Storage, job: Job, keys: Iterable[str]) -> tuple[int, bool]:
    """Remove what was put: how many files there were, and whether storage has confirmed that all are gone."""
    wanted = list(keys)
    found: list[bool] = []

    async def remove(key: str) -> None:
        try:
            found.append(await storage.remove(job.storage_bucket, key))
        except Exception as error:  # a storage may be somebody's own, and raise anything
            log.warning("withdraw_failed", job_id=job.job_id, trace_id=job.trace_id, key=key, reason=str(error))

    with anyio.move_on_after(WITHDRAW_SECONDS):
        async with anyio.create_task_group() as group:
            for key in wanted:
                group.start_soon(remove, key)
    return sum(found), len(found) == len(wanted)
