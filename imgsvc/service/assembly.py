"""Builds a service, group by group, from its settings and the resources opened for it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import structlog

from ..access.cursors import KEY_FILE, Cursors
from ..access.guarded_client import GuardedClient
from ..access.login_throttle import LoginThrottle
from ..access.operator_auth import OperatorAuth, operator_token
from ..access.permissions import Permissions
from ..access.secrets import own_secret
from ..access.signing import Signatures
from ..access.tokens import Tokens
from ..http.state import Access, AppState, Jobs, Stores, Telemetry, Telling
from ..http.wire.open_streams import OpenStreams
from ..http.wire.urls import Urls
from ..imaging.limits import left_out
from ..intake.fetches import Fetches
from ..intake.intake import Intake, IntakePolicy
from ..intake.limits import UploadLimits
from ..intake.open_uploads import OpenUploads
from ..intake.rate_limit import RateLimiter
from ..jobs.completions import Completions
from ..jobs.counters import JobCounters
from ..jobs.data_folder import DataFolder, open_data_folder
from ..jobs.deletion import Deletion
from ..jobs.deletion_hold import DeletionHold
from ..jobs.denials import Denials
from ..jobs.erasing import Erasing
from ..jobs.expiry import Expiry
from ..jobs.housekeeping import Housekeeping
from ..jobs.image_changes import ImageChanges
from ..jobs.incoming import Incoming
from ..jobs.lanes.base import Lane
from ..jobs.lanes.cage import in_words
from ..jobs.lanes.caged_types import HEIC, accepted_types
from ..jobs.lanes.memory_budget import Budget, budget
from ..jobs.operator_sessions import OperatorSessions
from ..jobs.queue import Queue
from ..jobs.render_again import RenderAgain
from ..jobs.restart import Restart
from ..jobs.run import Limits, RunContext
from ..jobs.table.quota import Quota
from ..jobs.watchdog import Watchdog
from ..lazy_dataclass import dataclass
from ..maintenance.context import MaintenanceContext
from ..maintenance.runner import MaintenanceRunner
from ..settings import Settings
from ..settings.fields import MEGABYTE
from ..storage.base import LOCAL, Storage
from ..storage.bounded_memory import BoundedMemory
from ..storage.registry import StorageRegistry, storage_registry
from ..telemetry.cage_check import CAGE, cage_check, weakest_posture
from ..telemetry.cluster_check import CLUSTER, cluster_check
from ..telemetry.disk_space import DISK, DiskSpace
from ..telemetry.folder_checks import folder_checks
from ..telemetry.health import Health, RunCheck
from ..telemetry.host import Host
from ..telemetry.metrics import Metrics
from ..telemetry.publishing_check import publishing_check
from ..telemetry.service_checks import (
    authorization_check,
    clocks_check,
    database_check,
    queue_check,
    redis_check,
    revocations_check,
    storage_check,
    webhooks_check,
    workers_check,
)
from ..telemetry.storage_probe import StorageProbe
from .lanes import Lanes, sides_of, worker_lanes
from .required_codecs import require_codecs
from .runner import running

if TYPE_CHECKING:
    from ..access.remote_permissions import RemoteAuthorization
    from ..http.operator.single_sign_on import SingleSignOn
    from ..intake.redis_limit import RedisRateLimit
    from ..webhooks.sender import Webhooks

log = structlog.get_logger()

SIGN_ON_CALLBACK = "/dashboard/oidc/callback"


@dataclass(frozen=True, slots=True)
class Doubles:
    """Replacements by `imgsvc.testing` for worker processes and the storage folder.

    `others` are further backends that rows may name.
    """

    lanes: Sequence[Lane] | None = None
    storage: Storage | None = None
    others: Sequence[Storage] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """The resources that are opened before anything is built, and closed after everything else has ended."""

    settings: Settings
    metrics: Metrics
    data: DataFolder
    stores: StorageRegistry
    remote: "RemoteAuthorization | None"  # None: no authorization server is configured
    lanes: Lanes


@asynccontextmanager
async def assembled(settings: Settings, doubles: Doubles, metrics: Metrics) -> AsyncIterator[AppState]:
    """Open, build and run a service; at the end stop and close it.

    Raises DataFolderInUse, InstanceMismatch, SchemaTooNew, SettingsError, MemoryTooSmall, sqlite3.Error or OSError.
    """
    require_codecs(settings)
    async with _opened(settings, doubles, metrics) as opened:
        table = opened.data.table
        replayed, given_up = await table.replay(settings.jobs.retry_delay_seconds)
        await table.further.replay()
        if not settings.images.reuse:
            await table.drop_twins()
        await opened.data.sums.seed()
        endpoints = settings.webhooks.endpoints
        await opened.data.webhooks.configure((one.name, one.events, one.buckets) for one in endpoints)
        for name in opened.stores.storages:
            metrics.storage.uses(name)
        state = await _built(opened)
        async with running(state, partial(_log_cage, opened.lanes.local)):
            if names := left_out(settings.images.recipe, budget(settings.workers).render):
                log.warning("formats_left_out", variants=list(names), reason="photos that fill them need more memory")
            log.info("started", environment=settings.service.environment, replayed=replayed, given_up=given_up)
            yield state


def _log_cage(lanes: Sequence[Lane]) -> None:
    posture = weakest_posture(lanes)
    if posture is None:
        return
    missing = (*posture.problems, *posture.absent)
    write = log.warning if missing or posture.mode == "off" else log.info
    more = {"missing": "; ".join(missing)} if missing else {}
    write("cage", mode=posture.mode, in_force=in_words(posture), **more)


@asynccontextmanager
async def _opened(settings: Settings, doubles: Doubles, metrics: Metrics) -> AsyncIterator[Opened]:
    """Open the resources. The data folder's lock comes first and protects all others."""
    counters, memory = JobCounters(metrics.jobs.job_reached), BoundedMemory(int(settings.server.cache_mb * MEGABYTE))
    operation, others = metrics.storage.operation, doubles.others
    async with (
        open_data_folder(settings, settings.jobs.lock_wait_seconds, metrics.storage.query, counters, memory) as data,
        storage_registry(settings, operation, doubles.storage, others, instance=data.instance, memory=memory) as stores,
        _remote_permissions(settings) as remote,
        worker_lanes(settings, metrics, doubles.lanes, stores.receiving) as lanes,
    ):
        yield Opened(settings, metrics, data, stores, remote, lanes)


