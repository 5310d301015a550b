"""Whether the service is well, for people, load balancers and containers."""

from datetime import timedelta

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from ..jobs.model import Job, as_text, now
from ..parts import parts_of
from ..telemetry.health import Check, Status
from .answers import answer
from .gate import is_operator
from .problems import validation

DEFAULT_FAILED, MAX_FAILED = 50, 200  # failed jobs in one answer


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


class Performance24h(BaseModel):
    completed_24h: int
    avg_processing_time_seconds: float | None


class StorageCounts(BaseModel):
    total_images: int
    total_jobs: int


class WorkerCounts(BaseModel):
    active_workers: int
    active_tasks: int


class Stats(BaseModel):
    """`celery` is `workers` under the name that scripts for the older API look for."""

    status_breakdown: dict[str, int]
    performance_24h: Performance24h
    storage: StorageCounts
    workers: WorkerCounts
    celery: WorkerCounts
    timestamp: str


class FailedJob(BaseModel):
    job_id: str
    error: str | None
    error_code: str | None
    attempts: int
    created_at: str
    failed_at: str | None


class FailedJobOfOperator(FailedJob):
    """The id of an image lets everybody see it."""

    image_id: str


class FailedJobs(BaseModel):
    failed_jobs: list[FailedJobOfOperator | FailedJob]
    total: int


async def stats(request: Request) -> Response:
    parts = parts_of(request)
    figures = parts.figures
    by_status, day = figures.by_status(), figures.performance(now() - timedelta(days=1))
    workers = WorkerCounts(active_workers=parts.queue.living_lanes, active_tasks=parts.queue.running_tasks)
    return answer(
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


async def failed(request: Request) -> Response:
    parts = parts_of(request)
    jobs, operator = await parts.table.latest_failed(_limit(request)), is_operator(request)
    listed = [_failed_job(job, operator=operator) for job in jobs]
    return answer(FailedJobs(failed_jobs=listed, total=parts.figures.by_status()["failed"]))


def _failed_job(job: Job, *, operator: bool) -> FailedJob | FailedJobOfOperator:
    known = FailedJob(
        job_id=job.job_id,
        error=job.last_error,
        error_code=job.error_code,
        attempts=job.attempt_count,
        created_at=job.created_at,
        failed_at=job.failed_at,
    )
    return FailedJobOfOperator(**known.model_dump(), image_id=job.image_id) if operator else known


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_FAILED))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_FAILED):
        raise validation((("query", "limit"), f"must be a whole number from 1 to {MAX_FAILED}", "limit_invalid"))
    return int(text)
