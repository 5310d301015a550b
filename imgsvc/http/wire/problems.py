"""Errors as problem+json (RFC 9457): made by small constructors, mapped to the wire here and nowhere else."""

import errno
import http
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...access.jwk import KeysUnavailable
from ...access.permissions import AuthorizationUnavailable, PermissionDenied
from ...access.tokens import NotOurs, TokenTooLong
from ...imaging.errors import ImageError
from ...intake.intake import IdempotencyInProgress, Overloaded
from ...intake.limits import BucketNotAllowed
from ...intake.open_uploads import TooManyOpenUploads, TooManyUploads
from ...intake.staging import NoSpace, Rejected, StagingFailed, StagingGone, UnsupportedType, UploadTooLarge
from ...jobs.restart import NotRetryable, StillEnding
from ...jobs.table.model import as_text
from ...jobs.table.quota import RateLimited, RateLimitStatus
from ...jobs.table.sql import is_damage
from ...jobs.table.transactions import IdempotencyConflict
from ...jobs.table.writer import DatabaseUnavailable
from ...maintenance.runner import TaskRunning
from ...storage.base import NotStored, StorageError, StorageNotConfigured

log = structlog.get_logger()

NO_STORE = {"Cache-Control": "private, no-store", "Vary": "Authorization"}
PROBLEM = "application/problem+json"
CODES_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 400: "bad_request", 413: "upload_too_large"}


class Detail(BaseModel):
    """What is wrong with one field, header or parameter of the request."""

    loc: list[str]
    msg: str
    type: str


class ProblemBody(BaseModel):
    """An error (RFC 9457). `code` is stable; `error` and `status_code` repeat `detail` and `status` for older clients.

    `reason` says in words what is wrong with this request. Limit errors have members with the limit and the measured
    value.
    """

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    trace_id: str
    error: str
    status_code: int
    reason: str = ""
    details: list[Detail] = []
    limit: int = 0
    limit_bytes: int = 0
    measured: int = 0
    measured_bytes: int = 0
    used: int = 0
    bucket: str = ""
    allowed: list[str] = []
    job_status: str = ""


