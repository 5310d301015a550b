"""The joined parts of one running service, as handlers reach them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request

if TYPE_CHECKING:
    from ..access.login_throttle import Attempts
    from ..access.operator_auth import Operators
    from ..access.permissions import Permissions
    from ..access.remote_permissions import RemoteAuthorization
    from ..access.tokens import Tokens
    from ..intake.intake import Intake
    from ..intake.redis_limit import RedisMirror
    from ..jobs.completions import Endings
    from ..jobs.counters import Figures
    from ..jobs.denials import Refusals
    from ..jobs.housekeeping import Housekeeping
    from ..jobs.lock import DataFolderLock
    from ..jobs.queue import Queue
    from ..jobs.staging_area import StagingArea
    from ..jobs.table.job_table import Table
    from ..jobs.table.quota import Quota
    from ..jobs.table.reports import Overview
    from ..jobs.watchdog import Watchdog
    from ..maintenance.runner import Upkeep
    from ..settings import Settings
    from ..storage.base import Storage
    from ..telemetry.health import Health
    from ..telemetry.host import Machine
    from ..telemetry.metrics import Metrics
    from .dashboard.snapshot import Dashboard
    from .wire.urls import Urls


@dataclass(slots=True)
class Parts:
    settings: "Settings"
    lock: "DataFolderLock"
    table: "Table"
    overview: "Overview"
    quota: "Quota"
    mirror: "RedisMirror | None"
    queue: "Queue"
    intake: "Intake"
    refusals: "Refusals"
    tokens: "Tokens"
    operators: "Operators"
    attempts: "Attempts"
    authorization: "RemoteAuthorization | None"  # None: no authorization server is asked
    permissions: "Permissions"
    urls: "Urls"
    storages: "Mapping[str, Storage]"
    health: "Health"
    machine: "Machine"
    dashboard: "Dashboard"
    figures: "Figures"
    endings: "Endings"
    housekeeping: "Housekeeping"
    staging_area: "StagingArea"
    upkeep: "Upkeep"
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


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts
