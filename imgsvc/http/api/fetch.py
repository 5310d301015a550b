"""POST /api/v1/images/fetch: an upload whose bytes the service fetches itself, through the guarded client."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import structlog
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...access.guarded_client import Answer as Fetched
from ...access.guarded_client import NotCalled, Target
from ...access.tokens import Identity
from ...imaging.errors import ImageError
from ...intake.fetches import FetchFailed
from ...intake.intake import Origin, Receipt
from ...intake.limits import UploadLimits
from ...intake.staging import StagedFile, UnsupportedType, UploadTooLarge
from ..openapi.operations import Answer, operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.body_rate import MinimumBodyRate, SlowClient
from ..wire.json_body import json_body
from ..wire.problems import fetch_disabled, overloaded
from ..wire.upload_fields import METADATA_BYTES, Bucket, MetadataObject
from .uploads import Accepted, accepted_response, counted_refusals, require_upload

log = structlog.get_logger()

FETCH_SECONDS = 60.0
MAX_BODY_BYTES = METADATA_BYTES + 4 * 1024


class FetchRequest(BaseModel):
    """What to fetch, and where it is stored."""

    model_config = ConfigDict(
        defer_build=True,
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://cdn.example.org/a.jpg", "bucket": "holiday"}]},
    )

    url: Annotated[str, Field(description="https only; the host must be allowed.", min_length=1, max_length=2048)]
    bucket: Bucket
    metadata: MetadataObject = {}


@operation(
    "uploads_fetch",
    "uploads",
    "Upload a photo by its address",
    access="bearer",
    body=FetchRequest,
    answers={
        202: Answer(
            "The receipt: bytes and job are on disk.",
            Accepted,
            ("Location", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
        )
    },
    errors=(
        "permission_denied",
        "bucket_not_allowed",
        "being_erased",
        "fetch_disabled",
        "fetch_failed",
        "upload_too_large",
        "unsupported_type",
        "image_too_large",
        "image_unreadable",
        "image_unsupported",
        "rate_limited",
        "too_many_open_uploads",
        "overloaded",
        "storage_full",
        "quota_exceeded",
    ),
)
async def fetch(request: Request) -> Response:
    """The request is held until the bytes are on disk; a client that leaves ends the fetch.

    Only hosts of `[fetch] allowed_hosts`, only https, no redirect, within 60 seconds. Every failure to get the bytes is
    the same `fetch_failed`.
    """
    try:
        with counted_refusals(request):
            receipt = await _fetch(request)
    except ClientDisconnect:
        return Response(status_code=499)
    state_of(request).telemetry.metrics.uploads.upload("accepted")
    return await accepted_response(request, receipt, None)


async def _fetch(request: Request) -> Receipt:
    state = state_of(request)
    who = await authenticated(request)
    await require_upload(request, who)
    if state.stopping.is_set():
        raise overloaded("The service is stopping. Try again shortly.")
    if not state.settings.fetch.allowed_hosts:
        raise fetch_disabled()
    wanted = await json_body(request, FetchRequest, MAX_BODY_BYTES)
    intake = state.intake
    allowance = intake.allowance.tightened(who.tightening)
    allowance.check_bucket(wanted.bucket)
    user = (who.org_id, who.user_id)
    with state.fetches.attempt(user):
        async with (
            intake.admitted(*user, None, allowance, allowance.max_bytes) as one,
            intake.stage(allowance, allowance.max_bytes) as staged,
        ):
            try:
                await _while_connected(request, wanted.url, staged, allowance)
            except FetchFailed as failed:
                await state.access.denials.record("fetch_failed", *user, reason=str(failed))
                raise
            return await intake.accept(staged, _origin(request, wanted, who), allowance, one)


async def _while_connected(request: Request, url: str, staged: StagedFile, allowance: UploadLimits) -> None:
    """Fetch the bytes. Raises ClientDisconnect once the client has gone, else as `_stage`."""
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        group.cancel_scope.cancel()

    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            await _stage(request, url, staged, allowance)
        except Exception as error:  # raised below, outside of the group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if gone:
        raise ClientDisconnect


async def _stage(request: Request, url: str, staged: StagedFile, allowance: UploadLimits) -> None:
    """Raises FetchFailed, and what StagedFile.feed raises."""
    state, began = state_of(request), time.perf_counter()
    try:
        if not state.settings.fetch.allows(Target.of(url, allow_http=True).host):
            raise NotCalled("url", "the host is not among [fetch] allowed_hosts")
        headers = {"Accept": ", ".join(allowance.types)}
        async with state.fetching.send("GET", url, headers=headers, seconds=FETCH_SECONDS) as answer:
            _check(answer, allowance)
            uploads = state.settings.uploads
            with MinimumBodyRate(uploads.idle_timeout_seconds, uploads.min_bytes_per_second).watching() as pace:
                async for chunk in _paced(answer, pace):
                    await staged.feed(chunk)
    except (NotCalled, SlowClient) as error:
        reason = error.reason if isinstance(error, NotCalled) else "slow"
        state.telemetry.metrics.uploads.fetch_failed(reason)
        log.info("fetch_failed", reason=reason, words=str(error), ms=round((time.perf_counter() - began) * 1000))
        raise FetchFailed(reason) from None
    except (UploadTooLarge, UnsupportedType, ImageError) as error:
        log.info("fetch_refused", reason=type(error).__name__)
        raise


def _check(answer: Fetched, allowance: UploadLimits) -> None:
    """Status, encoding and declared length. Raises NotCalled or UploadTooLarge."""
    if answer.status != 200:
        raise NotCalled("answer", f"it answered {answer.status}")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotCalled("answer", "its body is encoded, though identity was asked for")
    length = answer.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > allowance.max_bytes:
        raise UploadTooLarge(allowance.max_bytes, int(length))


async def _paced(answer: Fetched, pace: MinimumBodyRate) -> AsyncIterator[bytes]:
    """The body, at the least rate of an upload. Raises NotCalled or SlowClient."""
    chunks = answer.chunks()

    async def following() -> dict[str, Any]:
        return {"body": await anext(chunks, b"")}

    while body := (await pace.next(following))["body"]:
        yield body


def _origin(request: Request, wanted: FetchRequest, who: Identity) -> Origin:
    trace_id = request.scope["trace_id"]
    return Origin(
        who.user_id,
        who.org_id,
        wanted.bucket,
        wanted.metadata,
        "",
        trace_id,
        idempotency_key=None,
        key_id=who.key_id,
        fetched_from=Target.of(wanted.url, allow_http=True).host,
    )
