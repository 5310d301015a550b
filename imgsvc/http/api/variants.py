"""The bytes of an image's variants."""

from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ...access.tokens import Identity
from ...jobs.table.model import Job
from ...settings.fields import Matching
from ...settings.jobs import VARIANT_NAME, VARIANT_NAME_WORDS
from ...storage.base import NotStored
from ...storage.keys import StoredName
from ..openapi.operations import IMAGE, Answer, Private, operation
from ..state import state_of
from ..wire.byte_headers import ByteHeaders
from ..wire.conditional import EMBEDDABLE, caching, redirect_to_storage, send_variant
from ..wire.formats import AUTO, FormatName, mark_negotiated, names_of, negotiated, will_have
from ..wire.path_ids import path_id
from ..wire.piecewise import Source
from ..wire.problems import format_not_available, image_not_found, image_not_ready, size_not_available
from ..wire.validation import Query, parsed
from .signed_access import SIGNED_URL, SignedQuery, is_hidden, verify_signed_url

DEFAULT_SIZE = "medium"
READY_IN_SECONDS = 2  # Retry-After for an image whose job is still running
NOT_THERE = ("image_not_found", "image_not_ready")
REDIRECT_SECONDS = 3600  # that a cache may keep a redirect to a newer variant
OUT_OF_REACH = ("storage_not_configured", "overloaded")


class SizeQuery(Query):
    size: Annotated[
        str,
        Matching(VARIANT_NAME.pattern, VARIANT_NAME_WORDS),
        Field(description="The name of a variant."),
    ] = DEFAULT_SIZE


class FormatQuery(SizeQuery):
    format: FormatName = None


async def find_variant(request: Request, who: Identity | None = None) -> tuple[Job, str, str]:
    """The job, the requested size, and the variant of it in the requested format, if `who` may fetch it.

    Raises Problem (404, 422).
    """
    asked = parsed(request, FormatQuery)
    job, size = await _find_size(request, asked.size, who)
    if asked.format is None:
        return job, size, size
    if asked.format == AUTO:
        return job, size, negotiated(request, job, size)
    names = names_of(job, size)
    if asked.format in names:
        return job, size, names[asked.format]
    if will_have(job, size, asked.format) and await state_of(request).jobs.table.further.waits(job, "format"):
        raise image_not_ready(READY_IN_SECONDS)
    raise format_not_available(size, asked.format, tuple(names))


async def _find_size(request: Request, size: str, who: Identity | None) -> tuple[Job, str]:
    image_id = path_id(request, "image_id", image_not_found)
    job = await state_of(request).jobs.table.job_of_image(image_id)
    if job is None or is_hidden(job, who):
        raise image_not_found()
    if size in job.ready:
        return job, size
    if size not in {variant.name for variant in job.recipe.variants}:
        raise size_not_available(size, [variant.name for variant in job.recipe.variants])
    if job.status == "failed":
        raise image_not_found()
    raise image_not_ready(READY_IN_SECONDS)


BYTES = {
    200: Answer("The whole variant.", IMAGE, ("ETag", "Last-Modified", "Cache-Control", "Accept-Ranges")),
    206: Answer("The requested range.", IMAGE, ("ETag", "Last-Modified", "Accept-Ranges", "Content-Range")),
    304: Answer("Not modified.", headers=("ETag", "Last-Modified", "Cache-Control")),
}
REFERRED = Answer(
    "The bytes are in the object storage, at the address in Location until it expires.",
    headers=("Location", "Cache-Control"),
)
REPLACED = Answer("The variant was rendered again; the new one is at Location.", headers=("Location", "Cache-Control"))
BYTE_ERRORS = ("precondition_failed", "range_not_satisfiable", *OUT_OF_REACH)


class SignedSize(FormatQuery, SignedQuery):
    """The size is signed too; the format is not: it is the same picture."""


@operation(
    "images_direct",
    "images",
    "The bytes of one variant",
    query=FormatQuery,
    headers=ByteHeaders,
    answers={**BYTES, 307: REFERRED},
    errors=(*NOT_THERE, "size_not_available", "format_not_available", *BYTE_ERRORS),
    head=True,
    private=Private("signature", query=SignedSize),
)
async def direct(request: Request) -> Response:
    """The present bytes: a variant may be rendered again. Conditional requests and single byte ranges are supported.

    With `format=auto` the answer, whatever it is, says `Vary: Accept`.
    """
    mark_negotiated(request)
    left = verify_signed_url(request, DEFAULT_SIZE)
    job, _, variant = await find_variant(request)
    return await _bytes(request, job, variant, left, versioned=False)


@operation(
    "images_stored",
    "images",
    "The bytes of a URL that the service returned",
    headers=ByteHeaders,
    answers={**BYTES, 301: REPLACED, 307: REFERRED},
    errors=("image_not_found", *BYTE_ERRORS),
    head=True,
    private=SIGNED_URL,
)
async def stored(request: Request) -> Response:
    """Serves a variant whose row lists exactly this path, and nothing else; 307 if it has been moved to S3.

    The URL of a variant that was rendered again leads to the new one for 30 days (301).
    """
    left = verify_signed_url(request)
    named = StoredName.of(str(request.path_params["path"]))
    job = await state_of(request).jobs.table.job_of_image(named.image_id) if named else None
    if named is None or job is None or named.bucket != job.storage_bucket:
        raise image_not_found()
    size = job.names.get(named.key)
    if size is None:
        return await _replaced(request, job, named.key, left)
    return await _bytes(request, job, size, left)


async def _replaced(request: Request, job: Job, key: str, left: int | None) -> Response:
    """Redirect from a replaced key to the variant's present one. A signed URL leads to one that ends when it does."""
    size = await state_of(request).jobs.table.further.redirect(job, key)
    if size is None or size not in job.ready:
        raise image_not_found()
    expires = None if left is None else int(request.query_params["expires"])
    seconds = min(one for one in (left, job.seconds_left, REDIRECT_SECONDS) if one is not None)
    kept = f"{'public' if left is None else 'private'}, max-age={seconds}"
    headers = {"Location": state_of(request).stores.urls.stored(job, size, expires), "Cache-Control": kept}
    return Response(status_code=301, headers={**headers, **EMBEDDABLE})


async def _bytes(request: Request, job: Job, size: str, left: int | None, *, versioned: bool = True) -> Response:
    """Send the bytes. `left`: seconds until the client's signature expires; None if reading is public."""
    try:
        return await _bytes_from(request, job, size, left, versioned)
    except NotStored:
        latest = await state_of(request).jobs.table.job(job.job_id)
        if latest is None or size not in latest.ready:
            raise
        if (latest.storage_backend, latest.ready[size]) == (job.storage_backend, job.ready[size]):
            raise
        return await _bytes_from(request, latest, size, left, versioned)  # it was moved or rendered again in between


async def _bytes_from(request: Request, job: Job, size: str, left: int | None, versioned: bool) -> Response:
    stores, served = state_of(request).stores, job.stored(size)
    urls = stores.urls
    if not urls.is_presigned(job):
        source = Source(stores.storages[job.storage_backend], stores.variants)
        return await send_variant(request, source, served, caching(left, job.seconds_left, versioned=versioned))
    method: Literal["GET", "HEAD"] = "HEAD" if request.method == "HEAD" else "GET"
    seconds = urls.presigned_seconds if left is None else max(1, min(left, urls.presigned_seconds))
    seconds = await urls.valid_seconds(job, urls.lifetime(job, seconds))
    return await redirect_to_storage(request, served, lambda: urls.presigned(job, size, method, seconds), seconds)
