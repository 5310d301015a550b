"""Upkeep for the command line: in the running service, or on the data folder when nobody holds it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import anyio

from ..data_folder import open_data_folder
from ..http.operator_storage import StorageTask
from ..jobs.database import SchemaTooNew
from ..jobs.hold import Hold
from ..jobs.housekeeping import Housekeeping
from ..jobs.lock import DataFolderInUse
from ..jobs.quota import Quota
from ..settings import Settings
from ..storage.configured import configured
from ..telemetry import logs
from ..upkeep.house import House
from ..upkeep.orders import Order
from ..upkeep.progress import Progress, UpkeepFailed
from ..upkeep.restore import restore as put_back
from ..upkeep.tasks import State, Upkeep
from . import CommandFailed
from .running import Running, running

LOOK_SECONDS = (0.02, 0.05, 0.1, 0.25)  # between looks; the last one for the rest: much of it is over soon
ENDING_SECONDS = 30.0  # for a task that was cancelled
TASK = "/api/v1/operator/storage/task"
Show = Callable[[dict[str, Any]], None]  # told how the task stands, as StorageTask says it


def carry_out(settings: Settings, order: Order, show: Show) -> dict[str, Any]:
    """How the task has ended. Ctrl-C ends it too, and then goes on as KeyboardInterrupt. Raises CommandFailed."""
    service = running(settings)
    if service:
        return _in_service(service, order, show)
    if not settings.database.path.is_file():
        raise CommandFailed(f"there is no database at {settings.database.path}")
    return _alone(settings, partial(_by_itself, settings, order, show))


def _in_service(service: Running, order: Order, show: Show) -> dict[str, Any]:
    begun = service.call("POST", f"/api/v1/operator/storage/{order.verb}", body=order.model_dump())
    pauses = _pauses()
    try:
        while (task := _same(begun, service.call("GET", TASK)))["state"] == "running":
            show(task)
            time.sleep(next(pauses))
    except KeyboardInterrupt:
        with suppress(CommandFailed):
            _end(service, begun)
        raise
    return task


def _pauses() -> Iterator[float]:
    return chain(LOOK_SECONDS, repeat(LOOK_SECONDS[-1]))


def _same(begun: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    if task["task_id"] != begun["task_id"]:
        raise CommandFailed("the service was restarted meanwhile: run it again, and it goes on")
    return task


def _end(service: Running, begun: dict[str, Any]) -> None:
    service.call("DELETE", TASK)
    deadline = time.monotonic() + ENDING_SECONDS
    while _same(begun, service.call("GET", TASK))["state"] == "running" and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS[-1])


async def _by_itself(settings: Settings, order: Order, show: Show) -> dict[str, Any]:
    async with _house(settings) as house, anyio.create_task_group() as group:
        upkeep = Upkeep(house)
        group.start_soon(upkeep.run)
        task, pauses = upkeep.start(order), _pauses()
        while task.state == "running":
            show(StorageTask.of(task).model_dump())
            await anyio.sleep(next(pauses))
        group.cancel_scope.cancel()
    return StorageTask.of(task).model_dump()


@asynccontextmanager
async def _house(settings: Settings) -> AsyncIterator[House]:
    async with open_data_folder(settings, lock_wait_seconds=0) as data, configured(settings) as stores:
        hold = Hold()
        housekeeping = Housekeeping(
            data.table,
            stores.storages,
            data.staging,
            set(),
            quota=Quota(settings.rate_limit.max_uploads, timedelta(minutes=settings.rate_limit.window_minutes)),
            source_kept=timedelta(hours=settings.jobs.failed_source_hours),
            events_kept=timedelta(days=settings.jobs.events_days),
            hold=hold,
        )
        yield House(
            settings,
            data.table,
            data.inventory,
            stores.storages,
            data.staging,
            data.scratch,
            housekeeping,
            hold,
            data.instance,
        )


def restore(settings: Settings, source: Path, show: Show, *, force: bool, dry_run: bool) -> dict[str, Any]:
    """How it has ended. Raises CommandFailed: a service runs, for one."""
    if running(settings) and not dry_run:
        raise CommandFailed(f"a service runs on the data folder {settings.data}: stop it first")
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
        for pause in _pauses():
            show(stand())
            await anyio.sleep(pause)

    async with configured(settings) as stores, anyio.create_task_group() as group:
        group.start_soon(look)
        try:
            await put_back(settings, stores.storages, progress, source=source, force=force, dry_run=dry_run)
            state = "done"
        except UpkeepFailed as error:
            state, reason = "failed", str(error)
        group.cancel_scope.cancel()
    return stand()


def _alone(settings: Settings, work: Callable[[], Any]) -> dict[str, Any]:
    logs.configure(settings.log.model_copy(update={"level": "WARNING"}))  # the command itself says what it did
    try:
        found: dict[str, Any] = asyncio.run(work())
    except* (DataFolderInUse, SchemaTooNew, OSError) as group:
        raise CommandFailed(str(_first(group))) from None
    return found


def _first(group: BaseException) -> BaseException:
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group
