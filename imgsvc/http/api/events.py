"""Server-sent events of jobs (HTML Living Standard, section 9.2): status, variants that are ready, and the end.

The id of an event is that of the audit event that it tells of, so a client that reconnects gets what it has missed.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from ...imaging.recipe import is_further
from ...jobs.answer_model import IMAGE_ID, JOB_ID, THUMBHASH
from ...jobs.table.model import Job
from ...jobs.table.reports import LatestEvent
from ...lazy_dataclass import dataclass
from ...storage.keys import IS_UUID, UUID
from ..openapi.operations import Answer, Content, operation
from ..state import AppState, state_of
from ..wire.path_ids import path_id
from ..wire.prefer import ENDED
from ..wire.problems import NO_STORE, job_not_found, validation
from ..wire.validation import Headers, StrictQuery, parsed
from .jobs import JobStatusAndUrls
from .signed_access import shown_of

MAX_JOBS = 100
PING_SECONDS = 15
SEPARATOR = "\n"
EXAMPLE = {
    "event": "ready",
    "data": f'{{"job_id":"{JOB_ID}","image_id":"{IMAGE_ID}","variant":"thumbnail","url":"/storage/…",'
    f'"thumbhash":"{THUMBHASH}","dominant_color":"#4a7fa5"}}',
}
EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["event", "data"],
}  # of each event: its `data` is JSON
STREAM = Answer("The events, until the last job has ended.", Content("text/event-stream", EVENT, EXAMPLE))


class ResumeHeaders(Headers):
    last_event_id: Annotated[
        str | None,
        Field(
            alias="Last-Event-ID",
            description="The id of the last event received: what came later is sent. If it is unknown or too old, the "
            "present state is sent.",
        ),
    ] = None


class JobsQuery(StrictQuery):
    jobs: Annotated[
        str,
        Field(
            description=f"The `job_id`s, separated by commas; at most {MAX_JOBS}.",
            examples=[JOB_ID],
            json_schema_extra={"pattern": f"^{UUID}(,{UUID})*$"},
        ),
    ]


@operation(
    "jobs_events",
    "jobs",
    "Follow a job",
    access="optional",
    headers=ResumeHeaders,
    answers={200: STREAM},
    errors=("job_not_found", "overloaded"),
)
async def of_job(request: Request) -> Response:
    """Server-sent events: `status` with the job's status, `ready` for each variant, `end` with the last status.

    A comment comes every 15 seconds. URLs and placeholders are null for a client that may not read the image.
    """
    job_id = path_id(request, "job_id", job_not_found)
    if await state_of(request).jobs.table.job(job_id) is None:
        raise job_not_found()
    return await _streamed(request, [job_id])


@operation(
    "jobs_events_of_many",
    "jobs",
    "Follow several jobs in one stream",
    access="optional",
    query=JobsQuery,
    headers=ResumeHeaders,
    answers={200: STREAM},
    errors=("overloaded",),
)
async def of_many(request: Request) -> Response:
    """The events of one job, each with its `job_id`. An unknown job ends at once, with the status `not_found`."""
    asked = list(dict.fromkeys(filter(None, parsed(request, JobsQuery).jobs.lower().split(","))))
    if not 1 <= len(asked) <= MAX_JOBS:
        raise validation((("query", "jobs"), f"must name 1 to {MAX_JOBS} jobs, not {len(asked)}", "too_many_jobs"))
    if wrong := [job_id for job_id in asked if not IS_UUID.fullmatch(job_id)]:
        raise validation((("query", "jobs"), f"{wrong[0][:50]!r} is no job ID", "uuid_parsing"))
    return await _streamed(request, asked)


async def _streamed(request: Request, job_ids: Sequence[str]) -> Response:
    state, asked = state_of(request), parsed(request, ResumeHeaders).last_event_id
    after = await _resumed_after(state, asked)
    if request.method == "HEAD":
        answer = Response(headers=NO_STORE, media_type="text/event-stream")
        del answer.headers["Content-Length"]  # GET has none (RFC 9110 section 8.6)
        return answer
    address = request.client.host if request.client else ""
    with ExitStack() as stack:
        stack.enter_context(state.telling.streams.place(address))
        news = _News(request, {job_id: _Sent(after) for job_id in job_ids}, stack.pop_all())
    return EventSourceResponse(
        news.events(),
        headers=NO_STORE,
        ping=PING_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="", sep=SEPARATOR),
        sep=SEPARATOR,
    )


async def _resumed_after(state: AppState, asked: str | None) -> int:
    """The audit event that the client has seen; 0 if it is unknown or too old, and for a new client."""
    if asked is None or not (asked.isascii() and asked.isdigit() and len(asked) <= 18):
        return 0
    first, last = await state.jobs.reports.event_span()
    return int(asked) if first <= int(asked) <= last else 0


@dataclass(slots=True)
class _Sent:
    """What a client knows of one job: up to which audit event, and which variants."""

    upto: int
    variants: set[str] = field(default_factory=set)


class _News:
    """The events of one stream. `open_jobs` are those that have not ended; `place` is released at the end."""

    def __init__(self, request: Request, open_jobs: dict[str, _Sent], place: ExitStack) -> None:
        self._request = request
        self._state = state_of(request)
        self._open = open_jobs
        self._place = place

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        with self._place, self._state.telling.feed.waiting(self._open) as wake:
            yield ServerSentEvent(comment="", sep=SEPARATOR)  # so that the headers go out at once
            while self._open and not self._state.stopping.is_set():
                latest = await self._state.jobs.reports.latest_events(tuple(self._open))
                for job_id in sorted(self._open, key=lambda one: latest[one].id if one in latest else 0):
                    for event in await self._of_job(job_id, latest.get(job_id)):
                        yield event
                if self._open:
                    await wake.wait()

    async def _of_job(self, job_id: str, latest: LatestEvent | None) -> list[ServerSentEvent]:
        """What is new of a job; the last of these events carries the id."""
        sent = self._open[job_id]
        job = await self._state.jobs.table.job(job_id)
        if job is None:
            del self._open[job_id]
            status = "deleted" if latest else "not_found"
            return [_event("end", {"job_id": job_id, "status": status}, latest.id if latest else None)]
        ended = job.status in ENDED
        if latest is not None and latest.id <= sent.upto and not ended:
            return []
        if latest is not None and 0 < latest.preview <= sent.upto:
            sent.variants.add(job.recipe.preview.name)
        seen = await shown_of(self._request, job)
        new = [name for name in job.ready if name not in sent.variants and not is_further(name)]
        found = [_event("ready", _variant(job, name, seen)) for name in new]
        sent.variants |= set(job.ready)
        sent.upto = latest.id if latest else sent.upto
        shown = JobStatusAndUrls.of(job, **seen).model_dump(mode="json")
        found.append(_event("status", shown, None if ended else sent.upto))
        if ended:
            del self._open[job_id]
            found.append(_event("end", shown, sent.upto))
        return found


def _variant(job: Job, name: str, shown: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "image_id": job.image_id,
        "variant": name,
        "url": shown["urls"].get(name),
        "thumbhash": shown["thumbhash"],
        "dominant_color": shown["dominant_color"],
    }


def _event(kind: str, data: dict[str, Any], id: int | None = None) -> ServerSentEvent:
    text = json.dumps(data, separators=(",", ":"))
    return ServerSentEvent(text, event=kind, id=str(id) if id else None, sep=SEPARATOR)
