"""The ASGI application, and the building and joining of its parts."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from ..access.login_throttle import LoginThrottle
from ..access.operator_auth import OperatorAuth
from ..access.permissions import Permissions
from ..access.signing import Signatures
from ..access.tokens import Tokens
from ..http.dashboard.snapshot import SnapshotCache
from ..http.openapi import document as openapi
from ..http.openapi import page as docs
from ..http.state import AppState
from ..http.wire.answer_memory import AnswerMemory, BoundedAnswers
from ..http.wire.drain import DrainUnreadBody
from ..http.wire.metrics_middleware import RequestMetrics
from ..http.wire.middleware import CaughtErrors, CrossOrigin, Tracing
from ..http.wire.problems import Problem, as_problem
from ..http.wire.proxy_headers import AbsoluteTargets, AllowedHosts, ForwardedHeaders
from ..http.wire.urls import Urls
from ..intake.intake import Intake
from ..intake.limits import UploadLimits
from ..intake.open_uploads import OpenUploads
from ..intake.rate_limit import RateLimiter
from ..jobs.completions import Completions
from ..jobs.data_folder import DataFolder, open_data_folder
from ..jobs.deletion_hold import DeletionHold
from ..jobs.denials import Denials
from ..jobs.housekeeping import Housekeeping
from ..jobs.lanes.memory_budget import budget, render_lanes
from ..jobs.lanes.process import Lane, ProcessLane
from ..jobs.lanes.worker_handle import Launcher
from ..jobs.queue import Queue
from ..jobs.run import Limits
from ..jobs.table.quota import Quota
from ..jobs.watchdog import Watchdog
from ..maintenance.context import MaintenanceContext
from ..maintenance.runner import MaintenanceRunner
from ..settings import MEGABYTE, Settings
from ..settings.hosts import allowed_hosts
from ..storage.base import LOCAL, Storage
from ..storage.registry import StorageRegistry, storage_registry
from ..telemetry.folder_checks import folder_checks
from ..telemetry.health import Health
from ..telemetry.host import Host
from ..telemetry.metrics import Metrics
from ..telemetry.publishing_check import publishing_check
from ..telemetry.storage_probe import StorageProbe
from .routes import ROUTES

if TYPE_CHECKING:
    from ..access.remote_permissions import RemoteAuthorization
    from ..intake.redis_limit import RedisRateLimit

log = structlog.get_logger()


TRACE_HEADERS = ("X-Trace-ID", "X-Correlation-ID")
EXPOSED = ("Content-Range", "ETag", "Idempotency-Replayed", "Location", "Preference-Applied", "Retry-After")
RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
RENDER_NICENESS = 10  # so that the system itself puts previews and answers first


@dataclass(frozen=True, slots=True)
class Doubles:
    """What `imgsvc.testing` puts in the place of worker processes and of the storage folder.

    `others` are further backends, which rows may come to name.
    """

    lanes: Sequence[Lane] | None = None
    storage: Storage | None = None
    others: Sequence[Storage] = ()


def create_app(settings: Settings | None = None, doubles: Doubles | None = None) -> Starlette:
    """The whole service as an ASGI application; its lifespan opens and closes everything."""
    settings = settings or Settings.load()
    metrics, memory = Metrics(settings), AnswerMemory(int(settings.server.answers_mb * MEGABYTE))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(settings, doubles or Doubles(), metrics) as parts:
            app.state.parts = parts
            yield

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=_middleware(settings, metrics, memory),
        exception_handlers={Problem: as_problem, HTTPException: as_problem},
    )
    app.router.redirect_slashes = False  # a redirect would be a second form of every address
    app.state.public_url = settings.service.public_url
    app.state.metrics = metrics
    app.state.answer_memory = memory
    app.state.document = openapi.Document(settings, ROUTES)
    app.state.assets = docs.Assets(settings.service.name)
    return app


def _middleware(settings: Settings, metrics: Metrics, memory: AnswerMemory) -> list[Middleware]:
    """Outermost first. CORS stands outside the hosts check and the errors, so that a browser can read these too."""
    server = settings.server
    cross_origin = Middleware(
        CrossOrigin,
        allow_origins=server.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-Metadata", *TRACE_HEADERS],
        expose_headers=[*EXPOSED, *TRACE_HEADERS, *RATE_HEADERS],
    )
    return [
        Middleware(AbsoluteTargets),
        Middleware(ForwardedHeaders, networks=server.trusted_proxies),
        Middleware(DrainUnreadBody),
        Middleware(Tracing),
        Middleware(RequestMetrics, metrics=metrics, routes=ROUTES),
        *([cross_origin] if server.cors_origins else []),
        Middleware(CaughtErrors),
        Middleware(AllowedHosts, names=allowed_hosts(settings)),
        Middleware(BoundedAnswers, memory=memory),
    ]


@asynccontextmanager
async def running(settings: Settings, doubles: Doubles, metrics: Metrics) -> AsyncIterator[AppState]:
    """Lock, migrate, replay, and serve; at the end stop in DESIGN's order. Raises DataFolderInUse or OSError."""
    wait = settings.jobs.lock_wait_seconds
    async with (
        open_data_folder(settings, wait, metrics) as data,
        storage_registry(
            settings, metrics.storage_operation, doubles.storage, doubles.others, instance=data.instance
        ) as stores,
        _authorization(settings) as remote,
        _lanes(settings, metrics, doubles.lanes) as lanes,
        _serving(settings, lanes, metrics, data, stores, remote) as parts,
    ):
        yield parts