async def _built(opened: Opened) -> AppState:
    settings, memory = opened.settings, budget(opened.settings.workers)
    rate_limiter = RateLimiter(opened.data.table, _redis(settings))
    jobs = _jobs(opened, memory, rate_limiter)
    access = await _access(opened)
    stores = _stores(opened)
    telemetry = _telemetry(opened, jobs.queue, rate_limiter)
    return AppState(
        settings=settings,
        lock=opened.data.lock,
        jobs=jobs,
        access=access,
        stores=stores,
        telemetry=telemetry,
        intake=_intake(opened, memory, jobs.queue, rate_limiter, access.denials, telemetry.disk),
        rate_limiter=rate_limiter,
        maintenance=_maintenance(opened, jobs),
        telling=Telling(opened.data.feed, opened.data.webhooks, _webhooks(opened, stores.urls), OpenStreams()),
        fetching=GuardedClient(),
        fetches=Fetches(),
    )


def _jobs(opened: Opened, memory: Budget, rate_limiter: RateLimiter) -> Jobs:
    settings, data, metrics = opened.settings, opened.data, opened.metrics
    completions, hold = Completions(), DeletionHold()
    runs = _run_context(opened, hold)
    queue = Queue(sides_of(opened.lanes, memory), runs, completions)
    if opened.lanes.office is not None:
        opened.lanes.office.link.on_change = queue.wake
    housekeeping = Housekeeping.of(settings, data, runs.storages, hold, runs.incoming)
    deletion = Deletion(data.table, queue, completions, housekeeping)
    erased = partial(_erased, metrics, rate_limiter)
    return Jobs(
        table=data.table,
        queue=queue,
        completions=completions,
        housekeeping=housekeeping,
        deletion=deletion,
        changes=ImageChanges(data.table, queue),
        erasing=Erasing(data.table, housekeeping, data.staging_area, data.revocations, deletion.end_run, erased),
        again=RenderAgain(data.render_tasks, data.table.further, queue, hold, memory.render),
        expiry=Expiry(data.table, deletion, data.clocks, metrics.jobs.expired),
        clocks=data.clocks,
        clock_keeper=data.clock_keeper,
        restart=Restart(data.table, data.staging_area, housekeeping, queue),
        deletion_hold=hold,
        watchdog=Watchdog(data.table, queue, metrics.workers.job_stuck),
        staging_area=data.staging_area,
        reports=data.overview,
        lists=data.lists,
        sums=data.sums,
        figures=data.figures,
        counters=data.counters,
        office=opened.lanes.office,
    )


