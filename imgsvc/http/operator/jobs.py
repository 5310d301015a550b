"""Jobs as only the operator sees them: whose they are, what they failed of, and their audit trail."""

from typing import Annotated, Any, get_args

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import Job, Status
from ...jobs.table.reports import JobReports
from ..api.jobs import JobStatus, status_of
from ..openapi.operations import operation
from ..state import state_of
from ..wire.json_response import COMPLETED, CREATED, IMAGE_ID, JOB_ID, STARTED, json_response
from ..wire.json_response import shown as example
from ..wire.models import AnswerModel
from ..wire.path_ids import path_id
from ..wire.problems import job_not_found
from ..wire.validation import WHOLE_NUMBER, StrictQuery, parsed
from . import auth

STATUSES: tuple[Status, ...] = get_args(Status)
DEFAULT_LISTED, MAX_LISTED = 20, 200
MAX_EVENTS = 200


class Listing(StrictQuery):
    status: Annotated[Status | None, Field(description="Only jobs of this status.")] = None
    limit: Annotated[
        int, Field(ge=1, le=MAX_LISTED, description="The largest number of jobs to list."), WHOLE_NUMBER
    ] = DEFAULT_LISTED


LISTED: dict[str, Any] = {
    "job_id": JOB_ID,
    "image_id": IMAGE_ID,
    "status": "failed",
    "created_at": CREATED,
    "started_at": STARTED,
    "completed_at": None,
    "error": "The image could not be stored.",
    "error_code": "storage_error",
    "retryable": True,
    "attempts": 3,
    "next_attempt_at": None,
    "ready": [],
    "user_id": "alice",
    "org_id": "default-org",
    "bucket": "holiday",
    "content_length": 2_482_113,
    "failed_at": COMPLETED,
    "can_retry": True,
}


class ListedJob(JobStatus):
    """`content_length` is in bytes; `can_retry` says whether the uploaded bytes of a failed job are still kept."""

    model_config = example(**LISTED)

    user_id: str | None
    org_id: str | None
    bucket: str
    content_length: int
    failed_at: str | None
    can_retry: bool


class ListedJobs(AnswerModel):
    """The newest first."""

    model_config = example(jobs=[LISTED])

    jobs: list[ListedJob]


class AuditEvent(AnswerModel):
    event: str
    created_at: str
    facts: dict[str, Any]


class ShownJob(ListedJob):
    """With its audit trail, newest first.

    `thumbnail_url` leads to the smallest variant that is ready, from the service's own root; it is null where nothing
    is and, where reading is private, for clients that are not signed in.
    """

    model_config = example(
        **LISTED,
        trace_id="3b1f0c9a-6a55-4a0e-9d6b-0d9c1f3c7a10",
        mime_type="image/jpeg",
        original_filename="IMG_0042.jpg",
        storage_backend="local",
        thumbnail_url=None,
        events=[{"event": "failed", "created_at": COMPLETED, "facts": {"run": 3, "code": "storage_error"}}],
    )

    trace_id: str
    mime_type: str
    original_filename: str | None
    storage_backend: str
    thumbnail_url: str | None = None
    events: list[AuditEvent]


@operation(
    "operator_jobs_jobs",
    "operator",
    "The newest jobs",
    access="operator",
    query=Listing,
    answers={200: ListedJobs},
    errors=("overloaded",),
)
async def jobs(request: Request) -> Response:
    """With their users and organisations; all, or those of one status."""
    await auth.require_reader(request)
    listing = parsed(request, Listing)
    found = await state_of(request).overview.recent(listing.limit, listing.status)
    return json_response(ListedJobs(jobs=[ListedJob(**listed(job)) for job in found]))


@operation(
    "operator_jobs_job",
    "operator",
    "All about one job",
    access="operator",
    answers={200: ShownJob},
    errors=("job_not_found", "overloaded"),
)
async def job(request: Request) -> Response:
    way, parts = await auth.require_reader(request), state_of(request)
    found = await parts.table.job(path_id(request, "job_id", job_not_found))
    if found is None:
        raise job_not_found()
    told = await shown(found, parts.overview)
    if told.ready and (way != "public" or parts.urls.signatures is None):
        told.thumbnail_url = parts.urls.of_page(told.image_id, told.ready[-1])
    return json_response(told)


async def shown(job: Job, overview: JobReports) -> ShownJob:
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
