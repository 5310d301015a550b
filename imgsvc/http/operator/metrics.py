"""GET /metrics: what Prometheus scrapes."""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog
from starlette.requests import Request
from starlette.responses import Response

from ...telemetry.cage_check import weakest_posture
from ..openapi.operations import Answer, Content, operation
from ..state import state_of
from .auth import require_reader

T = TypeVar("T")
log = structlog.get_logger()

DATABASE_SECONDS = 3.0  # the other metrics are sent even if the database hangs; Prometheus itself gives up after 10 s
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
    state = state_of(request)
    waiting, stored = await _measured(state.jobs.reports.waiting), await _measured(state.jobs.sums.stored_bytes)
    metrics = state.telemetry.metrics
    metrics.http.measured(state.telling.streams.count)
    metrics.uploads.measured(state.jobs.staging_area.set_aside.files)
    rows, variants = state.jobs.table.memory, state.stores.variants
    metrics.memory.measured(variants.held_bytes, "row", rows.hits, rows.misses)
    metrics.memory.measured(variants.held_bytes, "variant", variants.hits, variants.misses)
    metrics.jobs.sources(await _measured(state.jobs.sums.kept_sources))
    metrics.jobs.measured(waiting, active=state.jobs.queue.running_tasks, stored=stored)
    if (office := state.jobs.office) is not None:
        metrics.cluster.measured(office.link.state, office.tickets.sent_bytes, office.tickets.received_bytes)
    metrics.webhooks.measured(await _measured(state.telling.table.endpoints))
    metrics.access.measured(
        await _measured(state.access.credentials.count_keys), being_erased=state.jobs.table.erasures.count
    )
    metrics.jobs.clocks_agree(state.jobs.clocks.agree)
    metrics.workers.caged(weakest_posture(state.jobs.queue.lanes()))
    accept = request.headers.get("Accept", "")
    text, media_type = await anyio.to_thread.run_sync(metrics.text, accept)
    return Response(text, headers={**HEADERS, "Content-Type": media_type})


async def _measured(ask: Callable[[], Awaitable[T]]) -> T | None:
    try:
        with anyio.move_on_after(DATABASE_SECONDS):
            return await ask()
    except sqlite3.Error as error:
        log.warning("metrics_incomplete", reason=str(error))
    return None