@asynccontextmanager
async def _authorization(settings: Settings) -> AsyncIterator["RemoteAuthorization | None"]:
    if settings.auth.permissions != "remote":
        yield None
        return
    from ..access.remote_permissions import RemoteAuthorization  # with an HTTP client that is not needed otherwise

    async with RemoteAuthorization.opened(settings.auth) as remote:
        yield remote


@asynccontextmanager
async def _serving(
    settings: Settings,
    lanes: Sequence[Lane],
    metrics: Metrics,
    data: DataFolder,
    stores: StorageRegistry,
    remote: "RemoteAuthorization | None",
) -> AsyncIterator[AppState]:
    """Everything that runs while the database and the storages are open."""
    table = data.table
    replayed, given_up = await table.replay(settings.jobs.retry_delay_seconds)
    await table.seed()
    for name in stores.storages:
        metrics.uses_storage(name)
    memory = budget(settings.workers)
    endings, hold = Completions(), DeletionHold()
    quota = Quota(settings.rate_limit.max_uploads, timedelta(minutes=settings.rate_limit.window_minutes))
    limits = Limits(
        time_limit_seconds=settings.workers.time_limit_seconds,
        time_limit_seconds_per_megapixel=settings.workers.time_limit_seconds_per_megapixel,
        retry_delay_seconds=settings.jobs.retry_delay_seconds,
    )
    queue = Queue(
        table,
        stores.storages,
        preview_lanes=lanes[:1],
        render_lanes=lanes[1:],
        preview_memory=memory.preview,
        render_memory=memory.render,
        staging=data.staging,
        scratch=data.scratch,
        limits=limits,
        endings=endings,
        made=metrics.variant_made,
        hold=hold,
    )
    reserve = settings.storage.reserve_mb * MEGABYTE
    breaker = remote.breaker if remote else None
    mirror = _mirror(settings)
    places = RateLimiter(table, mirror)
    line = mirror.line if mirror else None
    probe = StorageProbe(stores.active, data.scratch / "health", data.instance, data.claim.claim)
    local = settings.storage.path if stores.active.name == settings.storage.backend == LOCAL else None
    more_checks = folder_checks(data.staging_area, settings.data, local, data.instance)
    more_checks["publishing"] = partial(publishing_check, queue)
    checks = Health(table, probe, lanes, settings.data, reserve, breaker, line, more_checks)
    refusals = Denials(table)
    intake = Intake(
        table,
        places,
        refusals,
        staging_area=data.staging_area,
        open_uploads=OpenUploads(settings.uploads.max_open_per_user, settings.uploads.max_open),
        allowance=UploadLimits(
            max_bytes=settings.uploads.max_bytes,
            recipe=settings.images.recipe,
            types=settings.uploads.allowed_mime_types,
            quota=quota,
        ),
        preview_memory=memory.preview,
        render_memory=memory.render,
        max_attempts=settings.jobs.max_attempts,
        storage_backend=stores.active.name,
        max_waiting=settings.jobs.max_waiting,
        space=checks,
        accepted=queue.wake,
        first_receipt=data.first_receipt,
    )
    housekeeping = Housekeeping.of(settings, data, stores.storages, hold)
    upkeep = MaintenanceRunner(MaintenanceContext.of(settings, data, stores.storages, housekeeping, hold))
    parts = AppState(
        settings=settings,
        lock=data.lock,
        table=table,
        overview=data.overview,
        quota=quota,
        mirror=mirror,
        queue=queue,
        intake=intake,
        refusals=refusals,
        tokens=await anyio.to_thread.run_sync(Tokens.of, settings),
        operators=OperatorAuth.of(settings, data.lock.run),
        attempts=LoginThrottle(),
        authorization=remote,
        permissions=Permissions(settings.auth.permissions, remote),
        urls=Urls(
            settings.service.public_url,
            stores,
            settings.s3.presigned_seconds,
            Signatures.of(settings) if settings.storage.signed_urls else None,
        ),
        storages=stores.storages,
        health=checks,
        machine=await anyio.to_thread.run_sync(Host, settings.database.path, settings.storage.path),
        dashboard=SnapshotCache(),
        figures=data.figures,
        endings=endings,
        housekeeping=housekeeping,
        staging_area=data.staging_area,
        upkeep=upkeep,
        watchdog=Watchdog(table, queue, metrics.job_stuck),
        metrics=metrics,
    )
    async with anyio.create_task_group() as starting:
        for lane in lanes:
            starting.start_soon(_warm, lane)
    async with anyio.create_task_group() as group:
        group.start_soon(table.count)
        group.start_soon(queue.run)
        if mirror is not None:
            group.start_soon(mirror.line.run)
            await mirror.line.tried.wait()
        await checks.measure()
        group.start_soon(checks.run)
        group.start_soon(housekeeping.run)
        group.start_soon(upkeep.run)
        group.start_soon(parts.watchdog.run)
        ended = anyio.Event()
        group.start_soon(_end_queue, parts, ended)
        log.info("started", environment=settings.service.environment, replayed=replayed, given_up=given_up)
        try:
            yield parts
        finally:
            parts.wind_down()
            with anyio.CancelScope(shield=True):
                await ended.wait()
                await parts.tokens.close()
                await places.close()
            group.cancel_scope.cancel()
    log.info("stopped")


