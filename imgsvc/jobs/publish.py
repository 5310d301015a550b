"""From a scratch folder into storage: every variant durable before the table may say so."""

from collections.abc import Iterable
from pathlib import Path

import anyio
import structlog

from ..imaging.recipe import scratch_file
from ..storage.base import Storage, StorageError
from .model import Job

log = structlog.get_logger()


async def publish(storage: Storage, job: Job, variants: Iterable[str], folder: Path) -> dict[str, str]:
    """Put the named variants, side by side; returns {variant: key}. Raises StorageError if any could not be put."""
    keys = {name: job.key(name) for name in variants}
    failures: list[StorageError] = []

    async def put(name: str, key: str) -> None:
        try:
            await storage.put(job.storage_bucket, key, scratch_file(folder, name))
        except StorageError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for name, key in keys.items():
            group.start_soon(put, name, key)
    if failures:
        raise failures[0]
    return keys


async def withdraw(storage: Storage, job: Job, keys: Iterable[str]) -> bool:
    """Remove what was put; True when storage has confirmed it all. What fails is left to housekeeping."""
    confirmed = True
    for key in keys:
        try:
            await storage.remove(job.storage_bucket, key)
        except StorageError as error:
            log.warning("withdraw_failed", job_id=job.job_id, trace_id=job.trace_id, key=key, reason=str(error))
            confirmed = False
    return confirmed
