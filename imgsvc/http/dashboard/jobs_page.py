"""/dashboard/jobs: all jobs with filters and pages, and the failed ones by their reason."""

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.listing import Page
from ...jobs.table.model import STATUSES, Job, now
from ..look.components import (
    NONE,
    ago,
    card,
    choice,
    counted,
    duration,
    empty,
    name_or_id,
    pager,
    picture,
    size,
    state,
    table,
    text_field,
)
from ..look.frame import page, root_of
from ..look.html import Child, Html, el, foreign
from ..openapi.operations import operation
from ..operator.jobs import ErrorGroup, Listing, cursor_behind, error_groups
from ..operator.jobs import jobs_page as found_page
from ..state import state_of
from ..wire.error_codes import CODES
from ..wire.problems import Problem
from ..wire.urls import Urls
from .filters import FROM, UNTIL, given, query_of, reason_of, time_field
from .guard import PAGES, operators_page
from .state_words import STATE_WORDS

ON_A_PAGE = "50"
FIELDS = ("status", "bucket", "user", "org", "error_code", "q", FROM, UNTIL)  # in the form, and in the links of pages


@operation("dashboard_jobs_page", "operator", "The list of jobs, as a page", access="operator", answers=PAGES)
@operators_page
async def jobs_page(request: Request) -> Response:
    """Filters by status, bucket, user, error code, name and day; pages of 50. `[operator] public` does not open it.

    The days are those on which the jobs were accepted; of failed ones those on which they failed, as in the figures.
    """
    sent = given(request)
    query, problem = query_of({"limit": ON_A_PAGE, **sent}, Listing, "failed" if _of_failed(sent) else "created")
    found = None
    if query is not None:
        try:
            found = await found_page(request, query)
        except Problem as refused:
            problem = reason_of(refused)
    cursor = cursor_behind(request, found, query) if found is not None and query is not None else None
    groups = await error_groups(state_of(request))
    content = (
        el("h1", "Jobs"),
        errors_card(groups, root_of(request), now()) if groups and sent.keys() <= {"status"} else None,
        el(
            "section",
            el("h2", "Filter", id="filter", class_="unseen"),
            _form(sent),
            class_="card",
            aria_labelledby="filter",
        ),
        el("p", problem, class_="notice bad", role="alert") if problem else None,
        _list(request, found, sent, cursor) if found is not None else None,
    )
    return await page(request, "Jobs", *content, here="jobs")


def errors_card(groups: list[ErrorGroup], root: str, moment: datetime) -> Html:
    """Failed jobs by their reason: how many, when the last one failed, and which files those were."""
    return card("errors", "Failed jobs", el("ul", [_group(one, root, moment) for one in groups], class_="reasons"))


def _group(one: ErrorGroup, root: str, moment: datetime) -> Html:
    left = one.jobs - len(one.names)
    return el(
        "li",
        el(
            "div",
            el(
                "a",
                counted(one.jobs, "job"),
                href=f"{root}/dashboard/jobs?{urlencode(_of_code(one.code))}",
                class_="count",
            ),
            el("span", "the last one ", ago(one.last_failed_at, moment), class_="muted"),
            class_="head",
        ),
        el("p", one.meaning, class_="why"),
        el("p", "What to do: ", one.advice),
        el(
            "p",
            [[", " if place else None, foreign(name)] for place, name in enumerate(one.names)],
            f" and {counted(left, 'other')}" if left else None,
            class_="muted names",
        ),
        data_key=one.code,
    )


def _of_code(code: str) -> dict[str, str]:
    return {"status": "failed", "error_code": code}


def _of_failed(sent: Mapping[str, str]) -> bool:
    return sent.get("status") == "failed"


def _form(sent: Mapping[str, str]) -> Html:
    def value(name: str) -> str:
        return sent.get(name, "")

    failed = _of_failed(sent)
    states = [("", "all"), *((one, STATE_WORDS[one]) for one in STATUSES)]
    codes = [("", "any"), *((code, code) for code in sorted(CODES))]
    return el(
        "form",
        choice("status", "State", states, value("status")),
        text_field("q", "File name begins with", value("q"), maxlength=255),
        text_field("bucket", "Bucket", value("bucket"), maxlength=320),
        text_field("user", "User", value("user"), maxlength=255),
        text_field("org", "Organisation", value("org"), maxlength=255),
        choice("error_code", "Error", codes, value("error_code")),
        time_field(FROM, "Failed from" if failed else "From", sent),
        time_field(UNTIL, "Failed until" if failed else "Until", sent),
        el(
            "div",
            el("button", "Show", type="submit", class_="main"),
            el("a", "Show all", href="?", class_="button quiet") if any(name in sent for name in FIELDS) else None,
            class_="do",
        ),
        class_="filters",
        method="get",
        role="search",
        aria_label="Jobs",
    )


def _list(request: Request, found: Page, sent: Mapping[str, str], cursor: str | None) -> Html:
    kept = {name: sent[name] for name in FIELDS if name in sent}
    root, moment, urls = root_of(request), now(), state_of(request).stores.urls
    headings = ("File", "State", "Bucket", "User", "Size", "Accepted", "Took", "Reason")
    rows = [(job.job_id, _row(job, root, moment, urls)) for job in found.jobs]
    nothing = "No job matches on this page; older ones are still to be searched." if cursor else "No job matches."
    return card(
        "list",
        "All jobs" if not kept else "Jobs that match",
        table("Jobs", headings, rows, "jobs") if rows else empty(nothing),
        pager(f"{root}/dashboard/jobs", kept, cursor, first="after" not in sent),
    )


def _row(job: Job, root: str, moment: datetime, urls: Urls) -> tuple[Child, ...]:
    address = f"{root}/dashboard/jobs/{job.job_id}"
    name = job.original_filename
    return (
        el("div", small_picture(job, root, urls), name_or_id(name, job.job_id, address), class_="with-picture"),
        state(job.status, STATE_WORDS[job.status]),
        foreign(job.storage_bucket),
        foreign(job.user_id) if job.user_id else NONE,
        size(job.content_length),
        ago(job.created_at, moment),
        duration(took(job)),
        el("a", el("code", job.error_code), href=f"{root}/errors/{job.error_code}") if job.error_code else NONE,
    )


def small_picture(job: Job, root: str, urls: Urls) -> Html:
    """The smallest variant that is ready, which leads to the job's page: its link beside it is the one that is read."""
    names = [variant.name for variant in job.recipe.variants if variant.name in job.ready]
    if not names:
        return picture(None, None, "")
    return el(
        "span",
        el("img", src=f"{root}{urls.of_page(job.image_id, names[-1])}", alt="", width=48, height=48, loading="lazy"),
        class_="thumb",
    )


def took(job: Job) -> float | None:
    """Seconds from the acceptance, or the operator's retry, to the end."""
    end = job.completed_at if job.status == "completed" else job.failed_at
    if end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(job.began_at)).total_seconds()
