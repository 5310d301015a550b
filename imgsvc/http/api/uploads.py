"""POST /api/v1/images/upload: each check at the first byte that permits it, then the receipt."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...access.permissions import UPLOAD, PermissionDenied
from ...access.tokens import Identity
from ...intake.intake import Origin, Receipt
from ...intake.limits import BucketNotAllowed, UploadLimits
from ...intake.staging import StagedFile
from ...jobs.answer_model import IMAGE_ID, JOB_ID, AnswerModel, example
from ...jobs.table.byte_quota import QuotaExceeded
from ...jobs.table.credentials import UploadTicket
from ...jobs.table.model import Job, Status
from ...jobs.table.quota import RateLimited
from ...jobs.views import JobStatus
from ...lazy_dataclass import dataclass
from ..openapi.operations import BYTES, PHOTO, Answer, Body, operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.body_rate import MinimumBodyRate, SlowClient
from ..wire.content_encoding import check_encoding
from ..wire.drain import NO_DRAIN
from ..wire.json_response import json_response
from ..wire.moments import expiry
from ..wire.multipart import ENVELOPE_BYTES, Form, body_chunks, read_multipart, read_raw
from ..wire.prefer import ENDED, settled, wait_seconds
from ..wire.problems import NO_STORE, overloaded, rate_headers, upload_too_large, validation
from ..wire.upload_fields import UploadForm, UploadHeaders, UploadQuery, checked_metadata
from ..wire.validation import parsed
from .signed_access import urls_of_ready

MESSAGE = "Upload accepted. Processing initiated."
FORM = "multipart/form-data"
UNTYPED = ("", "application/octet-stream", "binary/octet-stream")  # taken for what the bytes are
ACCEPTED = f"must be {FORM} or, for the photo alone, image/* or application/octet-stream"
SENT_BY_CURL = (
    "application/x-www-form-urlencoded is what curl sends with --data and --data-binary unless another type is given; "
    'for the photo alone add -H "Content-Type: image/jpeg", for a form use -F bucket=NAME -F file=@photo.jpg'
)
NO_TYPE = f"without a Content-Type the body is the photo alone; a form is {FORM}"


class Accepted(AnswerModel):
    """The receipt. With `Prefer: wait`, a job that has ended in time adds `status`, `ready`, `urls` and its error."""

    model_config = example(
        job_id=JOB_ID,
        image_id=IMAGE_ID,
        status_url=f"/api/v1/images/jobs/{JOB_ID}",
        message=MESSAGE,
    )

    job_id: str
    image_id: str
    status_url: str
    message: str
    status: Status | None = None
    ready: list[str] = []  # noqa: RUF012, pydantic copies it
    urls: dict[str, str] = {}  # noqa: RUF012, pydantic copies it
    error: str | None = None
    error_code: str | None = None
    retryable: bool | None = None


ANSWERS = {
    202: Answer(
        "The receipt: bytes and job are on disk.",
        Accepted,
        ("Location", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
        ("Idempotency-Replayed", "Preference-Applied"),
        {
            "jobs_status": {"job_id": "$response.body#/job_id"},
            "jobs_result": {"job_id": "$response.body#/job_id"},
            "images_info": {"image_id": "$response.body#/image_id"},
            "images_every_size": {"image_id": "$response.body#/image_id"},
            "images_direct": {"image_id": "$response.body#/image_id"},
            "images_delete": {"image_id": "$response.body#/image_id"},
        },
    )
}
REFUSALS = (
    "permission_denied",
    "bucket_not_allowed",
    "being_erased",
    "upload_stalled",
    "idempotency_in_progress",
    "upload_too_large",
    "unsupported_type",
    "idempotency_conflict",
    "image_too_large",
    "image_unreadable",
    "image_unsupported",
    "rate_limited",
    "too_many_open_uploads",
    "permission_denied",
    "authorization_unavailable",
    "overloaded",
    "storage_full",
    "quota_exceeded",
)


@dataclass(frozen=True, slots=True)
class Uploader:
    """Who uploads, and with which ticket."""

    identity: Identity
    ticket: UploadTicket | None = None

    def key(self, sent: str | None) -> str | None:
        """The idempotency key as it is kept: those of a ticket are its own."""
        return f"{self.ticket.ticket_id} {sent}" if self.ticket and sent is not None else sent


@operation(
    "uploads_upload",
    "uploads",
    "Upload a photo",
    access="bearer",
    query=UploadQuery,
    headers=UploadHeaders,
    body=(
        Body("multipart/form-data", UploadForm),
        Body(BYTES, PHOTO),
    ),
    answers=ANSWERS,
    errors=REFUSALS,
)
async def upload(request: Request) -> Response:
    """A form, or just the bytes with `?bucket=`. The type is detected from the content. Rejected uploads are free."""
    return await receive(request, _uploader)


async def _uploader(request: Request) -> Uploader:
    """Raises Problem (401), KeysUnavailable, PermissionDenied or AuthorizationUnavailable."""
    identity = await authenticated(request)
    await require_upload(request, identity)
    return Uploader(identity)


async def receive(request: Request, identify: Callable[[Request], Awaitable[Uploader]]) -> Response:
    """Receive an upload by whom `identify` finds. Raises what a refused upload is answered with."""
    try:
        with counted_refusals(request):
            receipt, seconds = await _upload(request, identify)
    except ClientDisconnect:
        return Response(status_code=499)  # the client has gone; the status is for the log line
    except SlowClient:
        request.scope[NO_DRAIN] = True
        raise
    state_of(request).telemetry.metrics.uploads.upload("replayed" if receipt.replayed else "accepted")
    return await accepted_response(request, receipt, seconds)


@contextmanager
def counted_refusals(request: Request) -> Iterator[None]:
    """Count an upload that ends with an exception, which is passed on, in the metrics."""
    metrics = state_of(request).telemetry.metrics.uploads
    try:
        yield
    except ClientDisconnect:
        metrics.upload("aborted")
        raise
    except Exception as error:
        metrics.upload("rejected")
        if isinstance(error, RateLimited):
            metrics.rate_limited()
        if isinstance(error, QuotaExceeded):
            metrics.quota_exceeded(error.whose)
        raise


async def _upload(request: Request, identify: Callable[[Request], Awaitable[Uploader]]) -> tuple[Receipt, int | None]:
    """The receipt, and the seconds that the client wants to wait for the job's end."""
    state = state_of(request)
    who = await identify(request)
    identity = who.identity
    if state.stopping.is_set():
        raise overloaded("The service is stopping. Try again shortly.")
    intake, key = state.intake, who.key(request.headers.get("Idempotency-Key"))
    allowance = intake.allowance.tightened(identity.tightening)
    announced = _announced_bytes(request, allowance.max_bytes)
    async with intake.admitted(
        identity.org_id, identity.user_id, key, allowance, announced, _least_bytes(request)
    ) as one:
        headers, query = parsed(request, UploadHeaders), parsed(request, UploadQuery)
        pace = MinimumBodyRate(state.settings.uploads.idle_timeout_seconds, state.settings.uploads.min_bytes_per_second)
        async with intake.stage(allowance, announced) as staged:
            raw = Form(query.bucket or (who.ticket.bucket if who.ticket else None), headers.metadata)
            try:
                with pace.watching():
                    form = await _read(request, pace, staged, allowance, raw, who.ticket)
            except BucketNotAllowed as error:
                await state.access.denials.record(
                    "bucket_denied", identity.org_id, identity.user_id, bucket=error.bucket
                )
                raise
            origin = _origin(form, query, who, request.scope["trace_id"], key)
            receipt = await intake.accept(staged, origin, allowance, one)
            if who.ticket is not None and not receipt.replayed:
                state.telemetry.metrics.access.ticket("spent")
    return receipt, wait_seconds(headers.prefer)