async def _warm(lane: Lane) -> None:
    """Start its worker. Without one the service is degraded, and the queue goes on trying."""
    try:
        await lane.start()
    except Exception as error:
        log.error("worker_start_failed", lane=lane.name, reason=str(error))


async def _end_queue(parts: AppState, ended: anyio.Event) -> None:
    """End the queue from the moment that a stop begins.

    The lanes' grace time runs beside that of the requests, so what that leaves is for recording: a stop takes at most
    both, and 2 seconds for Redis and the database.
    """
    await parts.winding_down.wait()
    with anyio.CancelScope(shield=True):
        try:
            settings = parts.settings
            await parts.queue.stop(settings.workers.grace_seconds, settings.server.graceful_seconds)
        finally:
            ended.set()


def _mirror(settings: Settings) -> "RedisRateLimit | None":
    """Who configures no Redis does not load its client either. Raises SettingsError."""
    if not settings.redis.url:
        return None
    from ..intake.redis_limit import RedisRateLimit

    return RedisRateLimit.of(settings)


@asynccontextmanager
async def _lanes(settings: Settings, metrics: Metrics, given: Sequence[Lane] | None) -> AsyncIterator[Sequence[Lane]]:
    """The preview lane, then the render lanes: those `given`, or ours, of whose processes none is left afterwards."""
    if given:
        yield given
        return
    launcher = Launcher()

    def lane(name: str, nice: int, share: int) -> ProcessLane:
        return ProcessLane(name, nice=nice, jobs_per_process=share, ended=metrics.worker_ended, launcher=launcher)

    share = settings.workers.jobs_per_process
    renders = [lane(f"render-{n}", RENDER_NICENESS, share) for n in range(render_lanes(settings.workers))]
    lanes = [lane("preview", 0, share * 10), *renders]
    try:
        yield lanes
    finally:
        with anyio.CancelScope(shield=True):
            for one in lanes:
                await one.close()
        launcher.close()
