"""What became of an upload."""

from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ..access.tokens import TokenInvalid
from ..jobs.model import Job, Status
from ..parts import parts_of
from .answers import answer
from .ids import path_id
from .prefer import settled, wait_seconds
from .problems import NO_STORE, job_not_found, not_completed

SERVER_KEYS = ("uploader_id", "org_id", "original_filename", "animated", "frames")
ADMIN = "image:admin"


class JobStatus(BaseModel):
    job_id: str
    image_id: str
    status: Status
    created_at: str
    started_at: str | None
    completed_at: str | None
    error: str | None
    error_code: str | None
    retryable: bool | None
    attempts: int
    next_attempt_at: str | None
    ready: list[str]


class JobResult(BaseModel):
    job_id: str
    image_id: str
    status: Status
    urls: dict[str, str]
    metadata: dict[str, Any]
    completed_at: str | None


async def status(request: Request) -> Response:
    job, headers = await _job(request), dict(NO_STORE)
    seconds = wait_seconds(request)
    if seconds is not None:
        later = await settled(request, job.job_id, seconds)
        if later is None:
            raise job_not_found()
        job, headers["Preference-Applied"] = later, f"wait={seconds}"
    return answer(status_of(job), 200, headers)


def status_of(job: Job) -> JobStatus:
    over = job.status == "completed"
    return JobStatus(
        job_id=job.job_id,
        image_id=job.image_id,
        status=job.status,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        error=None if over else job.last_error,
        error_code=None if over else job.error_code,
        retryable=job.retryable if job.last_error and not over else None,
        attempts=job.attempt_count,
        next_attempt_at=job.next_attempt_at,
        ready=[variant.name for variant in job.recipe.variants if variant.name in job.ready],
    )


async def result(request: Request) -> Response:
    job = await _job(request)
    if job.status != "completed":
        raise not_completed(job.status)
    return answer(
        JobResult(
            job_id=job.job_id,
            image_id=job.image_id,
            status=job.status,
            urls=parts_of(request).urls.of(job),
            metadata=public_metadata(job) | _personal(request, job),
            completed_at=job.completed_at,
        )
    )


async def _job(request: Request) -> Job:
    job = await parts_of(request).table.job(path_id(request, "job_id", job_not_found))
    if job is None:
        raise job_not_found()
    return job


def public_metadata(job: Job) -> dict[str, Any]:
    """The client's keys, then the server's own, which win; what is personal is never taken from the client's."""
    client = {name: value for name, value in job.client_metadata.items() if name not in SERVER_KEYS}
    measured = job.measured
    return {
        **client,
        "detected_mime_type": job.mime_type,
        "content_length": job.content_length,
        "dominant_color": measured["dominant_color"],
        "original_dimensions": measured["original_dimensions"],
        **({"animated": True, "frames": measured["frames"]} if measured.get("animated") else {}),
        "variants": {name: dimensions(measured, name) for name in job.paths},
    }


def dimensions(measured: dict[str, Any], variant: str) -> dict[str, Any]:
    made = measured["variants"][variant]
    return {
        "width": made["width"],
        "height": made["height"],
        "aspect_ratio": round(made["width"] / made["height"], 3),
        "format": made["format"],
        "size_bytes": made["size_bytes"],
    }


def _personal(request: Request, job: Job) -> dict[str, Any]:
    """Who uploaded it, for the uploader and the org's admins only: these pages are public."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return {}
    try:
        who = parts_of(request).tokens.verify(token.strip())
    except TokenInvalid:
        return {}
    own = (who.org_id, who.user_id) == (job.org_id, job.user_id)
    if not own and not (who.org_id == job.org_id and ADMIN in who.permissions):
        return {}
    return {"uploader_id": job.user_id, "org_id": job.org_id, "original_filename": job.original_filename}
