"""/dashboard/jobs/{job_id}: what happened when, what it cost, and why it failed."""

import json
from collections.abc import Sequence
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import Job, now
from ...jobs.table.reports import Event
from ...jobs.views import MAX_EVENTS
from ..look.components import (
    NONE,
    ago,
    card,
    copyable,
    counted,
    duration,
    exact,
    facts,
    number,
    size,
    state,
    table,
)
from ..look.frame import page, root_of
from ..look.html import Child, Html, el, foreign
from ..openapi.operations import operation
from ..operator import auth
from ..state import state_of
from ..wire.error_codes import CODES
from ..wire.path_ids import path_id
from ..wire.problems import Problem, job_not_found
from . import audit_words
from .guard import PAGES, operators_page
from .jobs_page import took
from .state_words import STATE_WORDS

MEGA = 1_000_000
OPEN = ("pending", "processing", "retrying")


@operation(
    "dashboard_job_page", "operator", "One job, as a page", access="operator", answers=PAGES, errors=("job_not_found",)
)
@operators_page
async def job_page(request: Request) -> Response:
    """With its audit trail in words, its costs, and a retry where that can help. Never public."""
    reports = state_of(request).jobs.reports
    try:
        job = await state_of(request).jobs.table.job(path_id(request, "job_id", job_not_found))
    except Problem:
        job = None
    if job is None:
        if not auth.wants_page(request):
            raise job_not_found()
        return await _nothing(request)
    name = job.original_filename or job.job_id
    events = await reports.events(job.job_id, MAX_EVENTS)
    content = (
        _crumbs(request),
        el("div", el("h1", foreign(name)), state(job.status, STATE_WORDS[job.status]), class_="head", data_key="head"),
        _failure(job, root_of(request)) if job.last_error and job.status != "completed" else None,
        el(
            "div",
            _picture(request, job),
            card("events", "What happened", _events(events), span=8),
            card("cost", "What it cost", _cost(job), span=4),
            card("variants", "Variants", _variants(request, job), span=8) if job.ready else None,
            card("about", "About the upload", _about(job), span=4 if job.ready else 8),
            class_="cards",
            data_key="cards",
        ),
    )
    live = ("live.js",) if job.status in OPEN else ()
    return await page(request, name, *content, here="jobs", scripts=("job.js", *live))


async def _nothing(request: Request) -> Response:
    words = (
        _crumbs(request),
        el("h1", "There is no such job"),
        el("p", "Its image was deleted, its time was over, or the address is wrong."),
    )
    return await page(request, "No such job", *words, here="jobs", status=404)


def _crumbs(request: Request) -> Html:
    return el("p", el("a", "All jobs", href=f"{root_of(request)}/dashboard/jobs"), class_="crumbs", data_key="crumbs")


def _failure(job: Job, root: str) -> Html:
    known = CODES.get(job.error_code or "", CODES["internal_error"])
    level, title = ("bad", "Why it failed") if job.status == "failed" else ("warn", "Why the last attempt failed")
    own = el("p", foreign(job.last_error), class_="muted") if job.last_error else None
    code = (
        el("a", el("code", job.error_code), href=f"{root}/errors/{job.error_code}") if job.error_code in CODES else None
    )
    return el(
        "section",
        el("h2", title, id="why"),
        el("p", known.meaning),
        own,
        el("p", "What to do: ", known.advice),
        el(
            "p",
            [code, ", "] if code else None,
            counted(job.attempt_count, "attempt"),
            ". ",
            _future(job),
            class_="muted",
        ),
        _retry(job),
        class_=f"notice {level}",
        aria_labelledby="why",
        data_key="failure",
    )


def _future(job: Job) -> Child:
    if job.next_attempt_at:
        return ["The next attempt is ", ago(job.next_attempt_at, now()), "."]
    if job.can_retry:
        return "It is not retried by itself; the upload is still kept."
    return "It is not retried: the result would be the same, or the upload is not kept any more."


def _retry(job: Job) -> Html | None:
    if not job.can_retry:
        return None
    button = el("button", "Retry", type="button", class_="main", data_action="retry", data_job=job.job_id)
    return el("p", button, el("span", id="said", class_="said", role="status"), class_="actions")