async def _read(
    request: Request,
    pace: MinimumBodyRate,
    staged: StagedFile,
    allowance: UploadLimits,
    raw: Form,
    ticket: UploadTicket | None,
) -> Form:
    """Read the upload as a form or a raw body. `raw` has the bucket and metadata sent with a raw body.

    With a ticket the form needs no bucket.
    """
    content_type = request.headers.get("Content-Type", "")
    kind = content_type.split(";")[0].strip().lower()
    chunks = body_chunks(request.receive, pace)
    if kind == FORM:
        check_encoding(request)
        return await read_multipart(chunks, content_type, staged, allowance, ticket.bucket if ticket else None)
    if not (kind in UNTYPED or kind.startswith("image/")):
        wrong = SENT_BY_CURL if kind == "application/x-www-form-urlencoded" else f"{ACCEPTED}, not {kind[:100]}"
        raise validation(
            (("header", "content-type"), wrong, "content_type"),
            (("body", "file"), "Field required", "missing"),
        )
    if raw.bucket is None:
        raise validation((("query", "bucket"), "Field required", "missing"), hint="" if kind else NO_TYPE)
    allowance.check_bucket(raw.bucket)
    check_encoding(request)
    await read_raw(chunks, staged)
    return raw


async def require_upload(request: Request, identity: Identity) -> None:
    """Check the permission. Raises PermissionDenied, after recording it, or AuthorizationUnavailable."""
    state = state_of(request)
    try:
        await state.access.permissions.require(identity, UPLOAD)
    except PermissionDenied as denied:
        await state.access.denials.record(
            "upload_denied", identity.org_id, identity.user_id, permission=denied.permission
        )
        raise