def _erased(metrics: Metrics, rate_limiter: RateLimiter, org_id: str, user_id: str) -> None:
    rate_limiter.forget(org_id, user_id)
    metrics.access.erased()


def _run_context(opened: Opened, hold: DeletionHold) -> RunContext:
    settings, data, metrics = opened.settings, opened.data, opened.metrics.jobs
    return RunContext(
        table=data.table,
        storages=opened.stores.storages,
        staging=data.staging,
        scratch=data.scratch,
        limits=Limits(
            time_limit_seconds=settings.workers.time_limit_seconds,
            time_limit_seconds_per_megapixel=settings.workers.time_limit_seconds_per_megapixel,
            retry_delay_seconds=settings.jobs.retry_delay_seconds,
        ),
        on_variant=metrics.variant_made,
        on_larger=metrics.variant_larger,
        hold=hold,
        on_reuse=metrics.job_reused,
        on_further=metrics.rendered_again,
        presigned=timedelta(seconds=settings.s3.presigned_seconds),
        incoming=opened.lanes.office.incoming if opened.lanes.office else Incoming(),
    )


async def _access(opened: Opened) -> Access:
    settings, remote = opened.settings, opened.remote
    token, tokens, cursors = await anyio.to_thread.run_sync(_secrets, settings)
    sessions = await OperatorSessions.of(settings, opened.data, token)
    await sessions.remove_others()
    return Access(
        tokens=tokens,
        permissions=Permissions(settings.auth.permissions, remote),
        remote=remote,
        operators=OperatorAuth(token, opened.data.lock.run),
        sessions=sessions,
        sign_on=_sign_on(settings),
        throttle=LoginThrottle(),
        denials=Denials(opened.data.table),
        cursors=cursors,
        credentials=opened.data.credentials,
    )


def _secrets(settings: Settings) -> tuple[str, Tokens, Cursors]:
    """What files of the data folder are read for, in one visit of a thread."""
    return operator_token(settings), Tokens.of(settings), Cursors(own_secret(settings.data, KEY_FILE))


def _sign_on(settings: Settings) -> "SingleSignOn | None":
    if not settings.operator.oidc_issuer:
        return None
    from ..http.operator.single_sign_on import SingleSignOn  # with what it needs only where it is used

    return SingleSignOn(settings.operator, f"{settings.service.public_url}{SIGN_ON_CALLBACK}")


def _stores(opened: Opened) -> Stores:
    settings = opened.settings
    signatures = Signatures.of(settings) if settings.storage.signed_urls else None
    urls = Urls(settings.service.public_url, opened.stores, settings.s3.presigned_seconds, signatures)
    return Stores(opened.stores.storages, urls, opened.stores.variants)


def _telemetry(opened: Opened, queue: Queue, rate_limiter: RateLimiter) -> Telemetry:
    settings = opened.settings
    host = Host(settings.database.path, settings.storage.path)
    disk = DiskSpace(settings.data, settings.storage.reserve_mb * MEGABYTE)
    return Telemetry(Health(_checks(opened, queue, rate_limiter, disk)), disk, host, opened.metrics)


