"""The joined parts of one running service, as handlers reach them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request

if TYPE_CHECKING:
    from ..access.login_throttle import LoginThrottle
    from ..access.operator_auth import OperatorAuth
    from ..access.permissions import Permissions
    from ..access.remote_permissions import RemoteAuthorization
    from ..access.tokens import Tokens
    from ..intake.intake import Intake
    from ..intake.redis_limit import RedisRateLimit
    from ..jobs.completions import Completions
    from ..jobs.counters import JobCounters
    from ..jobs.denials import Denials
    from ..jobs.housekeeping import Housekeeping
    from ..jobs.lock import DataFolderLock
    from ..jobs.queue import Queue
    from ..jobs.staging_area import StagingArea
    from ..jobs.table.job_table import JobTable
    from ..jobs.table.quota import Quota
    from ..jobs.table.reports import JobReports
    from ..jobs.watchdog import Watchdog
    from ..maintenance.runner import MaintenanceRunner
    from ..settings import Settings
    from ..storage.base import Storage
    from ..telemetry.health import Health
    from ..telemetry.host import Host
    from ..telemetry.metrics import Metrics
    from .dashboard.snapshot import SnapshotCache
    from .wire.urls import Urls


@dataclass(slots=True)
class AppState:
    settings: "Settings"
    lock: "DataFolderLock"
    table: "JobTable"
    overview: "JobReports"
    quota: "Quota"
    mirror: "RedisRateLimit | None"
    queue: "Queue"
    intake: "Intake"
    refusals: "Denials"
    tokens: "Tokens"
    operators: "OperatorAuth"
    attempts: "LoginThrottle"
    authorization: "RemoteAuthorization | None"  # None: no authorization server is asked
    permissions: "Permissions"
    urls: "Urls"
    storages: "Mapping[str, Storage]"
    health: "Health"
    machine: "Host"
    dashboard: "SnapshotCache"
    figures: "JobCounters"
    endings: "Completions"
    housekeeping: "Housekeeping"
    staging_area: "StagingArea"
    upkeep: "MaintenanceRunner"
    watchdog: "Watchdog"
    metrics: "Metrics"
    winding_down: anyio.Event = field(default_factory=anyio.Event)

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun."""
        return self.winding_down.is_set()

    def wind_down(self) -> None:
        """Take no new upload and start no new job: what is under way may still finish."""
        self.winding_down.set()
        self.queue.hold()
        self.upkeep.cancel()
        self.endings.wake_all()


def state_of(request: Request) -> AppState:
    parts: AppState = request.app.state.parts
    return parts
