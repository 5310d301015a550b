"""The order in which a built service starts and stops. It is defined in this module only.

Start: the workers, so that the first job finds them ready; then counters, queue, Redis, the first run of every health
check, and the background tasks. If a worker, Redis or storage is unavailable, the service starts anyway, degraded.

Stop: no new upload and no new job; running jobs have the lanes' grace time, concurrently with the requests' own; the
rest is requeued; then slots of the rate limit are settled, and all background tasks end.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import structlog
from anyio.abc import TaskGroup

from ..http.state import AppState
from ..jobs.lanes.base import Lane

log = structlog.get_logger()


@asynccontextmanager
async def running(state: AppState, lanes: Sequence[Lane]) -> AsyncIterator[None]:
    """Start the built service, and stop it at the end."""
    await _warm(lanes)
    async with anyio.create_task_group() as group:
        await _start(state, group)
        queue_ended = anyio.Event()
        group.start_soon(_end_queue, state, queue_ended)
        try:
            yield
        finally:
            wind_down(state)
            with anyio.CancelScope(shield=True):
                await queue_ended.wait()
                await state.access.tokens.close()
                await state.rate_limiter.close()
            group.cancel_scope.cancel()
    log.info("stopped")


def wind_down(state: AppState) -> None:
    """Begin a stop: accept no new upload and start no new job. Running ones may still finish."""
    state.stopping.set()
    state.jobs.queue.hold()
    state.maintenance.cancel()
    state.jobs.completions.wake_all()


async def _warm(lanes: Sequence[Lane]) -> None:
    async with anyio.create_task_group() as starting:
        for lane in lanes:
            starting.start_soon(_start_worker, lane)


async def _start_worker(lane: Lane) -> None:
    """Start a worker. If that fails the service is degraded, and the queue keeps trying."""
    try:
        await lane.start()
    except Exception as error:
        log.error("worker_start_failed", lane=lane.name, reason=str(error))


async def _start(state: AppState, group: TaskGroup) -> None:
    jobs, health, redis = state.jobs, state.telemetry.health, state.rate_limiter.redis
    group.start_soon(jobs.sums.count)
    group.start_soon(jobs.queue.run)
    if redis is not None:
        group.start_soon(redis.line.run)
        await redis.line.tried.wait()
    await health.measure()
    group.start_soon(health.run)
    group.start_soon(jobs.housekeeping.run)
    group.start_soon(state.maintenance.run)
    group.start_soon(jobs.watchdog.run)


async def _end_queue(state: AppState, ended: anyio.Event) -> None:
    """Stop the queue once a stop begins.

    The lanes' grace time runs beside that of the requests, so what that leaves is for recording: a stop takes at most
    both, and 2 seconds for Redis and the database.
    """
    await state.stopping.wait()
    with anyio.CancelScope(shield=True):
        try:
            settings = state.settings
            await state.jobs.queue.stop(settings.workers.grace_seconds, settings.server.graceful_seconds)
        finally:
            ended.set()
