"""Maintenance tasks for the command line: in the running service, or on the data folder if no service runs."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from ..settings import Settings
from .errors import CommandFailed
from .polling import LOOK_SECONDS, Show, pauses
from .service_client import Running, running

if TYPE_CHECKING:
    from ..maintenance.requests import MaintenanceRequest

ENDING_SECONDS = 30.0  # how long a cancelled task may take to end
TASK = "/api/v1/operator/storage/task"


def carry_out(settings: Settings, request: "MaintenanceRequest", show: Show) -> dict[str, Any]:
    """Run the task; returns its report. Ctrl-C cancels it, then KeyboardInterrupt follows. Raises CommandFailed."""
    service = running(settings)
    if service:
        return _in_service(service, request, show)
    if not settings.database.path.is_file():
        raise CommandFailed(f"there is no database at {settings.database.path}")
    from . import maintenance_offline  # imports half of the program, which is not needed if a service runs

    return maintenance_offline.carry_out(settings, request, show)


def _in_service(service: Running, request: "MaintenanceRequest", show: Show) -> dict[str, Any]:
    begun, waits = None, pauses()
    try:
        with interrupts_later():  # else the task could be running, and not be known here
            begun = service.call("POST", f"/api/v1/operator/storage/{request.verb}", json=request.model_dump())
        while (task := _same(begun, service.call("GET", TASK)))["state"] == "running":
            show(task)
            time.sleep(next(waits))
    except KeyboardInterrupt:
        if begun:
            with suppress(CommandFailed):
                _end(service, begun)
        raise
    return task


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Ctrl-C takes effect once the block has ended. It is not blocked, since any thread may receive the signal."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def restore(settings: Settings, source: Path, show: Show, *, force: bool, dry_run: bool) -> dict[str, Any]:
    """Restore; returns the final report. Raises CommandFailed, for example if a service runs."""
    if running(settings) and not dry_run:
        raise CommandFailed(f"a service runs on the data folder {settings.data}: stop it first")
    from . import maintenance_offline

    return maintenance_offline.restore(settings, source, show, force=force, dry_run=dry_run)


def _same(begun: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    if task["task_id"] != begun["task_id"]:
        raise CommandFailed("the service was restarted in the meantime: run the command again to continue")
    return task


def _end(service: Running, begun: dict[str, Any]) -> None:
    service.call("DELETE", TASK)
    deadline = time.monotonic() + ENDING_SECONDS
    while _same(begun, service.call("GET", TASK))["state"] == "running" and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS[-1])
