"""Erasing people for the command line, through the running service or directly in the data folder."""

import time
from typing import Any

from ..jobs.data_folder import DataFolder
from ..jobs.deletion_hold import DeletionHold
from ..jobs.erasing import Erasing
from ..jobs.erasure_views import ErasureReport
from ..jobs.housekeeping import Housekeeping
from ..settings import Settings
from ..storage.registry import storage_registry
from ..telemetry import logs
from .data_folder import with_data_folder
from .polling import Show, pauses
from .service_client import Running, running, segment

API = "/api/v1/operator"
REDIS_SECONDS = 1.0


def erase(settings: Settings, org: str, user: str, show: Show, *, wait: bool) -> dict[str, Any]:
    """The report: at its end with `wait`. Raises CommandFailed."""
    service = running(settings)
    if service is None:
        logs.configure(settings.log.model_copy(update={"level": "WARNING"}))  # the command itself prints its result
        return with_data_folder(settings, lambda data: _erased(settings, data, org, user))
    report = service.call("DELETE", f"{API}/users/{segment(org)}/{segment(user)}")
    return _ended(service, report, show) if wait else report


def _ended(service: Running, report: dict[str, Any], show: Show) -> dict[str, Any]:
    waits = pauses()
    while report["state"] == "running":
        show(report)
        time.sleep(next(waits))
        report = service.call("GET", f"{API}/erasures/{report['erasure_id']}")
    return report


async def _erased(settings: Settings, data: DataFolder, org: str, user: str) -> dict[str, Any]:
    """Without a service: as far as it goes now. What storage does not confirm is taken up by the next start."""
    async with storage_registry(settings, instance=data.instance) as stores:
        housekeeping = Housekeeping.of(settings, data, stores.storages, DeletionHold())
        erasing = Erasing(data.table, housekeeping, data.staging_area, data.revocations)
        erasure = await erasing.begin(org, user)
        await erasing.work()
        await _forget_in_redis(settings, org, user)
        found = await data.table.erasures.erasure(erasure.erasure_id)
        return ErasureReport.of(found or erasure).model_dump()


async def _forget_in_redis(settings: Settings, org: str, user: str) -> None:
    """A Redis that can't be reached says so in the log, and keeps the window until that ends."""
    if not settings.redis.url:
        return
    from ..intake.redis_limit import RedisRateLimit

    redis = RedisRateLimit.of(settings)
    await redis.connection.check()
    redis.forget(org, user)
    await redis.connection.flush(REDIS_SECONDS)
    await redis.connection.close()


def listed(settings: Settings) -> list[dict[str, Any]]:
    """The latest reports. Raises CommandFailed."""
    service = running(settings)
    if service:
        return list(service.call("GET", f"{API}/erasures")["erasures"])

    async def latest(data: DataFolder) -> list[dict[str, Any]]:
        return [ErasureReport.of(one).model_dump() for one in await data.table.erasures.latest()]

    return with_data_folder(settings, latest)
