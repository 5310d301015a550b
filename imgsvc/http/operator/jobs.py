"""Jobs for the operator: with users, errors and audit trails, and retrying them."""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ...access.tokens import DEFAULT_ORG
from ...jobs.answer_model import COMPLETED, AnswerModel, example
from ...jobs.table.listing import ImageFilter, Page
from ...jobs.views import LISTED, MAX_EVENTS, JobStatus, ListedJob, ShownJob
from ...settings.fields import Matching
from ..openapi.operations import Answer, operation
from ..state import AppState, state_of
from ..wire.error_codes import CODES
from ..wire.image_list import CURSOR, next_of, page_of
from ..wire.json_response import json_response
from ..wire.list_query import MAX_LIMIT
from ..wire.moments import Moment
from ..wire.path_ids import path_id
from ..wire.problems import NO_STORE, job_not_found
from ..wire.validation import WHOLE_NUMBER, parsed
from . import auth
from .images import OperatorQuery

DEFAULT_LISTED = 20
READER = "operator's jobs"
ErrorCode = Annotated[
    str, Matching("[a-z_]{1,40}", "an error code, as on the page /errors: 1 to 40 letters a-z and '_'")
]
NAMED: dict[str, Any] = {**LISTED, "original_filename": "IMG_0042.jpg"}


class Listing(OperatorQuery):
    error_code: Annotated[
        ErrorCode | None, Field(description="Only jobs whose latest attempt failed with this code.")
    ] = None
    failed_after: Annotated[
        Moment | None, Field(description="Only jobs whose latest attempt failed then or later.")
    ] = None
    failed_before: Annotated[Moment | None, Field(description="Only jobs whose latest attempt failed before.")] = None
    limit: Annotated[
        int, Field(ge=1, le=MAX_LIMIT, description="The largest number of jobs on a page."), WHOLE_NUMBER
    ] = DEFAULT_LISTED

    @property
    def wanted(self) -> ImageFilter:
        return self.filter(self.org or (DEFAULT_ORG if self.user else None), self.user)

    def filter(self, org_id: str | None, user_id: str | None) -> ImageFilter:
        return replace(
            super().filter(org_id, user_id),
            error_code=self.error_code,
            failed_since=self.failed_after or "",
            failed_before=self.failed_before or "",
        )


class NamedJob(ListedJob):
    """With the name of its file."""

    model_config = example(**NAMED)

    original_filename: str | None


class ListedJobs(AnswerModel):
    """Jobs, the newest first. `next` is the cursor of the next page, null on the last one; a page of rare jobs may be
    short, or empty, and have a `next`.
    """

    model_config = example(jobs=[NAMED], next=CURSOR)

    jobs: list[NamedJob]
    next: str | None


class ErrorGroup(AnswerModel):
    """The failed jobs of one code, of which at most 10,000 are counted. `names` are the files of the latest three, or
    their job IDs; `meaning` and `advice` are those of the code.
    """

    code: str
    jobs: int
    last_failed_at: str
    names: list[str]
    meaning: str
    advice: str


class ErrorGroups(AnswerModel):
    """Failed jobs by their code, the latest failure first."""

    model_config = example(
        errors=[
            {
                "code": "image_unreadable",
                "jobs": 20,
                "last_failed_at": COMPLETED,
                "names": ["beach.jpg", "IMG_0042.jpg", "scan.png"],
                "meaning": CODES["image_unreadable"].meaning,
                "advice": CODES["image_unreadable"].advice,
            }
        ]
    )

    errors: list[ErrorGroup]


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
    """With their users and organisations; all, or those that match the filters, each of which goes by an index.

    Never public: it names people, and an ID leads to its picture.
    """
    await auth.require_signed_in(request)
    query = parsed(request, Listing)
    page = await jobs_page(request, query)
    named = [NamedJob.of(job, original_filename=job.original_filename) for job in page.jobs]
    return json_response(ListedJobs(jobs=named, next=cursor_behind(request, page, query)))


async def jobs_page(request: Request, query: Listing) -> Page:
    """The page that the query asks for. Raises Problem (422)."""
    return await page_of(request, query, query.wanted, READER)


def cursor_behind(request: Request, page: Page, query: Listing) -> str | None:
    """The cursor behind a page."""
    return next_of(request, page, query.wanted, READER)


@operation(
    "operator_errors",
    "operator",
    "Failed jobs by their error code",
    access="operator",
    answers={200: ErrorGroups},
    errors=("overloaded",),
)
async def errors(request: Request) -> Response:
    """How many there are of each, when the last one failed, and which files those were. Never public: it names them."""
    await auth.require_signed_in(request)
    return json_response(ErrorGroups(errors=await error_groups(state_of(request))))


async def error_groups(state: AppState) -> list[ErrorGroup]:
    """The failed jobs by their code, the latest failure first."""
    return [
        ErrorGroup(
            code=one.code,
            jobs=one.jobs,
            last_failed_at=one.last_failed_at,
            names=one.names,
            meaning=CODES[one.code].meaning,
            advice=CODES[one.code].advice,
        )
        for one in await state.jobs.reports.error_groups(tuple(CODES))
    ]


@operation(
    "operator_jobs_job",
    "operator",
    "All about one job",
    access="operator",
    answers={200: ShownJob},
    errors=("job_not_found", "overloaded"),
)
async def job(request: Request) -> Response:
    """With its user, its file's name and its audit trail. Never public."""
    await auth.require_signed_in(request)
    state = state_of(request)
    found = await state.jobs.table.job(path_id(request, "job_id", job_not_found))
    if found is None:
        raise job_not_found()
    shown = ShownJob.with_events(found, await state.jobs.reports.events(found.job_id, MAX_EVENTS))
    if shown.ready:
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