def _checks(opened: Opened, queue: Queue, rate_limiter: RateLimiter, disk: DiskSpace) -> dict[str, RunCheck]:
    settings, data, active = opened.settings, opened.data, opened.stores.active
    probe = StorageProbe(active, data.scratch / "health", data.instance, data.claim.claim)
    local = settings.storage.path if active.name == settings.storage.backend == LOCAL else None
    checks: dict[str, RunCheck] = {
        "database": partial(database_check, data.table),
        "storage": partial(storage_check, probe),
        "workers": partial(workers_check, opened.lanes.local),
        CAGE: partial(cage_check, opened.lanes.local),
        DISK: disk.check,
        "queue": partial(queue_check, data.table),
        "clocks": partial(clocks_check, data.clocks),
        "revocations": partial(revocations_check, data.revocations),
        **folder_checks(data.staging_area, settings.data, local, data.instance),
        "publishing": partial(publishing_check, queue),
    }
    if (office := opened.lanes.office) is not None:
        checks[CLUSTER] = lambda: cluster_check(office.link.state, insecure=settings.workers.insecure)
    if opened.remote:
        checks["authorization"] = partial(authorization_check, opened.remote.breaker)
    if settings.webhooks.endpoints:
        checks["webhooks"] = partial(webhooks_check, data.webhooks)
    if rate_limiter.redis:
        checks["redis"] = partial(redis_check, rate_limiter.redis.connection)
    return checks


def _intake(
    opened: Opened, memory: Budget, queue: Queue, rate_limiter: RateLimiter, denials: Denials, space: DiskSpace
) -> Intake:
    settings, data = opened.settings, opened.data
    uploads = settings.uploads
    return Intake(
        data.table,
        rate_limiter,
        denials,
        staging_area=data.staging_area,
        open_uploads=OpenUploads(uploads.max_open_per_user, uploads.max_open),
        allowance=UploadLimits(
            max_bytes=uploads.max_bytes,
            recipe=settings.images.recipe,
            types=tuple(one for one in uploads.allowed_mime_types if one != HEIC or settings.images.heic != "off"),
            quota=Quota.of(settings.rate_limit, settings.quota),
        ),
        policy=IntakePolicy(
            preview_memory=memory.preview,
            render_memory=memory.render,
            max_waiting=settings.jobs.max_waiting,
            max_attempts=settings.jobs.max_attempts,
            storage_backend=opened.stores.active.name,
            reuse=settings.images.reuse,
        ),
        space=space,
        accepted=queue.wake,
        first_receipt=data.first_receipt,
        decoded=partial(accepted_types, lanes=opened.lanes.deciding),
    )


def _maintenance(opened: Opened, jobs: Jobs) -> MaintenanceRunner:
    storages = opened.stores.storages
    return MaintenanceRunner(
        MaintenanceContext.of(opened.settings, opened.data, storages, jobs.housekeeping, jobs.deletion_hold)
    )


def _webhooks(opened: Opened, urls: Urls) -> "Webhooks | None":
    """The senders; None without an endpoint: what they need is then not imported."""
    data, endpoints = opened.data, opened.settings.webhooks.endpoints
    if not endpoints:
        return None
    from ..webhooks.sender import Webhooks, WebhookSender

    on_attempt = opened.metrics.webhooks.attempted
    senders = (WebhookSender(one, data.webhooks, data.table, urls.of, on_attempt) for one in endpoints)
    return Webhooks(data.webhooks, tuple(senders), data.feed)


def _redis(settings: Settings) -> "RedisRateLimit | None":
    """The shared rate limit; None without Redis, whose client is then not imported. Raises SettingsError."""
    if not settings.redis.url:
        return None
    from ..intake.redis_limit import RedisRateLimit

    return RedisRateLimit.of(settings)


@asynccontextmanager
async def _remote_permissions(settings: Settings) -> AsyncIterator["RemoteAuthorization | None"]:
    if settings.auth.permissions != "remote":
        yield None
        return
    from ..access.remote_permissions import RemoteAuthorization  # imports an HTTP client, which is not needed otherwise

    async with RemoteAuthorization.opened(settings.auth) as remote:
        yield remote
