"""The operator's API: signing in and out, an upload token for the dashboard, a failed job tried again."""

from datetime import timedelta
from typing import Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response

from ..jobs.model import as_text, now
from ..parts import parts_of
from . import gate
from .answers import answer
from .ids import path_id
from .jobs import status_of
from .problems import NO_STORE, job_not_found, validation

log = structlog.get_logger()

MAX_BODY_BYTES = 4096
UPLOAD_USER = "operator"
UPLOAD_TOKEN_SECONDS = 600


class Login(BaseModel):
    """One of the two: the operator's token, or a one-use code of the last ten minutes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: str | None = Field(None, min_length=1, max_length=1024)
    code: str | None = Field(None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.token is None) == (self.code is None):
            raise ValueError("give either token or code")
        return self


class UploadToken(BaseModel):
    """A JWT for the public API. `expires_in` is in seconds."""

    token: str
    sub: str
    expires_at: str
    expires_in: int


async def login(request: Request) -> Response:
    gate.refuse_elsewhere(request)
    given = await _login(request)
    gate.checked(request, given.code or given.token or "", code=given.code is not None)
    operators = parts_of(request).operators
    session = operators.open_session()
    log.info("operator_signed_in", client=request.client.host if request.client else "")
    response = Response(status_code=204, headers=NO_STORE)
    _set_cookie(request, response, session, int(operators.session_seconds))
    return response


async def logout(request: Request) -> Response:
    gate.refuse_elsewhere(request)
    parts_of(request).operators.close_session(request.cookies.get(gate.COOKIE, ""))
    response = Response(status_code=204, headers=NO_STORE)
    _set_cookie(request, response, "", 0)
    return response


async def upload_token(request: Request) -> Response:
    """A short-lived token, so that the dashboard uploads as any client does."""
    gate.operator(request)
    expires_at = now() + timedelta(seconds=UPLOAD_TOKEN_SECONDS)
    token = parts_of(request).tokens.issue(UPLOAD_USER, ttl_seconds=UPLOAD_TOKEN_SECONDS)
    return answer(
        UploadToken(token=token, sub=UPLOAD_USER, expires_at=as_text(expires_at), expires_in=UPLOAD_TOKEN_SECONDS)
    )


async def retry(request: Request) -> Response:
    """A failed job begins anew: all attempts, a new turn, its kept source."""
    gate.operator(request)
    parts = parts_of(request)
    job_id = path_id(request, "job_id", job_not_found)
    if await parts.table.job(job_id) is None:
        raise job_not_found()
    await parts.queue.settled(job_id)
    job = await parts.housekeeping.retry(job_id)
    parts.queue.wake()
    log.info("job_retried", job_id=job_id, image_id=job.image_id)
    return answer(status_of(job), 202, NO_STORE)


async def _login(request: Request) -> Login:
    """The body, which is small. Raises Problem (422)."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise validation((("body",), f"must be at most {MAX_BODY_BYTES} bytes", "too_long"))
    if request.headers.get("Content-Type", "").split(";")[0].strip().lower() != "application/json":
        # A form on another page can send any other type without the browser asking first.
        raise validation((("header", "content-type"), "must be application/json", "content_type"))
    try:
        return Login.model_validate_json(body)
    except ValidationError as error:
        raise validation(
            *((("body", *map(str, one["loc"])), one["msg"], one["type"]) for one in error.errors(include_input=False))
        ) from None


def _set_cookie(request: Request, response: Response, session: str, seconds: int) -> None:
    """HttpOnly: no script reads it; Strict: it comes with no request that another page starts (RFC 6265bis)."""
    secure = request.url.scheme == "https" or str(request.app.state.public_url).startswith("https:")
    response.set_cookie(
        gate.COOKIE, session, max_age=seconds, path="/", secure=secure, httponly=True, samesite="strict"
    )
