"""Jobs: status and result of an upload."""

from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from ...access.jwk import KeysUnavailable
from ...access.permissions import ADMIN, AuthorizationUnavailable
from ...access.tokens import TokenInvalid
from ...jobs.answer_model import COMPLETED, IMAGE_ID, JOB_ID, THUMBHASH, AnswerModel, example
from ...jobs.table.model import Job, Status
from ...jobs.views import STATUS, JobStatus
from ..openapi.operations import Answer, operation
from ..state import state_of
from ..wire.bearer import bearer_token, ticket_of, verified
from ..wire.formats import Formats
from ..wire.image_metadata import CLIENT_EXAMPLE, EXAMPLE, ClientMetadata, Metadata, public_metadata
from ..wire.image_patch import Focal
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.prefer import WaitHeaders, settled, wait_seconds
from ..wire.problems import NO_STORE, job_not_found, not_completed
from ..wire.validation import parsed
from .signed_access import TOKEN_OF_ORG, is_hidden, reader_of, shown_of


class JobStatusAndUrls(JobStatus):
    """With the URLs of what is ready, and colour and ThumbHash as soon as they are known.

    There are none where reading is private and the token may not read the image.
    """

    model_config = example(
        **STATUS,
        urls={"thumbnail": f"/storage/b/processed/thumbnail/{IMAGE_ID}_thumbnail.webp"},
        dominant_color="#4a7fa5",
        thumbhash=THUMBHASH,
    )

    urls: dict[str, str]
    dominant_color: str | None
    thumbhash: str | None


class JobResult(AnswerModel):
    """A completed job: the URL of every variant, and the metadata."""

    model_config = example(
        job_id=JOB_ID,
        image_id=IMAGE_ID,
        status="completed",
        urls={"medium": f"/storage/holiday/processed/medium/{IMAGE_ID}_medium.webp"},
        formats={},
        focal=None,
        metadata=EXAMPLE,
        client_metadata=CLIENT_EXAMPLE,
        completed_at=COMPLETED,
    )

    job_id: str
    image_id: str
    status: Status
    urls: dict[str, str]
    formats: Formats
    focal: Focal | None
    metadata: Metadata
    client_metadata: ClientMetadata
    completed_at: str | None


@operation(
    "jobs_status",
    "jobs",
    "The status of a job",
    access="optional",
    headers=WaitHeaders,
    answers={200: Answer("The status at this moment.", JobStatusAndUrls, sometimes=("Preference-Applied",))},
    errors=("job_not_found", "overloaded"),
)
async def status(request: Request) -> Response:
    """With `Prefer: wait=N` the answer comes once the job has ended, or after N seconds."""
    job, headers = await _job(request), NO_STORE
    seconds = wait_seconds(parsed(request, WaitHeaders).prefer)
    if seconds is not None:
        later = await settled(request, job.job_id, seconds)
        if later is None:
            raise job_not_found()
        job, headers = later, {**NO_STORE, "Preference-Applied": f"wait={seconds}"}
    return json_response(JobStatusAndUrls.of(job, **await shown_of(request, job)), 200, headers)


@operation(
    "jobs_result",
    "jobs",
    "The URLs and metadata of a completed job",
    access="optional",
    answers={200: JobResult},
    errors=("job_not_found", "not_completed", "storage_not_configured", "overloaded"),
    private=TOKEN_OF_ORG,
)
async def result(request: Request) -> Response:
    """With the token of the uploader, or of an `image:admin` of the org, the metadata says who uploaded it."""
    private = state_of(request).stores.urls.signatures is not None
    ticket = await ticket_of(request) if private else None
    who = None if ticket else await reader_of(request)
    job = await _job(request)
    if is_hidden(job, who) or (ticket is not None and job.ticket_id != ticket.ticket_id):
        raise job_not_found()
    if job.status != "completed":
        raise not_completed(job.status)
    return json_response(
        JobResult(
            job_id=job.job_id,
            image_id=job.image_id,
            status=job.status,
            urls=await state_of(request).stores.urls.of(job),
            formats=await state_of(request).stores.urls.formats(job),
            focal=Focal.of(job.recipe.focal),
            metadata=cast(Metadata, public_metadata(job) | await _personal(request, job)),
            client_metadata=job.client_metadata,
            completed_at=job.completed_at,
        )
    )


async def _job(request: Request) -> Job:
    job = await state_of(request).jobs.table.job(path_id(request, "job_id", job_not_found))
    if job is None:
        raise job_not_found()
    return job


async def _personal(request: Request, job: Job) -> dict[str, Any]:
    """The uploader's data, for the uploader and the org's admins only: these pages are public.

    If it can't be decided now whether the reader is an admin, the public page is sent.
    """
    token = bearer_token(request)
    if not token:
        return {}
    try:
        who = await verified(request, token)
        own = who.org_id == job.org_id and who.user_id == job.user_id
        shown = own or (who.org_id == job.org_id and await state_of(request).access.permissions.holds(who, ADMIN))
    except (TokenInvalid, KeysUnavailable, AuthorizationUnavailable):
        return {}
    if not shown:
        return {}
    return {"uploader_id": job.user_id, "org_id": job.org_id, "original_filename": job.original_filename}
