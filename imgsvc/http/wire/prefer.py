"""`Prefer: wait=N` (RFC 7240): the response is sent once the job has ended, or after N seconds with its status then."""

import re
from typing import Annotated

import anyio
from pydantic import Field
from starlette.requests import Request

from ...jobs.table.model import Job
from ..state import state_of
from .validation import Headers

MAX_WAIT_SECONDS = 30
WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,4000})\"?\s*(?=$|[,;])", re.IGNORECASE)
ENDED = ("completed", "failed")


Prefer = Annotated[
    str | None,
    Field(
        alias="Prefer",
        description=f"`wait=N`: answer once the job has ended, or after N seconds, {MAX_WAIT_SECONDS} at most.",
    ),
]


class WaitHeaders(Headers):
    prefer: Prefer = None


def wait_seconds(prefer: str | None) -> int | None:
    """The seconds that the client wants to wait, at most 30; None if it does not say."""
    match = WAIT.search(prefer or "")
    return min(int(match[1]), MAX_WAIT_SECONDS) if match else None


async def settled(request: Request, job_id: str, seconds: int) -> Job | None:
    """The job once it has ended, or as it is after `seconds`; None if it does not exist (any more)."""
    state = state_of(request)
    with state.jobs.completions.watch(job_id) as watch:
        job = await state.jobs.table.job(job_id)
        with anyio.move_on_after(seconds):
            while job is not None and job.status not in ENDED and not state.stopping.is_set():
                await watch.next()
                job = await state.jobs.table.job(job_id)
    return job