def _announced_bytes(request: Request, max_bytes: int) -> int:
    """The largest possible size of the file: by Content-Length, else the user's limit. Raises Problem (413)."""
    length = request.headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()):
        return max_bytes
    if int(length) > max_bytes + ENVELOPE_BYTES:
        raise upload_too_large(max_bytes, int(length))
    return min(int(length), max_bytes)


def _least_bytes(request: Request) -> int:
    """The smallest possible size of the file: by Content-Length, less the envelope of a form."""
    length = request.headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()):
        return 0
    of_form = request.headers.get("Content-Type", "").split(";")[0].strip().lower() == FORM
    return max(0, int(length) - ENVELOPE_BYTES) if of_form else int(length)


def _origin(form: Form, query: UploadQuery, who: Uploader, trace_id: str, key: str | None) -> Origin:
    """Fields of the form win over those of the query, and those of a ticket over both. Raises Problem (422)."""
    assert form.bucket is not None
    assert form.metadata is not None
    identity, ticket = who.identity, who.ticket
    if ticket is not None and ticket.expires_after is not None:
        expires_at = expiry("body", ticket.expires_after, None)
    elif form.expires_in is None and form.expires_at is None:
        expires_at = expiry("query", query.expires_in, query.expires_at)
    else:
        expires_at = expiry("body", form.expires_in, form.expires_at)
    return Origin(
        user_id=identity.user_id,
        org_id=identity.org_id,
        bucket=form.bucket,
        client_metadata=checked_metadata(form.metadata | ticket.metadata) if ticket else form.metadata,
        filename=form.filename,
        trace_id=trace_id,
        idempotency_key=key,
        expires_at=expires_at,
        key_id=identity.key_id,
        ticket_id=ticket.ticket_id if ticket else None,
    )


async def accepted_response(request: Request, receipt: Receipt, seconds: int | None) -> Response:
    status_url = f"{request.app.state.public_url}/api/v1/images/jobs/{receipt.job_id}"
    accepted: dict[str, Any] = {"job_id": receipt.job_id, "image_id": receipt.image_id, "status_url": status_url}
    headers = {**NO_STORE, **rate_headers(receipt.standing), "Location": status_url}
    if receipt.replayed:
        headers["Idempotency-Replayed"] = "true"
    if seconds is not None:
        with suppress(sqlite3.Error):  # the receipt is sent in any case
            accepted |= await _ended(request, await settled(request, receipt.job_id, seconds))
        headers["Preference-Applied"] = f"wait={seconds}"
    return json_response(Accepted(**accepted, message=MESSAGE), 202, headers, only_set=True)


async def _ended(request: Request, job: Job | None) -> dict[str, Any]:
    """The members of a receipt whose job has ended already; none otherwise."""
    if job is None or job.status not in ENDED:
        return {}
    shown = JobStatus.of(job)
    members: dict[str, Any] = {"status": job.status, "ready": shown.ready, "urls": await urls_of_ready(request, job)}
    if job.status == "failed":
        members |= {"error": shown.error, "error_code": shown.error_code, "retryable": shown.retryable}
    return members
