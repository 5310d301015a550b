"""Health and readiness endpoints, statistics, and the latest failed jobs."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ... import __version__
from ...jobs.answer_model import AnswerModel, example
from ...jobs.table.model import Job, as_text, now
from ...telemetry.cage_check import CAGE
from ...telemetry.cluster_check import CLUSTER
from ...telemetry.health import Check, Status
from ..openapi.operations import Answer, operation
from ..operator.auth import is_operator
from ..state import state_of
from ..wire.json_response import json_response
from ..wire.validation import WHOLE_NUMBER, Query, parsed

DEFAULT_FAILED, MAX_FAILED = 50, 200  # failed jobs in one response


class HealthReport(AnswerModel):
    """The last result of each check. They run every few seconds in the background. `cage` and `cluster` are for the
    operator only.
    """

    model_config = example(
        status="healthy",
        service="imgsvc",
        version=__version__,
        timestamp="2026-03-01T12:00:00.000000+00:00",
        checks={"database": {"status": "healthy", "detail": "a write was committed", "age_seconds": 1.2}},
    )

    status: Status
    service: str
    version: str
    timestamp: str
    checks: dict[str, Check]


class Live(AnswerModel):
    """The process is alive."""

    model_config = example(status="alive")

    status: str = "alive"


@operation(
    "health_health",
    "health",
    "The health of everything that the service needs",
    answers={200: HealthReport, 503: Answer("Something failed: `status` is `unhealthy`.", HealthReport)},
)
async def health(request: Request) -> Response:
    state = state_of(request)
    await state.telemetry.health.known()
    status, checks = state.telemetry.health.status(), state.telemetry.health.checks()
    if not await is_operator(request):
        checks.pop(CAGE, None)  # which wall is missing helps an attacker
        checks.pop(CLUSTER, None)  # and so do the names of machines
    report = HealthReport(
        status=status,
        service=state.settings.service.name,
        version=__version__,
        timestamp=as_text(now()),
        checks=checks,
    )
    return json_response(report, 503 if status == "unhealthy" else 200)


@operation("health_live", "health", "Whether the process responds at all", answers={200: Live})
async def live(_request: Request) -> Response:
    return json_response(Live())


class Performance24h(AnswerModel):
    completed_24h: int
    avg_processing_time_seconds: float | None


class StorageCounts(AnswerModel):
    total_images: int
    total_jobs: int


class WorkerCounts(AnswerModel):
    active_workers: int
    active_tasks: int


class Stats(AnswerModel):
    """`celery` repeats `workers` under the name that scripts for the older API expect."""

    model_config = example(
        status_breakdown={"pending": 1, "processing": 2, "retrying": 0, "completed": 1200, "failed": 3},
        performance_24h={"completed_24h": 140, "avg_processing_time_seconds": 0.8},
        storage={"total_images": 1200, "total_jobs": 1206},
        workers={"active_workers": 3, "active_tasks": 2},
        celery={"active_workers": 3, "active_tasks": 2},
        timestamp="2026-03-01T12:00:00.000000+00:00",
    )

    status_breakdown: dict[str, int]
    performance_24h: Performance24h
    storage: StorageCounts
    workers: WorkerCounts
    celery: WorkerCounts
    timestamp: str


class FailedJob(AnswerModel):
    error: str | None
    error_code: str | None
    attempts: int
    created_at: str
    failed_at: str | None


class FailedJobOfOperator(FailedJob):
    """With the job's ID, for the operator only: after a retry it leads to the image, which anyone can view then."""

    job_id: str
    image_id: str


class FailedJobs(AnswerModel):
    """The latest failed jobs, newest first; `total` counts all."""

    model_config = example(
        failed_jobs=[
            {
                "error": "The JPEG ends before its image is complete.",
                "error_code": "image_unreadable",
                "attempts": 1,
                "created_at": "2026-03-01T12:00:00.000000+00:00",
                "failed_at": "2026-03-01T12:00:01.000000+00:00",
            }
        ],
        total=3,
    )

    failed_jobs: list[FailedJobOfOperator | FailedJob]
    total: int


class FailedQuery(Query):
    limit: Annotated[
        int, Field(ge=1, le=MAX_FAILED, description="The largest number of jobs to list."), WHOLE_NUMBER
    ] = DEFAULT_FAILED


@operation("health_stats", "health", "Counts by status, and the last 24 hours", answers={200: Stats})
async def stats(request: Request) -> Response:
    state = state_of(request)
    counters = state.jobs.counters
    by_status, day = counters.by_status(), counters.performance(now() - timedelta(days=1))
    workers = WorkerCounts(active_workers=state.jobs.queue.living_lanes, active_tasks=state.jobs.queue.running_tasks)
    return json_response(
        Stats(
            status_breakdown=by_status,
            performance_24h=Performance24h(
                completed_24h=day.completed, avg_processing_time_seconds=day.avg_processing_seconds
            ),
            storage=StorageCounts(total_images=by_status["completed"], total_jobs=sum(by_status.values())),
            workers=workers,
            celery=workers,
            timestamp=as_text(now()),
        )
    )


@operation(
    "health_failed",
    "health",
    "The latest failed jobs and their errors",
    query=FailedQuery,
    answers={200: FailedJobs},
    errors=("overloaded",),
)
async def failed(request: Request) -> Response:
    state = state_of(request)
    limit, operator = parsed(request, FailedQuery).limit, await is_operator(request)
    listed = [_failed_job(job, operator=operator) for job in await state.jobs.table.latest_failed(limit)]
    return json_response(FailedJobs(failed_jobs=listed, total=state.jobs.counters.by_status()["failed"]))


def _failed_job(job: Job, *, operator: bool) -> FailedJob | FailedJobOfOperator:
    known = FailedJob(
        error=job.last_error,
        error_code=job.error_code,
        attempts=job.attempt_count,
        created_at=job.created_at,
        failed_at=job.failed_at,
    )
    return FailedJobOfOperator(**known.model_dump(), job_id=job.job_id, image_id=job.image_id) if operator else known
