"""GET /metrics: what Prometheus comes for."""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog
from starlette.requests import Request
from starlette.responses import Response

from ..openapi.operations import Answer, Content, operation
from ..state import state_of
from .auth import require_reader

T = TypeVar("T")
log = structlog.get_logger()

DATABASE_SECONDS = 3.0  # the rest is told even while the database hangs; Prometheus itself gives up after 10
EXAMPLE = 'image_uploads_total{status="accepted"} 3.0\n'
HEADERS = {"Cache-Control": "private, no-store", "Vary": "Accept, Authorization"}


@operation(
    "metrics_exposition",
    "operator",
    "Metrics for Prometheus",
    access="operator",
    answers={200: Answer("The metrics.", Content("text/plain", example=EXAMPLE))},
)
async def exposition(request: Request) -> Response:
    """In Prometheus' text format, or as OpenMetrics where the client accepts it."""
    await require_reader(request)
    parts = state_of(request)
    waiting, stored = await _measured(parts.overview.waiting), await _measured(parts.table.stored_bytes)
    parts.metrics.measured(waiting, active=parts.queue.running_tasks, stored=stored)
    parts.metrics.uploads_set_aside(parts.staging_area.set_aside.files)
    accept = request.headers.get("Accept", "")
    text, media_type = await anyio.to_thread.run_sync(parts.metrics.text, accept)
    return Response(text, headers={**HEADERS, "Content-Type": media_type})


async def _measured(ask: Callable[[], Awaitable[T]]) -> T | None:
    try:
        with anyio.move_on_after(DATABASE_SECONDS):
            return await ask()
    except sqlite3.Error as error:
        log.warning("not_measured", reason=str(error))
    return None
