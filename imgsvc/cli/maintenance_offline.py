"""Maintenance tasks on a data folder that no service uses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from ..jobs.data_folder import open_data_folder
from ..jobs.deletion_hold import DeletionHold
from ..jobs.housekeeping import Housekeeping
from ..jobs.lock import BRIEF_SECONDS
from ..maintenance.backup.restore import restore as put_back
from ..maintenance.context import MaintenanceContext
from ..maintenance.progress import MaintenanceFailed, Progress
from ..maintenance.report import StorageTask
from ..maintenance.requests import MaintenanceRequest
from ..maintenance.runner import MaintenanceRunner, State
from ..settings import Settings
from ..storage.registry import storage_registry
from ..telemetry import logs
from .data_folder import failing_for_data_folder
from .polling import Show, pauses


def carry_out(settings: Settings, request: MaintenanceRequest, show: Show) -> dict[str, Any]:
    """Run the task; returns its final report. Raises CommandFailed."""
    return _alone(settings, partial(_by_itself, settings, request, show))


async def _by_itself(settings: Settings, request: MaintenanceRequest, show: Show) -> dict[str, Any]:
    async with _context(settings) as context, anyio.create_task_group() as group:
        runner = MaintenanceRunner(context)
        group.start_soon(runner.run)
        task, waits = runner.start(request), pauses()
        while task.state == "running":
            show(StorageTask.of(task).model_dump())
            await anyio.sleep(next(waits))
        group.cancel_scope.cancel()
    return StorageTask.of(task).model_dump()


@asynccontextmanager
async def _context(settings: Settings) -> AsyncIterator[MaintenanceContext]:
    async with (
        open_data_folder(settings, lock_wait_seconds=BRIEF_SECONDS) as data,
        storage_registry(settings, instance=data.instance) as stores,
    ):
        hold = DeletionHold()
        housekeeping = Housekeeping.of(settings, data, stores.storages, hold)
        yield MaintenanceContext.of(settings, data, stores.storages, housekeeping, hold)


def restore(settings: Settings, source: Path, show: Show, *, force: bool, dry_run: bool) -> dict[str, Any]:
    """Restore; returns the final report. Raises CommandFailed."""
    return _alone(settings, partial(_restored, settings, source, show, force, dry_run))


async def _restored(settings: Settings, source: Path, show: Show, force: bool, dry_run: bool) -> dict[str, Any]:
    progress, reason = Progress(), None
    state: State = "running"

    def stand() -> dict[str, Any]:
        return StorageTask(
            verb="restore",
            state=state,
            phase=progress.phase,
            done=progress.done,
            total=progress.total,
            counts=dict(progress.counts),
            findings=progress.findings,
            found=progress.found,
            well=state == "done",
            error=reason,
        ).model_dump()

    async def look() -> None:
        for pause in pauses():
            show(stand())
            await anyio.sleep(pause)

    async with storage_registry(settings) as stores, anyio.create_task_group() as group:
        group.start_soon(look)
        try:
            await put_back(settings, stores.storages, progress, source=source, force=force, dry_run=dry_run)
            state = "done"
        except MaintenanceFailed as error:
            state, reason = "failed", str(error)
        group.cancel_scope.cancel()
    return stand()


def _alone(settings: Settings, work: Callable[[], Any]) -> dict[str, Any]:
    logs.configure(settings.log.model_copy(update={"level": "WARNING"}))  # the command itself prints its result
    with failing_for_data_folder(settings):
        found: dict[str, Any] = asyncio.run(work())
    return found
