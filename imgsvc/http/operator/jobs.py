"""Jobs for the operator: with users, errors and audit trails, and retrying them."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ...jobs.answer_model import AnswerModel, example
from ...jobs.table.model import Status
from ...jobs.views import LISTED, MAX_EVENTS, JobStatus, ListedJob, ShownJob
from ..openapi.operations import Answer, operation
from ..state import state_of
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.problems import NO_STORE, job_not_found
from ..wire.validation import WHOLE_NUMBER, StrictQuery, parsed
from . import auth

DEFAULT_LISTED, MAX_LISTED = 20, 200


class Listing(StrictQuery):
    status: Annotated[Status | None, Field(description="Only jobs of this status.")] = None
    limit: Annotated[
        int, Field(ge=1, le=MAX_LISTED, description="The largest number of jobs to list."), WHOLE_NUMBER
    ] = DEFAULT_LISTED


class ListedJobs(AnswerModel):
    """Jobs, the newest first."""

    model_config = example(jobs=[LISTED])

    jobs: list[ListedJob]


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
    found = await state_of(request).jobs.reports.recent(listing.limit, listing.status)
    return json_response(ListedJobs(jobs=[ListedJob.of(job) for job in found]))


@operation(
    "operator_jobs_job",
    "operator",
    "All about one job",
    access="operator",
    answers={200: ShownJob},
    errors=("job_not_found", "overloaded"),
)
async def job(request: Request) -> Response:
    way, state = await auth.require_reader(request), state_of(request)
    found = await state.jobs.table.job(path_id(request, "job_id", job_not_found))
    if found is None:
        raise job_not_found()
    shown = ShownJob.with_events(found, await state.jobs.reports.events(found.job_id, MAX_EVENTS))
    if shown.ready and (way != "public" or state.stores.urls.signatures is None):
        shown.thumbnail_url = state.stores.urls.of_page(shown.image_id, shown.ready[-1])
    return json_response(shown)


@operation(
    "operator_retry",
    "operator",
    "Retry a failed job",
    access="operator_acting",
    answers={202: Answer("The job is waiting again.", JobStatus)},
    errors=("job_not_found", "not_retryable", "overloaded"),
)
async def retry(request: Request) -> Response:
    """From the uploaded bytes, which must still be kept, with all its attempts and a new place in the queue."""
    await auth.require_operator(request)
    jobs = state_of(request).jobs
    job_id = path_id(request, "job_id", job_not_found)
    if await jobs.table.job(job_id) is None:
        raise job_not_found()
    job = await jobs.restart.restart(job_id)
    return json_response(JobStatus.of(job), 202, NO_STORE)
