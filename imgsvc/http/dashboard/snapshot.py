"""Builds the dashboard's data from bounded reads and in-memory counters, at most once a second."""

import json
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio
from pydantic import BaseModel, SecretStr

from ... import __version__
from ...intake.fetches import MAX_FETCHES
from ...jobs.counters import JobCounters
from ...jobs.queue import LaneState
from ...jobs.table.model import Job, as_text, now
from ...jobs.table.reports import Rows, Waiting, Window
from ...jobs.table.usage import Minute
from ...jobs.table.webhook_table import EndpointState
from ...settings import Settings
from ...settings.hosts import without_credentials
from ...settings.webhooks import Webhook
from ...telemetry.cluster_check import CLUSTER
from ...telemetry.health import Check
from ...telemetry.host import uptime_words
from ...telemetry.host_models import HostSample
from ..state import AppState
from ..wire.error_codes import CODES
from ..wire.open_streams import MAX_STREAMS
from . import models as shown
from . import spans

if TYPE_CHECKING:
    from ...intake.redis_connection import RedisConnection

FRESH_SECONDS = 1.0
LISTED = 10
NEAR = 0.8  # of the limit
MOST_TICKETS = 50  # are counted: beyond that the overview says so
GROWTH = timedelta(minutes=10)
MANY_WAITING = 20  # jobs: fewer are soon done, however they grow
# Generated at the first start if not configured.
OWN_SECRETS = {("auth", "jwt_secret_key"), ("operator", "token"), ("storage", "url_signing_key")}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class SnapshotCache:
    """The last snapshot, shared by all requests within a second. Only one is built at a time."""

    def __init__(self) -> None:
        self._made = -FRESH_SECONDS
        self._last: shown.Snapshot | None = None
        self._making = anyio.Lock()

    async def data(self, state: AppState) -> shown.Snapshot:
        async with self._making:
            if self._last is None or time.monotonic() - self._made >= FRESH_SECONDS:
                self._last = await _made(state)
                self._made = time.monotonic()
            return self._last


async def _made(state: AppState) -> shown.Snapshot:
    await state.telemetry.health.known()
    overview, lanes, health = state.jobs.reports, state.jobs.queue.lanes(), state.telemetry.health.checks()
    look = await state.telemetry.host.look([lane.pid for lane in lanes if lane.pid is not None])
    waiting, rows = await overview.waiting(), await overview.rows(state.intake.allowance.quota)
    recent, failed = await overview.recent(LISTED), await state.jobs.table.latest_failed(LISTED)
    workers = _workers(lanes, look, health["workers"])
    figures = state.jobs.figures
    before = await figures.waiting_before(GROWTH, GROWTH / 4), await figures.waiting_before(GROWTH / 2, GROWTH / 4)
    return shown.Snapshot(
        system=_system(state, look),
        health=shown.Health(status=state.telemetry.health.status(), checks=health),
        database=_database(state, look, health["database"], rows, recent),
        redis=_redis(state.rate_limiter.redis.connection if state.rate_limiter.redis else None, waiting),
        celery=shown.Celery(status=workers.status, workers=shown.Active(active=workers.active), tasks=workers.tasks),
        queue=_queue(waiting, before),
        workers=workers,
        cluster=_cluster(state, health.get(CLUSTER)),
        processing=_processing(state.jobs.counters, recent, await _hours_before(state)),
        storage=_storage(state, look),
        rate_limits=_rate_limits(state, rows, await overview.near_limit(state.intake.allowance.quota, NEAR, LISTED)),
        errors=_errors(state.jobs.counters, failed, await overview.next_retries(LISTED)),
        webhooks=_webhooks(await state.telling.table.endpoints()),
        credentials=await _credentials(state),
        event_streams=shown.Places(open=state.telling.streams.count, limit=MAX_STREAMS),
        fetches=shown.Places(open=state.fetches.count, limit=MAX_FETCHES),
        configuration=configuration(state.settings),
    )


async def _credentials(state: AppState) -> shown.Credentials:
    credentials = state.access.credentials
    tickets = await credentials.open_tickets(MOST_TICKETS + 1)
    return shown.Credentials(keys=await credentials.count_keys(), open_tickets=len(tickets))


def _webhooks(states: dict[str, EndpointState]) -> list[shown.Webhook]:
    """Those of the settings, and former ones for which something waits."""
    moment = now()
    return [
        shown.Webhook(
            name=one.name,
            waiting=one.waiting,
            oldest_waiting_seconds=(
                round((moment - datetime.fromisoformat(one.oldest)).total_seconds(), 1) if one.oldest else None
            ),
            switched_off=one.switched_off_at is not None,
            overflowed=one.overflowed_at is not None,
        )
        for one in states.values()
        if one.configured or one.waiting
    ]


