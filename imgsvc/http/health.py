"""Whether the service is well, for people, load balancers and containers."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from ..jobs.model import as_text, now
from ..parts import parts_of
from ..telemetry.health import Check, Status
from .answers import answer


class HealthReport(BaseModel):
    status: Status
    service: str
    version: str
    timestamp: str
    checks: dict[str, Check]


class Live(BaseModel):
    status: str = "alive"


async def health(request: Request) -> Response:
    parts = parts_of(request)
    status = parts.health.status()
    report = HealthReport(
        status=status,
        service=parts.settings.service.name,
        version=__version__,
        timestamp=as_text(now()),
        checks=parts.health.checks(),
    )
    return answer(report, 503 if status == "unhealthy" else 200)


async def live(_request: Request) -> Response:
    return answer(Live())
