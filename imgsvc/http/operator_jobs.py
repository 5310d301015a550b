"""Jobs as only the operator sees them: whose they are, what they failed of, and their audit trail."""

from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ..jobs.model import Job
from ..jobs.overview import Overview
from ..parts import parts_of
from . import gate
from .answers import answer
from .ids import path_id
from .jobs import JobStatus, status_of
from .problems import job_not_found, validation

STATUSES = ("pending", "processing", "retrying", "completed", "failed")
DEFAULT_LISTED, MAX_LISTED = 20, 200
MAX_EVENTS = 200


class ListedJob(JobStatus):
    """`content_length` is in bytes; `can_retry` says whether the uploaded bytes of a failed job are still kept."""

    user_id: str | None
    org_id: str | None
    bucket: str
    content_length: int
    failed_at: str | None
    can_retry: bool


class ListedJobs(BaseModel):
    jobs: list[ListedJob]


class AuditEvent(BaseModel):
    event: str
    created_at: str
    facts: dict[str, Any]


class ShownJob(ListedJob):
    """With its audit trail, the latest first."""

    trace_id: str
    mime_type: str
    original_filename: str | None
    storage_backend: str
    events: list[AuditEvent]


async def jobs(request: Request) -> Response:
    """The newest jobs, of one status if asked for."""
    gate.reader(request)
    status, limit = _status(request), _limit(request)
    found = await parts_of(request).overview.recent(limit, status)
    return answer(ListedJobs(jobs=[ListedJob(**listed(job)) for job in found]))


async def job(request: Request) -> Response:
    gate.reader(request)
    parts = parts_of(request)
    found = await parts.table.job(path_id(request, "job_id", job_not_found))
    if found is None:
        raise job_not_found()
    return answer(await shown(found, parts.overview))


async def shown(job: Job, overview: Overview) -> ShownJob:
    events = await overview.events(job.job_id, MAX_EVENTS)
    return ShownJob(
        **listed(job),
        trace_id=job.trace_id,
        mime_type=job.mime_type,
        original_filename=job.original_filename,
        storage_backend=job.storage_backend,
        events=[AuditEvent(event=one.kind, created_at=one.created_at, facts=one.facts) for one in events],
    )


def listed(job: Job) -> dict[str, Any]:
    return {
        **status_of(job).model_dump(),
        "user_id": job.user_id,
        "org_id": job.org_id,
        "bucket": job.storage_bucket,
        "content_length": job.content_length,
        "failed_at": job.failed_at,
        "can_retry": job.can_retry,
    }


def _status(request: Request) -> str | None:
    status = request.query_params.get("status")
    if status is not None and status not in STATUSES:
        raise validation((("query", "status"), f"must be one of {', '.join(STATUSES)}", "status_invalid"))
    return status


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LISTED))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_LISTED):
        raise validation((("query", "limit"), f"must be a whole number from 1 to {MAX_LISTED}", "limit_invalid"))
    return int(text)