def _system(state: AppState, look: HostSample) -> shown.System:
    uptime = state.telemetry.host.uptime_seconds
    return shown.System(
        service_name=state.settings.service.name,
        version=__version__,
        uptime_seconds=round(uptime, 1),
        uptime_human=uptime_words(uptime),
        timestamp=as_text(now()),
        resources=look.resources,
    )


def _database(state: AppState, look: HostSample, check: Check, rows: Rows, recent: list[Job]) -> shown.Database:
    return shown.Database(
        status=check.status,
        path=str(state.settings.database.path),
        size_mb=look.database_mb,
        connection_ok=check.status == "healthy",
        tables=shown.Tables(
            processing_jobs=sum(state.jobs.counters.by_status().values()),
            image_upload_events=rows.events,
            upload_rate_limits=rows.windows,
        ),
        recent_activity=shown.RecentActivity(
            last_job_created=recent[0].created_at if recent else None, last_event_logged=rows.last_event
        ),
    )


def _redis(connection: "RedisConnection | None", waiting: Waiting) -> shown.Redis:
    lengths, known = {"celery": waiting.previews + waiting.renders}, connection.info if connection else {}
    info = {
        "version": str(known.get("redis_version", "")),
        "used_memory": str(known.get("used_memory_human", "")),
        "clients": str(known.get("connected_clients", "")),
        "uptime": uptime_words(known["uptime_in_seconds"]) if "uptime_in_seconds" in known else "",
    }
    return shown.Redis(
        status="disabled" if connection is None else "healthy" if connection.up else "down",
        connected=connection is not None and connection.up,
        info={name: value for name, value in info.items() if value},
        queue_lengths=lengths,
    )


def _queue(waiting: Waiting, before: tuple[int | None, int | None]) -> shown.Queue:
    oldest = None if waiting.oldest_seconds is None else round(waiting.oldest_seconds, 1)
    now_waiting = waiting.previews + waiting.renders
    return shown.Queue(
        previews=waiting.previews,
        renders=waiting.renders,
        retrying=waiting.retrying,
        oldest_waiting_seconds=oldest,
        waiting=now_waiting,
        waiting_ten_minutes_ago=before[0],
        grows=_grows(before[0], before[1], now_waiting),
    )


def _grows(first: int | None, then: int | None, at_last: int) -> bool:
    """Whether more and more jobs wait: a burst of uploads that is being worked off is no growth."""
    if first is None or then is None:
        return False
    return first < then < at_last and at_last >= max(MANY_WAITING, 2 * first)


def _workers(lanes: list[LaneState], look: HostSample, check: Check) -> shown.Workers:
    return shown.Workers(
        status=check.status,
        active=sum(lane.alive for lane in lanes),
        tasks=shown.Active(active=sum(lane.job_id is not None for lane in lanes)),
        processes=[
            shown.WorkerProcess(
                name=lane.name,
                pid=lane.pid,
                state="busy" if lane.job_id else "idle" if lane.alive else "starting",
                job_id=lane.job_id,
                busy_seconds=None if lane.busy_seconds is None else round(lane.busy_seconds, 1),
                rss_mb=look.rss.get(lane.pid or 0),
                jobs_done=lane.jobs_done,
                restarts=lane.restarts,
            )
            for lane in lanes
        ],
    )


def _cluster(state: AppState, check: Check | None) -> shown.Cluster:
    office = state.jobs.office
    known = office.link.state if office else None
    used = office.link.usable if office else []
    return shown.Cluster(
        status="off" if known is None else "disconnected" if known.problem else "connected",
        detail=check.detail if check else "",
        insecure=state.settings.workers.insecure,
        gateway_cage=known.cage if known else "",
        tickets_out=known.out if known else 0,
        sent_bytes=office.tickets.sent_bytes if office else 0,
        received_bytes=office.tickets.received_bytes if office else 0,
        machines=[
            shown.ClusterMachine(
                name=one.name,
                version=one.version,
                cage=one.cage,
                threads=one.threads,
                memory_mb=one.megabytes,
                used=one in used,
            )
            for one in (known.machines if known else ())
        ],
    )


async def _hours_before(state: AppState) -> list[Minute]:
    """The hours of the week that the counters do not have."""
    moment = now()
    return await state.jobs.figures.hours(moment - spans.WEEK, spans.counted_since(moment))


