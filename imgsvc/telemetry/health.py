"""Health checks of everything that the service depends on, run in the background, so that a request costs nothing."""

import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import anyio
import anyio.to_thread
import structlog
from pydantic import BaseModel

from ..access.circuit_breaker import Breaker
from ..jobs.lanes.process import Lane
from ..jobs.table.job_table import JobTable
from ..jobs.table.model import now
from ..settings.fields import MEGABYTE
from ..storage.base import StorageError
from .storage_probe import StorageProbe

log = structlog.get_logger()

EVERY_SECONDS = 5.0
SLACK_SECONDS = 3.0
LIMIT_SECONDS = 4.0  # a check that takes longer has failed
OLD_QUEUE_SECONDS = 600.0
Status = Literal["healthy", "degraded", "unhealthy"]


class Check(BaseModel):
    """The last result of a check, and its age in seconds."""

    status: Status
    detail: str
    age_seconds: float = 0


class Redis(Protocol):
    up: bool


class Health:
    def __init__(
        self,
        table: JobTable,
        storage: StorageProbe,
        lanes: Sequence[Lane],
        folder: Path,
        reserve_bytes: int,
        breaker: Breaker | None = None,
        redis: Redis | None = None,
        more: Mapping[str, Callable[[], Awaitable[Check]]] | None = None,
    ) -> None:
        """`breaker` is the authorization server's circuit breaker, if any; `more` are further checks by name."""
        self.disk_full = False
        self.free_bytes = 0
        self._table = table
        self._storage = storage
        self._lanes = lanes
        self._folder = folder
        self.reserve_bytes = reserve_bytes
        self._results: dict[str, tuple[Check, float]] = {}
        self._checks: dict[str, Callable[[], Awaitable[Check]]] = {
            "database": self._database,
            "storage": self._storage_check,
            "workers": self._workers,
            "disk": self._disk,
            "queue": self._queue,
            **(more or {}),
        }
        self._breaker = breaker
        if breaker is not None:
            self._checks["authorization"] = self._authorization
        if redis is not None:
            self._checks["redis"] = partial(_redis, redis)

    def checks(self) -> dict[str, Check]:
        """The last result of each check. Costs nothing."""
        moment = time.monotonic()
        return {name: _aged(check, moment - measured) for name, (check, measured) in self._results.items()}

    def status(self) -> Status:
        found = {check.status for check in self.checks().values()}
        return "unhealthy" if "unhealthy" in found else "degraded" if "degraded" in found else "healthy"

    async def run(self) -> None:
        """Run each check in its own task: a check that hangs must neither hide nor stop the others."""
        async with anyio.create_task_group() as group:
            for name in self._checks:
                group.start_soon(self._repeat, name)

    async def _repeat(self, name: str) -> None:
        while True:
            await anyio.sleep(EVERY_SECONDS)
            await self._measure(name)

    async def measure(self) -> None:
        """Run all checks once."""
        async with anyio.create_task_group() as group:
            for name in self._checks:
                group.start_soon(self._measure, name)

    async def _measure(self, name: str) -> None:
        result = Check(status="unhealthy", detail=f"no answer within {LIMIT_SECONDS:g} seconds")
        try:
            with anyio.move_on_after(LIMIT_SECONDS):
                result = await self._checks[name]()
        except Exception as error:
            log.warning("health_check_failed", check=name, reason=str(error))
            result = Check(status="unhealthy", detail="failed; the log says why")
        self._results[name] = (result, time.monotonic())

    async def _database(self) -> Check:
        await self._table.touch()
        await self._table.latest_failed(1)
        if self._table.damage:
            log.error("database_damaged", reason=self._table.damage)
            return Check(status="unhealthy", detail="a page of it is damaged: restore a backup")
        return Check(status="healthy", detail="a write was committed")

    async def _storage_check(self) -> Check:
        try:
            return Check(status="healthy", detail=await self._storage.check())
        except StorageError as error:
            if not error.plain:
                raise
            log.warning("health_check_failed", check="storage", reason=str(error))
            return Check(status="unhealthy", detail=error.plain)

    async def _workers(self) -> Check:
        alive = sum(lane.alive for lane in self._lanes)
        detail = f"{alive} of {len(self._lanes)} alive"
        status: Status = "healthy" if alive == len(self._lanes) else "degraded" if alive else "unhealthy"
        return Check(status=status, detail=detail)

    async def _disk(self) -> Check:
        free = self.free_bytes = (await anyio.to_thread.run_sync(shutil.disk_usage, self._folder)).free
        self.disk_full = free < self.reserve_bytes
        detail = f"{free // MEGABYTE} MB free, {self.reserve_bytes // MEGABYTE} MB kept in reserve"
        return Check(status="unhealthy" if self.disk_full else "healthy", detail=detail)

    async def _queue(self) -> Check:
        oldest = await self._table.first_in_line()
        waited = (now() - datetime.fromisoformat(oldest)).total_seconds() if oldest else 0
        old = waited > OLD_QUEUE_SECONDS
        detail = f"the next job has waited {waited:.0f} seconds" if oldest else "nothing waits"
        return Check(status="degraded" if old else "healthy", detail=detail)

    async def _authorization(self) -> Check:
        """By the calls that requests make: images are served without the server, so its absence only degrades."""
        assert self._breaker is not None
        failures = self._breaker.failures
        if not failures:
            return Check(status="healthy", detail="the last call was answered, or none was needed yet")
        rest = "" if self._breaker.state == "closed" else "; calls are held back"
        return Check(status="degraded", detail=f"{failures} failed in a row{rest}")


async def _redis(redis: Redis) -> Check:
    """Redis is used by uploads and checked in the background; it is never required."""
    if redis.up:
        return Check(status="healthy", detail="a slot was taken and released")
    return Check(status="degraded", detail="unavailable: each instance counts its own uploads")


def _aged(check: Check, age: float) -> Check:
    """A result that was not renewed in time (a thread hangs on a dead mount) becomes unhealthy."""
    if age > EVERY_SECONDS + LIMIT_SECONDS + SLACK_SECONDS:
        return Check(status="unhealthy", detail="the check itself hangs", age_seconds=round(age, 1))
    return check.model_copy(update={"age_seconds": round(age, 1)})
