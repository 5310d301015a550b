"""POST /api/v1/images/upload: each check at the first byte that permits it, then the receipt."""

import sqlite3
import time
from contextlib import suppress

import anyio
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from ..access.tokens import Identity, TokenExpired, TokenInvalid
from ..intake import Origin, Receipt
from ..jobs.quota import RateLimited
from ..parts import parts_of
from ..staged import StagedFile
from .answers import answer
from .form import (
    ENVELOPE_BYTES,
    Form,
    body_chunks,
    checked_bucket,
    checked_metadata,
    read_multipart,
    read_raw,
)
from .pace import Pace, Stalled
from .prefer import settled, wait_seconds
from .problems import (
    NO_STORE,
    as_problem,
    not_authenticated,
    overloaded,
    rate_headers,
    upload_too_large,
    validation,
)

DRAIN_BYTES = 1 << 20
MAX_KEY = 255  # characters of an Idempotency-Key
DRAIN_SECONDS = 2.0


class Accepted(BaseModel):
    job_id: str
    image_id: str
    status_url: str
    message: str = "Upload accepted. Processing initiated."


async def upload(request: Request) -> Response:
    body, metrics = _Watched(request), parts_of(request).metrics
    try:
        receipt = await _upload(request, body)
        metrics.upload("replayed" if receipt.replayed else "accepted")
        return await _accepted(request, receipt)
    except ClientDisconnect:
        metrics.upload("aborted")
        return Response(status_code=499)  # nobody reads it; the log line shows what happened
    except Exception as error:
        metrics.upload("rejected")
        if isinstance(error, RateLimited):
            metrics.rate_limited()
        refusal = await as_problem(request, error)
        unread = isinstance(error, Stalled) or not await body.drain()
        if unread and request.scope["http_version"].startswith("1"):  # HTTP/2 has no such header (RFC 9113, 8.2.2)
            refusal.headers["Connection"] = "close"
        return refusal


async def _upload(request: Request, body: "_Watched") -> Receipt:
    parts = parts_of(request)
    identity = authenticated(request)
    if parts.stopping:
        raise overloaded("The service is stopping. Try again shortly.")
    intake, key = parts.intake, request.headers.get("Idempotency-Key")
    _check_length(request, intake.max_bytes)
    await intake.admit(identity.org_id, identity.user_id, key)
    _check_key(key)
    pace = Pace(parts.settings.uploads.idle_timeout_seconds, parts.settings.uploads.min_bytes_per_second)
    with intake.receiving(identity.org_id, identity.user_id, key):
        async with intake.stage() as staged:
            form = await _read(request, body, pace, staged, intake.max_bytes)
            return await intake.accept(staged, _origin(form, identity, request.scope["trace_id"], key))


async def _read(request: Request, body: "_Watched", pace: Pace, staged: StagedFile, max_bytes: int) -> Form:
    content_type = request.headers.get("Content-Type", "")
    kind = content_type.split(";")[0].strip().lower()
    chunks = body_chunks(body.receive, pace)
    if kind == "multipart/form-data":
        return await read_multipart(chunks, content_type, staged, max_bytes)
    if not kind.startswith("image/"):
        raise validation(
            (("header", "content-type"), "must be multipart/form-data or image/*", "content_type"),
            (("body", "file"), "Field required", "missing"),
        )
    form = Form()
    if "bucket" not in request.query_params:
        raise validation((("query", "bucket"), "Field required", "missing"))
    form.bucket = checked_bucket(request.query_params["bucket"], ("query", "bucket"))
    try:
        header = request.headers.get("X-Metadata", "{}").encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise validation((("header", "x-metadata"), "must be UTF-8", "string_unicode")) from None
    form.metadata = checked_metadata(header, ("header", "x-metadata"))
    await read_raw(chunks, staged)
    return form


def authenticated(request: Request) -> Identity:
    """Whose request this is (RFC 6750 section 2.1). Raises Problem (401)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise not_authenticated("token_missing")
    try:
        return parts_of(request).tokens.verify(token.strip())
    except TokenExpired:
        raise not_authenticated("token_expired") from None
    except TokenInvalid:
        raise not_authenticated("token_invalid") from None


def _check_length(request: Request, max_bytes: int) -> None:
    length = request.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length) > max_bytes + ENVELOPE_BYTES:
        raise upload_too_large(max_bytes, int(length))


def _check_key(key: str | None) -> None:
    if key is not None and not 0 < len(key) <= MAX_KEY:
        message = f"must have 1 to {MAX_KEY} characters"
        raise validation((("header", "idempotency-key"), message, "idempotency_key_length"))


def _origin(form: Form, identity: Identity, trace_id: str, key: str | None) -> Origin:
    assert form.bucket is not None
    assert form.metadata is not None
    return Origin(identity.user_id, identity.org_id, form.bucket, form.metadata, form.filename, trace_id, key)


async def _accepted(request: Request, receipt: Receipt) -> Response:
    status_url = f"{request.app.state.public_url}/api/v1/images/jobs/{receipt.job_id}"
    accepted = Accepted(job_id=receipt.job_id, image_id=receipt.image_id, status_url=status_url)
    headers = {**NO_STORE, **rate_headers(receipt.standing), "Location": status_url}
    if receipt.replayed:
        headers["Idempotency-Replayed"] = "true"
    seconds = wait_seconds(request)
    if seconds is not None:
        with suppress(sqlite3.Error):  # the receipt is given in any case
            await settled(request, receipt.job_id, seconds)
        headers["Preference-Applied"] = f"wait={seconds}"
    return answer(accepted, 202, headers)


class _Watched:
    """The request's `receive`, remembering whether the body has ended."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drain(self) -> bool:
        """Read on a little after a refusal, so that a client that only sends can get to reading; True at the end."""
        deadline, left = time.monotonic() + DRAIN_SECONDS, DRAIN_BYTES
        while not self._ended and left > 0 and time.monotonic() < deadline:  # what is always ready is never cancelled
            with anyio.move_on_after(deadline - time.monotonic()):
                left -= len((await self.receive()).get("body", b""))
                continue
            break
        return self._ended
