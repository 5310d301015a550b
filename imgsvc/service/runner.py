"""The order in which a built service starts and stops. It is defined in this module only.

Start: counters, the queue, which starts the workers, Redis, and the free space of the disk. Requests are answered from
then on, while the workers are still starting; jobs wait for these. The other health checks run for the first time, then
the background tasks begin, and the health report is there once the workers are, too. If a worker, Redis or storage is
unavailable, the service starts anyway, degraded.

Stop: no new upload and no new job; running jobs have the lanes' grace time, concurrently with the requests' own; the
rest is requeued; then slots of the rate limit are settled, and all background tasks end.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import structlog
from anyio.abc import TaskGroup

from ..http.state import AppState
from ..telemetry.cage_check import CAGE
from ..telemetry.disk_space import DISK

log = structlog.get_logger()
WARM_SECONDS = 4.0  # that the first health report, and a stop, wait for workers that are being started


@asynccontextmanager
async def running(state: AppState, on_workers: Callable[[], None]) -> AsyncIterator[None]:
    """Start the built service, and stop it at the end. `on_workers` is called once the workers have been started."""
    async with anyio.create_task_group() as group:
        await _start(state, group)
        group.start_soon(_complete_start, state, group, on_workers)
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
    state.telling.feed.wake_all()


async def _start(state: AppState, group: TaskGroup) -> None:
    jobs, health, redis = state.jobs, state.telemetry.health, state.rate_limiter.redis
    group.start_soon(jobs.sums.count)
    if jobs.office is not None:
        group.start_soon(jobs.office.link.run)
    group.start_soon(jobs.queue.run)
    group.start_soon(state.maintenance.run)
    if redis is not None:
        await redis.connection.check()
        group.start_soon(redis.connection.run)
    await health.measure(DISK)  # uploads are refused by what it finds


async def _complete_start(state: AppState, group: TaskGroup, on_workers: Callable[[], None]) -> None:
    """What no request waits for: the other checks, the background tasks, and then the first whole health report.

    That is complete once each worker was started, or could not be, and is renewed from then on.
    """
    health = state.telemetry.health
    await health.measure()
    if not state.stopping.is_set():
        _start_background_tasks(state, group)
    await _workers_started(state)
    on_workers()
    await health.complete("workers", CAGE)
    await health.run()


def _start_background_tasks(state: AppState, group: TaskGroup) -> None:
    jobs = state.jobs
    group.start_soon(jobs.watchdog.run)
    if state.telling.webhooks is not None:
        group.start_soon(state.telling.webhooks.run)
    group.start_soon(_sweep, state)
    group.start_soon(jobs.clock_keeper.run)
    group.start_soon(jobs.figures.run)
    group.start_soon(jobs.expiry.run)
    group.start_soon(jobs.erasing.run)
    group.start_soon(jobs.again.run)


async def _sweep(state: AppState) -> None:
    """Housekeeping, from the moment that the workers are started: it looks at each waiting upload, which must not keep
    the first requests waiting."""
    await _workers_started(state)
    await state.jobs.housekeeping.run()


async def _workers_started(state: AppState) -> None:
    with anyio.move_on_after(WARM_SECONDS):
        await state.jobs.queue.started()


async def _end_queue(state: AppState, ended: anyio.Event) -> None:
    """Stop the queue once a stop begins.

    The lanes' grace time runs beside that of the requests, so what that leaves is for recording: a stop takes at most
    both, and 2 seconds for Redis and the database.
    """
    await state.stopping.wait()
    with anyio.CancelScope(shield=True):
        try:
            await _workers_started(state)  # a process that is just being launched is ended in order
            settings = state.settings
            await state.jobs.queue.stop(settings.workers.grace_seconds, settings.server.graceful_seconds)
        finally:
            ended.set()
