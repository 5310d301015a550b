"""The joined parts of one running service, as handlers reach them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

if TYPE_CHECKING:
    from .access.tokens import Tokens
    from .http.urls import Urls
    from .intake import Intake
    from .jobs.endings import Endings
    from .jobs.housekeeping import Housekeeping
    from .jobs.queue import Queue
    from .jobs.table import Table
    from .settings import Settings
    from .storage.base import Storage
    from .telemetry.figures import Figures
    from .telemetry.health import Health
    from .telemetry.metrics import Metrics


@dataclass(slots=True)
class Parts:
    settings: "Settings"
    table: "Table"
    queue: "Queue"
    intake: "Intake"
    tokens: "Tokens"
    urls: "Urls"
    storages: "Mapping[str, Storage]"
    health: "Health"
    figures: "Figures"
    endings: "Endings"
    housekeeping: "Housekeeping"
    metrics: "Metrics"
    stopping: bool = field(default=False)

    def wind_down(self) -> None:
        """Take no new upload and start no new job: what is under way may still finish."""
        self.stopping = True
        self.queue.hold()
        self.endings.wake_all()


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts
