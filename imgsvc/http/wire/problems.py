"""Errors as problem+json (RFC 9457), each made by a small constructor."""

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...access.permissions import PermissionDenied
from ...access.tokens import TokenTooLong
from ...imaging.errors import ImageError
from ...intake.limits import BucketNotAllowed
from ...intake.staging import NoSpace, UnsupportedType
from ...jobs.table.byte_quota import QuotaExceeded
from ...jobs.table.model import as_text
from ...jobs.table.quota import RateLimited, RateLimitStatus

NO_STORE = {"Cache-Control": "private, no-store", "Vary": "Authorization"}
PROBLEM = "application/problem+json"
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


class Detail(BaseModel):
    """What is wrong with one field, header or parameter of the request."""

    model_config = ConfigDict(defer_build=True)

    loc: list[str]
    msg: str
    type: str


class ProblemBody(BaseModel):
    """An error (RFC 9457). `code` is stable; `error` and `status_code` repeat `detail` and `status` for older clients.

    `reason` says in words what is wrong with this request. Limit errors have members with the limit and the measured
    value.
    """

    model_config = ConfigDict(defer_build=True, title="Problem", extra="allow")

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
    needed: int = 0
    bucket: str = ""
    allowed: list[str] = []
    job_status: str = ""
    sizes: list[str] = []
    formats: list[str] = []


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
        return ProblemResponse(body, self.status, {**NO_STORE, **self.headers}, media_type=PROBLEM)


class ProblemResponse(JSONResponse):
    """JSON whose values, which may repeat what was sent, can't be taken for markup."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.translate(ESCAPES).encode()


def not_authenticated(code: str) -> Problem:
    """`code` is token_missing, token_invalid, token_expired, ticket_spent or ticket_expired (RFC 6750 section 3)."""
    details = {
        "token_missing": "Not authenticated",
        "token_invalid": "Invalid token",
        "token_expired": "Token expired",
        "ticket_spent": "Ticket spent",
        "ticket_expired": "Ticket expired",
    }
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


def unsupported_type(error: UnsupportedType) -> Problem:
    detail = f"Unsupported file type: {error.kind.mime}. Allowed: {', '.join(error.allowed) or 'none'}"
    reason = f"This is {error.kind.words}. {error.kind.advice}"
    return Problem(415, "unsupported_type", detail, reason=reason)


def encoding_not_supported(name: str) -> Problem:
    detail = f"The body's Content-Encoding '{name}' is not supported. Send the bytes as they are."
    return Problem(415, "encoding_not_supported", detail, headers={"Accept-Encoding": "identity"})


def precondition_failed() -> Problem:
    return Problem(412, "precondition_failed", "The variant is not the one that the request's condition names.")


def range_not_satisfiable(size_bytes: int) -> Problem:
    detail = f"The range is outside the {size_bytes} bytes of this variant."
    return Problem(416, "range_not_satisfiable", detail, headers={"Content-Range": f"bytes */{size_bytes}"})


def job_not_found() -> Problem:
    return Problem(404, "job_not_found", "Job not found")


def key_not_found() -> Problem:
    return Problem(404, "key_not_found", "API key not found")


def webhook_not_found() -> Problem:
    return Problem(404, "webhook_not_found", "There is no webhook of this name")


def fetch_disabled() -> Problem:
    return Problem(403, "fetch_disabled", "Uploads by address are switched off: [fetch] allowed_hosts names no host.")


def fetch_failed() -> Problem:
    detail = "The image could not be fetched from this address."
    return Problem(422, "fetch_failed", detail, details=_listed((("body", "url"), detail, "fetch_failed")))


def image_not_found() -> Problem:
    return Problem(404, "image_not_found", "Image not found")


def image_not_ready(retry_after: int) -> Problem:
    detail = "The image is still being processed."
    return Problem(404, "image_not_ready", detail, headers={"Retry-After": str(retry_after)})


def size_not_available(size: str, sizes: Sequence[str]) -> Problem:
    """`sizes`: those that the image has, or will have."""
    reason = f"This image has the sizes: {', '.join(sizes)}."
    return Problem(404, "size_not_available", f"Size '{size}' not available", reason=reason, sizes=list(sizes))


def format_not_available(size: str, format: str, formats: Sequence[str]) -> Problem:
    """`formats`: those that this variant has."""
    reason = f"This image has {size} as: {', '.join(formats)}."
    detail = f"Size '{size}' is not available as {format}"
    return Problem(404, "format_not_available", detail, reason=reason, formats=list(formats))


def source_not_kept() -> Problem:
    return Problem(404, "source_not_kept", "The source of this image is not kept")


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


def being_erased() -> Problem:
    return Problem(403, "being_erased", "This user is being erased: until that has ended, nothing is accepted from it.")


def erasure_not_found() -> Problem:
    return Problem(404, "erasure_not_found", "Erasure not found")


def authorization_unavailable(retry_after: int) -> Problem:
    detail = "Authorization service temporarily unavailable"
    return Problem(503, "authorization_unavailable", detail, headers={"Retry-After": str(retry_after)})


def render_refused() -> Problem:
    return Problem(403, "render_refused", "This address is for a run that is not active.")


def variant_there(name: str) -> Problem:
    return Problem(409, "variant_there", f"This run has the variant '{name}', or is receiving it.")


def length_required() -> Problem:
    return Problem(411, "length_required", "The request needs a Content-Length.")


def variant_too_large(limit: int, measured: int) -> Problem:
    detail = f"The variant may have {limit} bytes, not {measured}."
    return Problem(413, "variant_too_large", detail, limit_bytes=limit, measured_bytes=measured)


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


def quota_exceeded(error: QuotaExceeded) -> Problem:
    """RFC 4331 names this status for quotas."""
    return Problem(507, "quota_exceeded", str(error), limit=error.limit, used=error.used, needed=error.needed)


def unanswered() -> Problem:
    return overloaded("The request could not be answered now. Try again shortly.")


def internal_error() -> Problem:
    return Problem(500, "internal_error", "Something went wrong in the service. The trace ID leads to the log entry.")


def unusable_image(error: ImageError) -> Problem:
    return Problem(422, error.code, str(error), details=_listed((("body", "file"), str(error), error.code)))
