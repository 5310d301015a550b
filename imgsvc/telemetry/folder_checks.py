"""Health checks of the folders: the staging folder, and the IDs of the data and storage folders."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from ..jobs.instance import NAME
from ..jobs.staging_area import StagingArea
from ..storage.instance_marker import marker_of, read_id
from .health import Check

log = structlog.get_logger()


def folder_checks(
    area: StagingArea, data: Path, storage: Path | None, instance: str
) -> dict[str, Callable[[], Awaitable[Check]]]:
    """Return {name: check}. `storage` is the local storage folder if new images go there."""
    return {
        "staging": partial(_in_thread, partial(_staging, area)),
        "instance": partial(_in_thread, partial(_instance, data, storage, instance)),
    }


async def _in_thread(check: Callable[[], Check]) -> Check:
    return await anyio.to_thread.run_sync(check, abandon_on_cancel=True)


def _staging(area: StagingArea) -> Check:
    try:
        made = area.make()
        kept = area.measure()
    except OSError as error:
        log.warning("health_check_failed", check="staging", reason=str(error))
        return Check(status="unhealthy", detail=f"the folder for uploads is gone or can't be read: {error.strerror}")
    if made:
        log.error("staging_recreated", path=str(area.folder))
        return Check(status="degraded", detail="the folder for uploads was missing and has been created again")
    return Check(status="healthy", detail=f"exists; {kept.files} uploads are set aside" if kept.files else "exists")


def _instance(data: Path, storage: Path | None, instance: str) -> Check:
    if read_id(data / NAME) != instance:
        return Check(status="unhealthy", detail="the data folder does not contain this service's ID any more")
    if storage and marker_of(storage) != instance:
        return Check(status="unhealthy", detail="the storage folder does not contain this service's ID")
    return Check(status="healthy", detail="database and folders have the same ID")
