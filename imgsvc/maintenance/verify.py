"""Compares the table with the stored files, both ways. Changes nothing."""

from contextlib import aclosing
from datetime import timedelta
from functools import partial

import anyio.to_thread

from ..jobs.table.model import Job
from ..storage.base import NotStored, Storage, StorageError
from .context import MaintenanceContext, Variant, fetched_digest, for_each_concurrently, unfinished, variants_of
from .orphans import orphans
from .progress import Finding, Kind, Progress

AT_ONCE = 8  # jobs


async def verify(context: MaintenanceContext, progress: Progress, *, digests: bool, grace: timedelta) -> bool:
    """Return whether every row's files exist with the right size (and digest), and every file has a row.

    A file without a row counts once it is older than `grace`.
    """
    progress.begin("jobs")
    await for_each_concurrently(
        context.scan.jobs(progress.advance), partial(_check, context, progress, digests), AT_ONCE
    )
    progress.begin("files", progress.counts["files"])
    found = orphans(context, grace, progress)
    async with aclosing(found):
        async for orphan in found:
            kind: Kind = "orphaned" if orphan.place else "foreign"
            image_id = orphan.place.image_id if orphan.place else None
            progress.find(Finding(kind, orphan.storage.name, orphan.path, image_id, orphan.stored.size_bytes))
    set_aside = await anyio.to_thread.run_sync(context.staging_area.measure)
    if set_aside.files:
        progress.counts.update(set_aside=set_aside.files, set_aside_bytes=set_aside.bytes)
    return progress.found == 0


async def _check(context: MaintenanceContext, progress: Progress, digests: bool, job: Job) -> None:
    if unfinished(job) and job.staging_path and not await _is_staged(context, job.staging_path):
        await _report(context, progress, job, Finding("no_source", "staging", job.staging_path, job.image_id))
    variants = variants_of(job)
    storage = context.storages.get(job.storage_backend)
    if variants and storage is None:
        await _report(context, progress, job, Finding("no_backend", job.storage_backend, "", job.image_id))
        return
    progress.counts["images"] += bool(variants)
    for variant in variants:
        assert storage is not None
        progress.counts["files"] += 1
        progress.counts["bytes"] += variant.size_bytes
        wrong = await _wrong(context, storage, job, variant, digests)
        if wrong is not None:
            await _report(context, progress, job, wrong)


async def _is_staged(context: MaintenanceContext, name: str) -> bool:
    return await anyio.to_thread.run_sync((context.staging / name).is_file)


async def _wrong(
    context: MaintenanceContext, storage: Storage, job: Job, variant: Variant, digests: bool
) -> Finding | None:
    try:
        size = await storage.size(variant.bucket, variant.key)
        kind: Kind | None = "missing" if size is None else "wrong_size" if size != variant.size_bytes else None
        if kind is None and digests:
            digest = await fetched_digest(context.scratch, storage, variant)
            kind = None if digest == variant.digest else "wrong_digest"
    except NotStored:
        size, kind = None, "missing"
    except StorageError:
        size, kind = None, "unreadable"
    if kind is None:
        return None
    return Finding(kind, storage.name, variant.path, job.image_id, size, variant.size_bytes)


async def _report(context: MaintenanceContext, progress: Progress, job: Job, finding: Finding) -> None:
    """Report a finding, unless the row has changed since it was read: the finding may be outdated then."""
    latest = await context.table.job(job.job_id)
    if latest is not None and _state(latest) == _state(job):
        progress.find(finding)


def _state(job: Job) -> tuple[object, ...]:
    return (job.run, job.status, job.storage_backend, job.staging_path, job.paths_text)