def _processing(counters: JobCounters, recent: list[Job], hours: list[Minute]) -> shown.Processing:
    moment = now()
    since = spans.counted_since(moment)
    return shown.Processing(
        jobs_by_status=counters.by_status(),
        performance=shown.Performance(
            last_hour=spans.span(counters.minutes(moment - HOUR)),
            last_24h=spans.span(counters.minutes(moment - DAY)),
            last_7d=spans.span([*hours, *counters.minutes(since)]),
        ),
        minutes=spans.hour(counters, moment),
        half_hours=spans.day(counters, moment),
        hours=spans.week(counters, hours, moment),
        recent_jobs=[
            shown.RecentJob(
                job_id=job.job_id,
                image_id=job.image_id,
                status=job.status,
                user_id=job.user_id,
                bucket=job.storage_bucket,
                original_filename=job.original_filename,
                content_length=job.content_length,
                created_at=job.created_at,
                began_at=job.began_at,
                completed_at=job.completed_at,
                ready=[variant.name for variant in job.recipe.variants if variant.name in job.ready],
            )
            for job in recent
        ],
    )


def _storage(state: AppState, look: HostSample) -> shown.Storage:
    """The storage that new uploads go to."""
    settings, s3 = state.settings.storage, state.settings.s3
    images = state.jobs.counters.by_status()["completed"]
    found = state.jobs.staging_area.set_aside
    aside = shown.SetAside(files=found.files, bytes=found.bytes)
    if settings.backend == "s3":
        remote = shown.S3Storage(bucket=s3.bucket, region=s3.region, endpoint=s3.endpoint_url or None)
        return shown.Storage(backend="s3", set_aside=aside, s3=remote, total_images=images)
    local = shown.LocalStorage(path=str(settings.path), disk=look.storage, reserve_mb=settings.reserve_mb)
    return shown.Storage(backend=settings.backend, set_aside=aside, local=local, total_images=images)


def _rate_limits(state: AppState, rows: Rows, near: list[Window]) -> shown.RateLimits:
    limit, settings = state.intake.allowance.quota.max_uploads, state.settings.rate_limit
    return shown.RateLimits(
        users_near_limit=[
            shown.NearLimit(
                user_id=window.user_id,
                org_id=window.org_id,
                count=window.used,
                limit=limit,
                window_start=window.start,
                percent_used=round(100 * window.used / limit, 1),
            )
            for window in near
        ],
        total_active_windows=rows.active_windows,
        max_uploads_per_hour=round(limit * 60 / settings.window_minutes, 2),
    )


def _errors(counters: JobCounters, failed: list[Job], retrying: list[Job]) -> shown.Errors:
    return shown.Errors(
        recent_failures=[_failure(job) for job in failed],
        retrying=[_failure(job) for job in retrying],
        error_summary=shown.ErrorSummary(
            last_hour=counters.performance(now() - HOUR).failed,
            last_24h=counters.performance(now() - DAY).failed,
            total=counters.by_status()["failed"],
        ),
    )


def _failure(job: Job) -> shown.Failure:
    known = CODES.get(job.error_code or "", CODES["internal_error"])
    return shown.Failure(
        job_id=job.job_id,
        image_id=job.image_id,
        original_filename=job.original_filename,
        status=job.status,
        error=job.last_error,
        error_code=job.error_code,
        why=known.meaning,
        advice=known.advice,
        attempts=job.attempt_count,
        created_at=job.created_at,
        failed_at=job.failed_at,
        next_attempt_at=job.next_attempt_at,
        can_retry=job.can_retry,
    )


def configuration(settings: Settings) -> dict[str, dict[str, str]]:
    """{section: {field: value as text}}. For a secret only its origin is shown."""
    sections = {name: getattr(settings, name) for name in type(settings).model_fields}
    return {
        name: {
            field: _as_shown((name, field), getattr(section, field))
            for field, about in type(section).model_fields.items()
            if not about.exclude
        }
        for name, section in sections.items()
    }


def _plain(value: BaseModel) -> dict[str, object]:
    """A setting that is a table, as it was written."""
    return value.model_dump(exclude_unset=True)


def _as_shown(setting: tuple[str, str], value: object) -> str:
    if isinstance(value, SecretStr):
        absent = "generated by the service" if setting in OWN_SECRETS else "(empty)"
        return "configured" if value.get_secret_value() else absent
    if isinstance(value, tuple) and any(isinstance(one, Webhook) for one in value):
        return json.dumps([one.name for one in value])
    if isinstance(value, (dict, tuple)):
        return json.dumps(value, default=_plain)
    return str(value).lower() if isinstance(value, bool) else without_credentials(str(value))
