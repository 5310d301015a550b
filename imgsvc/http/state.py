"""The application state that handlers use, in groups of related parts."""

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request

from ..lazy_dataclass import dataclass

if TYPE_CHECKING:
    from ..access.cursors import Cursors
    from ..access.guarded_client import GuardedClient
    from ..access.login_throttle import LoginThrottle
    from ..access.operator_auth import OperatorAuth
    from ..access.permissions import Permissions
    from ..access.remote_permissions import RemoteAuthorization
    from ..access.tokens import Tokens
    from ..intake.fetches import Fetches
    from ..intake.intake import Intake
    from ..intake.rate_limit import RateLimiter
    from ..jobs.clocks import ClockKeeper, Clocks
    from ..jobs.cluster.lane import TicketOffice
    from ..jobs.completions import Completions
    from ..jobs.counters import JobCounters
    from ..jobs.deletion import Deletion
    from ..jobs.deletion_hold import DeletionHold
    from ..jobs.denials import Denials
    from ..jobs.erasing import Erasing
    from ..jobs.expiry import Expiry
    from ..jobs.housekeeping import Housekeeping
    from ..jobs.image_changes import ImageChanges
    from ..jobs.lock import DataFolderLock
    from ..jobs.operator_sessions import OperatorSessions
    from ..jobs.queue import Queue
    from ..jobs.render_again import RenderAgain
    from ..jobs.restart import Restart
    from ..jobs.staging_area import StagingArea
    from ..jobs.table.credentials import Credentials
    from ..jobs.table.event_feed import EventFeed
    from ..jobs.table.figures import Figures
    from ..jobs.table.job_table import JobTable
    from ..jobs.table.listing import ImageLists
    from ..jobs.table.reports import JobReports
    from ..jobs.table.usage import JobSums
    from ..jobs.table.webhook_table import WebhookTable
    from ..jobs.watchdog import Watchdog
    from ..maintenance.runner import MaintenanceRunner
    from ..settings import Settings
    from ..storage.base import Storage
    from ..storage.variant_memory import VariantMemory
    from ..telemetry.disk_space import DiskSpace
    from ..telemetry.health import Health
    from ..telemetry.host import Host
    from ..telemetry.metrics import Metrics
    from ..webhooks.sender import Webhooks
    from .operator.single_sign_on import SingleSignOn
    from .wire.open_streams import OpenStreams
    from .wire.urls import Urls


@dataclass(frozen=True, slots=True)
class Jobs:
    """The job table, the queue, and what maintains both."""

    table: "JobTable"
    queue: "Queue"
    completions: "Completions"
    housekeeping: "Housekeeping"
    deletion: "Deletion"
    expiry: "Expiry"
    erasing: "Erasing"
    clocks: "Clocks"
    clock_keeper: "ClockKeeper"
    restart: "Restart"
    changes: "ImageChanges"
    again: "RenderAgain"
    deletion_hold: "DeletionHold"
    watchdog: "Watchdog"
    staging_area: "StagingArea"
    reports: "JobReports"
    lists: "ImageLists"
    sums: "JobSums"
    figures: "Figures"
    counters: "JobCounters"
    office: "TicketOffice | None" = None  # None: pictures are rendered on this machine alone


@dataclass(frozen=True, slots=True)
class Access:
    """Authentication and permissions of clients and operators."""

    tokens: "Tokens"
    permissions: "Permissions"
    remote: "RemoteAuthorization | None"  # None: no authorization server is configured
    operators: "OperatorAuth"
    sessions: "OperatorSessions"
    sign_on: "SingleSignOn | None"  # None: no provider is configured
    throttle: "LoginThrottle"
    denials: "Denials"
    cursors: "Cursors"
    credentials: "Credentials"


@dataclass(frozen=True, slots=True)
class Stores:
    """{name: storage} of every backend, the URLs of stored variants, and the memory of small ones."""

    storages: "Mapping[str, Storage]"
    urls: "Urls"
    variants: "VariantMemory"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Metrics and health checks."""

    health: "Health"
    disk: "DiskSpace"
    host: "Host"
    metrics: "Metrics"


@dataclass(frozen=True, slots=True)
class Telling:
    """Recipients of news about images: webhooks and server-sent events."""

    feed: "EventFeed"
    table: "WebhookTable"
    webhooks: "Webhooks | None"  # None: no endpoint is configured
    streams: "OpenStreams"


@dataclass(slots=True)
class AppState:
    settings: "Settings"
    lock: "DataFolderLock"
    jobs: Jobs
    access: Access
    stores: Stores
    telemetry: Telemetry
    intake: "Intake"
    rate_limiter: "RateLimiter"
    maintenance: "MaintenanceRunner"
    telling: Telling
    fetching: "GuardedClient"  # of uploads by address
    fetches: "Fetches"
    stopping: anyio.Event = field(default_factory=anyio.Event)  # set by the runner once a stop has begun


def state_of(request: Request) -> AppState:
    state: AppState = request.scope["app"].service
    return state
