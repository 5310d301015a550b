"""Health checks of everything that the service depends on, run in the background, so that a request costs nothing."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import anyio
import anyio.to_thread
import structlog
from pydantic import BaseModel, ConfigDict

log = structlog.get_logger()

EVERY_SECONDS = 5.0
SLACK_SECONDS = 3.0
LIMIT_SECONDS = 4.0  # a check that takes longer has failed
Status = Literal["healthy", "degraded", "unhealthy"]


class Check(BaseModel):
    """The last result of a check, and its age in seconds."""

    model_config = ConfigDict(defer_build=True)

    status: Status
    detail: str
    age_seconds: float = 0


RunCheck = Callable[[], Awaitable[Check]]  # any error it raises is an unhealthy result too


class Health:
    def __init__(self, checks: Mapping[str, RunCheck]) -> None:
        """`checks` by their names, which are part of the API."""
        self._checks = checks
        self._results: dict[str, tuple[Check, float]] = {}
        self._complete = anyio.Event()

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

    async def measure(self, *names: str) -> None:
        """Run these checks once; without names all of them."""
        async with anyio.create_task_group() as group:
            for name in names or self._checks:
                group.start_soon(self._measure, name)

    async def complete(self, *names: str) -> None:
        """Run these checks, which the start has not waited for: from now on the results are a whole report."""
        await self.measure(*names)
        self._complete.set()

    async def known(self) -> None:
        """Wait, right after a start, until there is a whole report."""
        await self._complete.wait()

    async def _measure(self, name: str) -> None:
        result = Check(status="unhealthy", detail=f"no answer within {LIMIT_SECONDS:g} seconds")
        try:
            with anyio.move_on_after(LIMIT_SECONDS):
                result = await self._checks[name]()
        except Exception as error:
            log.warning("health_check_failed", check=name, reason=str(error))
            result = Check(status="unhealthy", detail="failed; the log says why")
        self._results[name] = (result, time.monotonic())


def _aged(check: Check, age: float) -> Check:
    """A result that was not renewed in time (a thread hangs on a dead mount) becomes unhealthy."""
    if age > EVERY_SECONDS + LIMIT_SECONDS + SLACK_SECONDS:
        return Check(status="unhealthy", detail="the check itself hangs", age_seconds=round(age, 1))
    return check.model_copy(update={"age_seconds": round(age, 1)})
