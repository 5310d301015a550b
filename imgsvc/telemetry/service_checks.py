"""Health of the parts that a service is made of: database, storage, workers, queue, and the servers that it calls."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from ..access.circuit_breaker import Breaker
from ..jobs.clocks import Clocks
from ..jobs.lanes.base import Lane
from ..jobs.revocations import Revocations
from ..jobs.table.job_table import JobTable
from ..jobs.table.model import now
from ..jobs.table.webhook_table import WebhookTable
from ..storage.base import StorageError
from .health import Check, Status
from .storage_probe import StorageProbe

log = structlog.get_logger()

OLD_QUEUE_SECONDS = 600.0
OLD_DELIVERY_SECONDS = 3600.0
UNKNOWN_SHOWN = timedelta(days=7)
OVERFLOW_SECONDS = 86_400.0  # how long it shows that deliveries were given up for newer ones


class Redis(Protocol):
    up: bool


async def database_check(table: JobTable) -> Check:
    await table.touch()
    await table.latest_failed(1)
    if table.damage:
        log.error("database_damaged", reason=table.damage)
        return Check(status="unhealthy", detail="a page of it is damaged: restore a backup")
    return Check(status="healthy", detail="a write was committed")


async def storage_check(probe: StorageProbe) -> Check:
    try:
        return Check(status="healthy", detail=await probe.check())
    except StorageError as error:
        if not error.plain:
            raise
        log.warning("health_check_failed", check="storage", reason=str(error))
        return Check(status="unhealthy", detail=error.plain)


async def workers_check(lanes: Sequence[Lane]) -> Check:
    alive = sum(lane.alive for lane in lanes)
    status: Status = "healthy" if alive == len(lanes) else "degraded" if alive else "unhealthy"
    return Check(status=status, detail=f"{alive} of {len(lanes)} alive")


async def queue_check(table: JobTable) -> Check:
    oldest = await table.first_in_line()
    waited = (now() - datetime.fromisoformat(oldest)).total_seconds() if oldest else 0
    old = waited > OLD_QUEUE_SECONDS
    detail = f"the next job has waited {waited:.0f} seconds" if oldest else "no job is waiting"
    return Check(status="degraded" if old else "healthy", detail=detail)


async def clocks_check(clocks: Clocks) -> Check:
    """The wall clock beside the time since the boot: while they disagree nothing is removed because of its age."""
    left = clocks.seconds_left
    if not left:
        return Check(status="healthy", detail="wall clock and time since the boot agree")
    detail = f"the wall clock jumped: nothing is removed by time for {left / 60:.0f} more minutes"
    return Check(status="degraded", detail=detail)


async def revocations_check(revocations: Revocations) -> Check:
    """What a restore without revocations.jsonl has left unknown. It shows for a week: nothing here can mend it."""
    lost = [one for one in revocations.unknown if now() - datetime.fromisoformat(one.at) < UNKNOWN_SHOWN]
    if not lost:
        return Check(status="healthy", detail="every revoked key and erased person is known")
    since = min(one.taken_at for one in lost)
    detail = f"restored without revocations.jsonl: keys revoked and people erased after {since[:16]}Z are not known"
    return Check(status="degraded", detail=detail)


async def authorization_check(breaker: Breaker) -> Check:
    """By the calls that requests make: images are served without the server, so its absence only degrades."""
    if not breaker.failures:
        return Check(status="healthy", detail="the last call was answered, or none was needed yet")
    rest = "" if breaker.state == "closed" else "; calls are held back"
    return Check(status="degraded", detail=f"{breaker.failures} failed in a row{rest}")


async def redis_check(redis: Redis) -> Check:
    """Redis is used by uploads and checked in the background; it is never required."""
    if redis.up:
        return Check(status="healthy", detail="a slot was taken and released")
    return Check(status="degraded", detail="unavailable: each instance counts its own uploads")


async def webhooks_check(table: WebhookTable) -> Check:
    """Uploads never wait for webhooks, so they only degrade."""
    faults, moment = [], now()

    def age(text: str | None) -> float | None:
        return (moment - datetime.fromisoformat(text)).total_seconds() if text else None

    found = [one for one in (await table.endpoints()).values() if one.configured]
    for one in found:
        oldest, overflow = age(one.oldest), age(one.overflowed_at)
        if one.switched_off_at:
            faults.append(f"{one.name} answered 410 and is switched off (imgsvc webhooks enable {one.name})")
        elif overflow is not None and overflow < OVERFLOW_SECONDS:
            faults.append(f"{one.name}: more than {one.most_waiting} waited, and the oldest were given up")
        elif oldest is not None and oldest > OLD_DELIVERY_SECONDS:
            faults.append(f"{one.name}: {one.waiting} deliveries wait, the first for {oldest / 3600:.0f} hours")
    if faults:
        return Check(status="degraded", detail="; ".join(faults))
    return Check(status="healthy", detail=f"{sum(one.waiting for one in found)} deliveries wait")