class Problem(Exception):
    """An error response. `more` becomes further members of the body."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = dict(headers or {})
        self.more = more

    def body(self, public_url: str, trace_id: str) -> dict[str, Any]:
        """The members that are sent."""
        return ProblemBody(
            type=f"{public_url}/errors/{self.code}",
            title=http.HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            code=self.code,
            trace_id=trace_id,
            error=self.detail,
            status_code=self.status,
            **self.more,
        ).model_dump(exclude_unset=True)

    def response(self, request: Request) -> Response:
        request.scope["problem"] = self.code  # for the error metric
        body = self.body(request.app.state.public_url, request.scope.get("trace_id", ""))
        return JSONResponse(body, self.status, {**NO_STORE, **self.headers}, media_type=PROBLEM)


def not_authenticated(code: str) -> Problem:
    """`code` is token_missing, token_invalid or token_expired (RFC 6750 section 3)."""
    details = {"token_missing": "Not authenticated", "token_invalid": "Invalid token", "token_expired": "Token expired"}
    challenge = 'Bearer realm="imgsvc"'
    if code != "token_missing":
        challenge += f', error="invalid_token", error_description="{details[code]}"'
    return Problem(401, code, details[code], headers={"WWW-Authenticate": challenge})


def token_too_long(error: TokenTooLong) -> Problem:
    reason = f"The token has {error.measured} bytes; at most {error.limit} are accepted."
    challenge = f'Bearer realm="imgsvc", error="invalid_token", error_description="{reason}"'
    more: dict[str, Any] = {"reason": reason, "limit_bytes": error.limit, "measured_bytes": error.measured}
    return Problem(401, "token_invalid", "Invalid token", headers={"WWW-Authenticate": challenge}, **more)


def validation(*details: tuple[tuple[str, ...], str, str], hint: str = "") -> Problem:
    """Each detail is (where, message, type). `reason` says the first in words, and the hint."""
    (_, *names), message, _ = details[0]
    reason = "; ".join(filter(None, (f"{'.'.join(names)}: {message}" if names else message, hint)))
    return Problem(422, "validation_error", "Validation error", reason=reason, details=_listed(*details))


def _listed(*details: tuple[tuple[str, ...], str, str]) -> list[dict[str, Any]]:
    return [{"loc": list(where), "msg": message, "type": kind} for where, message, kind in details]


def idempotency_conflict() -> Problem:
    detail = "This Idempotency-Key was used with other bytes, another bucket or other metadata."
    listed = _listed((("header", "idempotency-key"), detail, "idempotency_conflict"))
    return Problem(422, "idempotency_conflict", detail, details=listed)


def upload_too_large(limit: int, measured: int) -> Problem:
    megabytes = f"{limit / (1 << 20):g}"
    detail = f"File too large. Maximum allowed: {megabytes}MB"
    return Problem(413, "upload_too_large", detail, limit_bytes=limit, measured_bytes=measured)


def precondition_failed() -> Problem:
    return Problem(412, "precondition_failed", "The variant is not the one that the request's condition names.")


def range_not_satisfiable(size_bytes: int) -> Problem:
    detail = f"The range is outside the {size_bytes} bytes of this variant."
    return Problem(416, "range_not_satisfiable", detail, headers={"Content-Range": f"bytes */{size_bytes}"})


def job_not_found() -> Problem:
    return Problem(404, "job_not_found", "Job not found")


def image_not_found() -> Problem:
    return Problem(404, "image_not_found", "Image not found")


def image_not_ready(retry_after: int) -> Problem:
    detail = "The image is still being processed."
    return Problem(404, "image_not_ready", detail, headers={"Retry-After": str(retry_after)})


def size_not_available(size: str) -> Problem:
    return Problem(404, "size_not_available", f"Size '{size}' not available")


def rate_limited(error: RateLimited) -> Problem:
    minutes = error.quota.window.total_seconds() / 60
    per = "hour" if minutes == 60 else f"{minutes:g} minutes"
    detail = f"Rate limit exceeded. Maximum {error.standing.limit} uploads per {per}."
    headers = rate_headers(error.standing) | {"Retry-After": str(error.standing.retry_after)}
    return Problem(429, "rate_limited", detail, headers=headers, limit=error.standing.limit, used=error.standing.used)


def rate_headers(standing: RateLimitStatus) -> dict[str, str]:
    """The rate-limit headers; `Reset` is the real end of the window."""
    return {
        "X-RateLimit-Limit": str(standing.limit),
        "X-RateLimit-Remaining": str(standing.remaining),
        "X-RateLimit-Reset": as_text(standing.reset),
    }


def too_many_images(limit: int, measured: int) -> Problem:
    detail = f"At most {limit} images can be requested at once, not {measured}."
    return Problem(400, "too_many_images", detail, limit=limit, measured=measured)


def permission_denied(error: PermissionDenied) -> Problem:
    """RFC 6750 section 3.1 calls a permission that the token lacks a scope."""
    challenge = f'Bearer realm="imgsvc", error="insufficient_scope", scope="{error.permission}"'
    detail = f"Permission denied: {error.permission}"
    return Problem(403, "permission_denied", detail, headers={"WWW-Authenticate": challenge})


def bucket_not_allowed(error: BucketNotAllowed) -> Problem:
    detail = f"The token does not allow the bucket '{error.bucket}'. Allowed: {', '.join(error.allowed) or 'none'}"
    return Problem(403, "bucket_not_allowed", detail, bucket=error.bucket, allowed=list(error.allowed))


def authorization_unavailable(retry_after: int) -> Problem:
    detail = "Authorization service temporarily unavailable"
    return Problem(503, "authorization_unavailable", detail, headers={"Retry-After": str(retry_after)})


def signature_required() -> Problem:
    return Problem(403, "signature_required", "This address needs a signed URL.")


def signature_invalid() -> Problem:
    return Problem(403, "signature_invalid", "The signature does not match this URL.")


def signature_expired() -> Problem:
    return Problem(403, "signature_expired", "The signed URL has expired.")


def not_completed(status: str) -> Problem:
    return Problem(409, "not_completed", f"Processing not completed. Current status: {status}", job_status=status)


def overloaded(detail: str, retry_after: int = 5, **more: int) -> Problem:
    return Problem(503, "overloaded", detail, headers={"Retry-After": str(retry_after)}, **more)


def storage_not_configured() -> Problem:
    detail = "The image is in a storage that is no longer configured."
    return Problem(503, "storage_not_configured", detail, headers={"Retry-After": "3600"})


def storage_full(error: NoSpace) -> Problem:
    detail = "There is not enough free space to accept the upload."
    more = {"limit_bytes": error.reserve, "measured_bytes": error.free} if error.reserve else {}
    return Problem(507, "storage_full", detail, headers={"Retry-After": "60"}, **more)


def unanswered() -> Problem:
    return overloaded("The request could not be answered now. Try again shortly.")


def internal_error() -> Problem:
    return Problem(500, "internal_error", "Something went wrong in the service. The trace ID leads to the log entry.")


def _from_intake(error: Rejected) -> Problem:
    if isinstance(error, UploadTooLarge):
        return upload_too_large(error.limit, error.measured)
    if isinstance(error, UnsupportedType):
        allowed = ", ".join(error.allowed) or "none"
        return Problem(415, "unsupported_type", f"Unsupported file type: {error.mime}. Allowed: {allowed}")
    if isinstance(error, NoSpace):
        return storage_full(error)
    if isinstance(error, Overloaded):
        return overloaded(str(error), retry_after=30, limit=error.limit, measured=error.waiting)
    if isinstance(error, StagingGone):
        return overloaded("The received part of the upload was lost. Send it again.")
    if isinstance(error, StagingFailed):
        return overloaded("The upload could not be written to disk now. Try again shortly.")
    if isinstance(error, TooManyUploads):
        return overloaded(str(error), limit=error.limit, measured=error.open_now)
    if isinstance(error, TooManyOpenUploads):
        more = {"limit": error.limit, "measured": error.open_now}
        return Problem(429, "too_many_open_uploads", str(error), headers={"Retry-After": "5"}, **more)
    if isinstance(error, IdempotencyInProgress):
        detail = "An upload with the same Idempotency-Key is still being received."
        return Problem(409, "idempotency_in_progress", detail, headers={"Retry-After": "1"})
    return Problem(408, "upload_stalled", str(error))


def _from_http(error: HTTPException) -> Problem:
    code = CODES_BY_STATUS.get(error.status_code, http.HTTPStatus(error.status_code).name.lower())
    return Problem(error.status_code, code, error.detail, headers=error.headers)


# The exceptions that a handler may raise, and their errors.
MAPPING: dict[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda error: error,
    HTTPException: _from_http,
    PermissionDenied: permission_denied,
    BucketNotAllowed: bucket_not_allowed,
    AuthorizationUnavailable: lambda error: authorization_unavailable(error.retry_after),
    KeysUnavailable: lambda error: authorization_unavailable(error.retry_after),
    NotOurs: lambda _: Problem(409, "tokens_not_ours", "An external issuer signs the tokens: none can be made here."),
    Rejected: _from_intake,
    RateLimited: rate_limited,
    IdempotencyConflict: lambda _: idempotency_conflict(),
    ImageError: lambda error: Problem(
        422, error.code, str(error), details=_listed((("body", "file"), str(error), error.code))
    ),
    DatabaseUnavailable: lambda _: overloaded("The request could not be recorded. Try again shortly."),
    sqlite3.OperationalError: lambda _: unanswered(),
    NotRetryable: lambda error: Problem(409, "not_retryable", str(error)),
    StillEnding: lambda error: overloaded(str(error)),
    TaskRunning: lambda error: Problem(409, "task_running", str(error), headers={"Retry-After": "5"}),
    NotStored: lambda _: image_not_found(),
    StorageNotConfigured: lambda _: storage_not_configured(),
    StorageError: lambda _: overloaded("The image could not be read. Try again shortly."),
}


async def as_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, StorageNotConfigured):
        log.error("storage_not_configured", reason=str(error))
    if is_damage(error):
        log.error("database_damaged", reason=str(error))
        return unanswered().response(request)
    for kind, make in MAPPING.items():
        if isinstance(error, kind):
            return make(error).response(request)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        log.error("out_of_files", reason=str(error.strerror))
        return overloaded("Too many files and connections are open.", retry_after=1).response(request)
    log.error("request_failed", exc_info=error)
    return internal_error().response(request)
