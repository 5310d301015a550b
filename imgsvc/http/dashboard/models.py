"""GET /dashboard/data: the models of the contract's key tree. Sizes and times carry their unit in the name."""

from typing import Literal

from ...jobs.answer_model import AnswerModel, example
from ...jobs.table.model import Status as JobState
from ...telemetry.health import Check, Status
from ...telemetry.host_models import Disk, Resources
from .example import EXAMPLE


class System(AnswerModel):
    service_name: str
    version: str
    uptime_seconds: float
    uptime_human: str
    timestamp: str
    resources: Resources


class Health(AnswerModel):
    """The same as /api/v1/health."""

    status: Status
    checks: dict[str, Check]


class Operator(AnswerModel):
    """What this client may do."""

    signed_in: bool
    may_act: bool
    can_make_tokens: bool
    refused_attempts_last_hour: int


class Tables(AnswerModel):
    """Row counts. That of the events is their highest id."""

    processing_jobs: int
    image_upload_events: int
    upload_rate_limits: int


class RecentActivity(AnswerModel):
    last_job_created: str | None
    last_event_logged: str | None


class Database(AnswerModel):
    status: Status
    path: str
    size_mb: float
    connection_ok: bool
    tables: Tables
    recent_activity: RecentActivity


class Redis(AnswerModel):
    """`queue_lengths` is {"celery": waiting jobs}, for scripts written for the older API."""

    status: str
    connected: bool
    info: dict[str, str]
    queue_lengths: dict[str, int]


class Active(AnswerModel):
    active: int


class Celery(AnswerModel):
    """`workers` and their tasks, under the name that scripts for the older API expect."""

    status: Status
    workers: Active
    tasks: Active


class Queue(AnswerModel):
    """`waiting` is `previews` and `renders`. `grows`: it is 20 or more, has risen for ten minutes, and is at least
    twice `waiting_ten_minutes_ago`, which is null if that is not known.
    """

    previews: int
    renders: int
    retrying: int
    oldest_waiting_seconds: float | None
    waiting: int
    waiting_ten_minutes_ago: int | None
    grows: bool


class WorkerProcess(AnswerModel):
    """One lane. `state` is idle, busy or starting; `restarts` counts its processes that were replaced early."""

    name: str
    pid: int | None
    state: str
    job_id: str | None
    busy_seconds: float | None
    rss_mb: float | None
    jobs_done: int
    restarts: int


class Workers(AnswerModel):
    status: Status
    active: int
    tasks: Active
    processes: list[WorkerProcess]


class ClusterMachine(AnswerModel):
    """A worker on another machine. One of another version is not used."""

    name: str
    version: str
    cage: str
    threads: int
    memory_mb: int
    used: bool


class Cluster(AnswerModel):
    """Rendering on other machines. `sent_bytes` of sources and `received_bytes` of variants, since the start."""

    status: Literal["off", "connected", "disconnected"]
    detail: str
    insecure: bool
    gateway_cage: str
    tickets_out: int
    sent_bytes: int
    received_bytes: int
    machines: list[ClusterMachine]


class Span(AnswerModel):
    """The jobs that ended in a period; averages are null if no job was completed."""

    total: int
    completed: int
    failed: int
    avg_processing_time_seconds: float | None
    avg_ready_seconds: float | None


class Performance(AnswerModel):
    last_hour: Span
    last_24h: Span
    last_7d: Span


class ChartStep(AnswerModel):
    """A minute, half an hour, or an hour. `avg_ready_seconds` is the time from the receipt to the end."""

    start: str
    completed: int
    failed: int
    avg_ready_seconds: float | None


class RecentJob(AnswerModel):
    """`began_at` is when it was accepted, or when the operator retried it.

    `original_filename` is for the operator only. The addresses of the smallest and the largest ready variant are
    relative to the service's root. They are null if nothing is ready and, with private reading, for clients that are
    not signed in.
    """

    job_id: str
    image_id: str
    status: JobState
    user_id: str | None
    bucket: str
    original_filename: str | None
    content_length: int
    created_at: str
    began_at: str
    completed_at: str | None
    ready: list[str]
    thumbnail_url: str | None = None
    picture_url: str | None = None


class Processing(AnswerModel):
    """`minutes` are those of the last hour, `half_hours` of the last day, `hours` of the last seven days."""

    jobs_by_status: dict[str, int]
    performance: Performance
    minutes: list[ChartStep]
    half_hours: list[ChartStep]
    hours: list[ChartStep]
    recent_jobs: list[RecentJob]


class LocalStorage(AnswerModel):
    path: str
    disk: Disk | None
    reserve_mb: int


class S3Storage(AnswerModel):
    """`endpoint` is null at AWS."""

    bucket: str
    region: str
    endpoint: str | None


class SetAside(AnswerModel):
    """Complete uploads without a row, which are kept for 7 days."""

    files: int
    bytes: int


class Storage(AnswerModel):
    backend: str
    set_aside: SetAside
    local: LocalStorage | None = None
    s3: S3Storage | None = None
    total_images: int


class NearLimit(AnswerModel):
    user_id: str
    org_id: str
    count: int
    limit: int
    window_start: str
    percent_used: float


class RateLimits(AnswerModel):
    users_near_limit: list[NearLimit]
    total_active_windows: int
    max_uploads_per_hour: float


class Failure(AnswerModel):
    """A failed job, or one whose next attempt is at `next_attempt_at`.

    `why` and `advice` explain the code in plain words; `can_retry` is true if its source is still kept;
    `original_filename` is for the operator only.
    """

    job_id: str
    image_id: str
    original_filename: str | None
    status: JobState
    error: str | None
    error_code: str | None
    why: str
    advice: str
    attempts: int
    created_at: str
    failed_at: str | None
    next_attempt_at: str | None
    can_retry: bool


class ErrorSummary(AnswerModel):
    last_hour: int
    last_24h: int
    total: int


class Errors(AnswerModel):
    recent_failures: list[Failure]
    retrying: list[Failure]
    error_summary: ErrorSummary


class Webhook(AnswerModel):
    """An endpoint; `oldest_waiting_seconds` is null if nothing waits."""

    name: str
    waiting: int
    oldest_waiting_seconds: float | None
    switched_off: bool
    overflowed: bool


class Credentials(AnswerModel):
    """API keys that are not revoked, and upload tickets that can still be used, of which at most 51 are counted."""

    keys: int
    open_tickets: int


class Places(AnswerModel):
    """How many are open now. Beyond `limit` a further one is refused."""

    open: int
    limit: int


class Snapshot(AnswerModel):
    """The part that is the same for all clients."""

    system: System
    health: Health
    database: Database
    redis: Redis
    celery: Celery
    queue: Queue
    workers: Workers
    cluster: Cluster
    processing: Processing
    storage: Storage
    rate_limits: RateLimits
    errors: Errors
    webhooks: list[Webhook]
    credentials: Credentials
    event_streams: Places
    fetches: Places  # uploads by address
    configuration: dict[str, dict[str, str]]


class DashboardData(Snapshot):
    """Everything that the dashboard shows."""

    model_config = example(**EXAMPLE)

    operator: Operator