def _picture(request: Request, job: Job) -> Html | None:
    names = [variant.name for variant in job.recipe.variants if variant.name in job.ready]
    if not names:
        return None
    root, urls = root_of(request), state_of(request).stores.urls
    shown = "medium" if "medium" in names else names[-1]
    image = el("img", src=f"{root}{urls.of_page(job.image_id, shown)}", alt=f"The picture: {shown}", decoding="async")
    link = el("a", image, href=f"{root}{urls.of_page(job.image_id, names[0])}")
    return el("figure", link, class_="shown", data_key="picture")


def _events(events: Sequence[Event]) -> Html:
    """Oldest first, each with the time since the one before."""
    shown: list[Html] = []
    before: datetime | None = None
    for one in reversed(events):
        moment = datetime.fromisoformat(one.created_at)
        gap = (moment - before).total_seconds() if before else None
        shown.append(
            el(
                "li",
                el("time", exact(one.created_at), datetime=one.created_at, class_="muted"),
                el("span", f"after {duration(gap)}" if gap is not None else "at first", class_="muted gap"),
                el("span", audit_words.words(one)),
            )
        )
        before = moment
    if not shown:
        return el("p", "Nothing is known any more: the audit trail is kept for a limited time.", class_="empty")
    cut = (
        el("li", f"Only the latest {MAX_EVENTS} entries are shown.", class_="muted")
        if len(shown) == MAX_EVENTS
        else None
    )
    return el("ol", cut, shown, class_="events")


def _cost(job: Job) -> Html:
    began, started = datetime.fromisoformat(job.began_at), job.started_at
    waited = (datetime.fromisoformat(started) - began).total_seconds() if started else (now() - began).total_seconds()
    whole = took(job)
    made = [job.measured["variants"][name]["size_bytes"] for name in job.ready]
    return facts(
        ("Waited for its turn", duration(max(0.0, waited)) if started or job.status in OPEN else NONE),
        ("Worked on", duration(whole - waited) if whole is not None and started else NONE),
        ("In all", duration(whole)),
        ("Attempts that failed", number(job.attempt_count)),
        ("Uploaded", size(job.content_length)),
        ("Pixels", f"{number(job.pixels / MEGA, 1)} million"),
        ("Memory set aside for it", size(job.render_bytes)),
        ("Stored", size(sum(made)) if made else NONE),
    )


def _variants(request: Request, job: Job) -> Html:
    root, urls = root_of(request), state_of(request).stores.urls
    rows = []
    for name in (variant.name for variant in job.recipe.variants if variant.name in job.ready):
        made = job.measured["variants"][name]
        link = el("a", name, href=f"{root}{urls.of_page(job.image_id, name)}")
        rows.append(
            (name, (link, f"{made['width']} × {made['height']}", job.stored(name).format, size(made["size_bytes"])))
        )
    return table("Variants", ("Name", "Pixels", "Format", "Size"), rows, "variants")


def _about(job: Job) -> list[Html | None]:
    client = json.dumps(job.client_metadata, ensure_ascii=False, indent=2) if job.client_metadata else ""
    return [
        facts(
            ("Accepted", el("time", exact(job.created_at), datetime=job.created_at)),
            ("User", foreign(job.user_id) if job.user_id else NONE),
            ("Organisation", foreign(job.org_id) if job.org_id else NONE),
            ("Bucket", foreign(job.storage_bucket)),
            ("Type", foreign(job.mime_type)),
            ("Stored in", job.storage_backend),
            ("Expires", el("time", exact(job.expires_at), datetime=job.expires_at) if job.expires_at else "never"),
        ),
        el("h3", "Trace ID"),
        copyable(job.trace_id, "the trace ID"),
        el("h3", "Job ID"),
        copyable(job.job_id, "the job ID"),
        el("h3", "Image ID"),
        copyable(job.image_id, "the image ID"),
        el("h3", "Metadata") if client else None,
        el("pre", foreign(client), class_="metadata", tabindex="0", role="group", aria_label="Metadata")
        if client
        else None,
    ]
