"""Images: their metadata, URLs and bytes."""

from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import PermissionDenied
from ...access.tokens import Identity
from ...jobs.answer_model import IMAGE_ID, AnswerModel, example
from ...jobs.table.model import Job
from ...settings.jobs import VARIANT_NAME
from ...storage.base import NotStored, StorageNotConfigured
from ...storage.keys import IS_UUID, OURS
from ..openapi.operations import IMAGE, Answer, Private, by_method, operation
from ..state import state_of
from ..wire.conditional import ByteHeaders, StoredVariant, redirect_to_storage, send_variant
from ..wire.image_metadata import CLIENT_EXAMPLE, DIMENSIONS, EXAMPLE, Brief, ClientMetadata, PublicMetadata
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.problems import image_not_found, image_not_ready, size_not_available, too_many_images
from ..wire.validation import Query, parsed
from .jobs import dimensions, public_metadata
from .signed_access import SIGNED_URL, TOKEN_OF_ORG, SignedQuery, is_hidden, reader_of, verify_signed_url
from .uploads import authenticated

DEFAULT_SIZE = "medium"
MAX_BATCH = 50
READY_IN_SECONDS = 2  # Retry-After for an image whose job is still running
NOT_THERE = ("image_not_found", "image_not_ready")
OUT_OF_REACH = ("storage_not_configured", "overloaded")


KEY = f"/storage/holiday/processed/medium/{IMAGE_ID}_medium.webp"


class SizeQuery(Query):
    size: Annotated[
        str,
        Field(pattern=f"^{VARIANT_NAME.pattern}$", description="The name of a variant."),
    ] = DEFAULT_SIZE


class ImageInfo(AnswerModel):
    """One variant of an image."""

    model_config = example(
        image_id=IMAGE_ID,
        url=KEY,
        size="medium",
        metadata={"dominant_color": "#4a7fa5", "dimensions": DIMENSIONS},
    )

    image_id: str
    url: str
    size: str
    metadata: Brief


@operation(
    "images_info",
    "images",
    "One variant of an image",
    query=SizeQuery,
    answers={200: ImageInfo},
    errors=(*NOT_THERE, "size_not_available", "method_not_allowed", *OUT_OF_REACH),
    private=TOKEN_OF_ORG,
)
async def info(request: Request) -> Response:
    job, size = await _image(request, await reader_of(request))
    colour = job.measured.get("dominant_color")
    metadata = Brief(dominant_color=colour, dimensions=dimensions(job.measured, size))
    url = await state_of(request).stores.urls.variant(job, size)
    return json_response(ImageInfo(image_id=job.image_id, url=url, size=size, metadata=metadata))


class AllUrls(AnswerModel):
    """Every variant of an image."""

    model_config = example(image_id=IMAGE_ID, urls={"medium": KEY}, metadata=EXAMPLE, client_metadata=CLIENT_EXAMPLE)

    image_id: str
    urls: dict[str, str]
    metadata: PublicMetadata
    client_metadata: ClientMetadata


class BatchImage(AnswerModel):
    image_id: str
    url: str
    size: str
    dominant_color: str | None


class Batch(AnswerModel):
    """In the requested order; `missing` lists IDs that are unknown, deleted, malformed or without this size."""

    model_config = example(
        images=[{"image_id": IMAGE_ID, "url": KEY, "size": "medium", "dominant_color": "#4a7fa5"}],
        requested=2,
        found=1,
        missing=["6dfb1ae8-4a5c-4b7e-8b38-0f6d5c2f7a10"],
    )

    images: list[BatchImage]
    requested: int
    found: int
    missing: list[str]


class Deleted(AnswerModel):
    """The image is gone; `files_removed` counts the variants that were in storage."""

    model_config = example(image_id=IMAGE_ID, deleted=True, files_removed=4)

    image_id: str
    deleted: bool = True
    files_removed: int


@operation(
    "images_every_size",
    "images",
    "All variants of an image, and its metadata",
    answers={200: AllUrls},
    errors=(*NOT_THERE, *OUT_OF_REACH),
    private=TOKEN_OF_ORG,
)
async def every_size(request: Request) -> Response:
    who = await reader_of(request)
    image_id = path_id(request, "image_id", image_not_found)
    job = await state_of(request).jobs.table.job_of_image(image_id)
    if job is None or is_hidden(job, who) or job.status == "failed":
        raise image_not_found()
    if job.status != "completed":
        raise image_not_ready(READY_IN_SECONDS)
    urls = await state_of(request).stores.urls.of(job)
    metadata = cast(PublicMetadata, public_metadata(job))
    return json_response(
        AllUrls(image_id=job.image_id, urls=urls, metadata=metadata, client_metadata=job.client_metadata)
    )


def _split(text: object) -> object:
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


class BatchQuery(SizeQuery):
    image_ids: Annotated[
        list[str],
        Field(
            min_length=1,
            description=f"IDs separated by commas, at most {MAX_BATCH}.",
            examples=[[IMAGE_ID]],
            json_schema_extra={
                "contains": {"type": "string", "pattern": r"[^,\s]"},  # blank ones are skipped
                "maxItems": MAX_BATCH,
                "style": "form",
                "explode": False,
            },
        ),
        BeforeValidator(_split),
    ]


@operation(
    "images_batch",
    "images",
    "Several images at once",
    query=BatchQuery,
    answers={200: Batch},
    errors=("too_many_images", "overloaded"),
    private=TOKEN_OF_ORG,
)
async def batch(request: Request) -> Response:
    """`missing` lists IDs that are unknown, deleted, malformed or without this size."""
    who, query = await reader_of(request), parsed(request, BatchQuery)
    asked, size = query.image_ids, query.size
    if len(asked) > MAX_BATCH:
        raise too_many_images(MAX_BATCH, len(asked))
    state = state_of(request)
    jobs = await state.jobs.table.images([image_id.lower() for image_id in asked if IS_UUID.fullmatch(image_id)])
    images, missing = [], []
    for image_id in asked:
        job = jobs.get(image_id.lower())
        if job is None or is_hidden(job, who) or size not in job.ready:
            missing.append(image_id)
            continue
        try:
            url = await state.stores.urls.variant(job, size)
        except StorageNotConfigured:
            missing.append(image_id)
            continue
        colour = job.measured.get("dominant_color")
        images.append(BatchImage(image_id=job.image_id, url=url, size=size, dominant_color=colour))
    return json_response(Batch(images=images, requested=len(asked), found=len(images), missing=missing))


@operation(
    "images_delete",
    "images",
    "Delete an image",
    access="bearer",
    answers={200: Deleted},
    errors=("permission_denied", "image_not_found", "method_not_allowed", "overloaded"),
)
async def delete(request: Request) -> Response:
    """Allowed for its uploader and, where permissions are checked, for an `image:admin` of the organisation.

    Every later request for the image is a 404. A running job is cancelled, and the files are removed.
    """
    who = await authenticated(request)
    image_id = path_id(request, "image_id", image_not_found)
    state = state_of(request)
    job = await state.jobs.table.job_of_image(image_id)
    if job is None or job.org_id != who.org_id:
        raise image_not_found()
    try:
        await state.access.permissions.require_to_delete(who, own=job.user_id == who.user_id)
    except PermissionDenied:
        await state.access.denials.record("delete_denied", who.org_id, who.user_id, job=job)
        raise
    removed = await state.jobs.deletion.delete(job)
    if removed is None:
        raise image_not_found()
    return json_response(Deleted(image_id=image_id, files_removed=removed))


image = by_method(GET=info, DELETE=delete)

BYTES = {
    200: Answer("The whole variant.", IMAGE, ("ETag", "Last-Modified", "Cache-Control", "Accept-Ranges")),
    206: Answer("The requested range.", IMAGE, ("ETag", "Last-Modified", "Accept-Ranges", "Content-Range")),
    304: Answer("Not modified.", headers=("ETag", "Last-Modified", "Cache-Control")),
}
REFERRED = Answer(
    "The bytes are in the object storage, at the address in Location until it expires.",
    headers=("Location", "Cache-Control"),
)
BYTE_ERRORS = ("precondition_failed", "range_not_satisfiable", *OUT_OF_REACH)


class SignedSize(SizeQuery, SignedQuery):
    """The size is signed too."""


@operation(
    "images_direct",
    "images",
    "The bytes of one variant",
    query=SizeQuery,
    headers=ByteHeaders,
    answers={**BYTES, 307: REFERRED},
    errors=(*NOT_THERE, "size_not_available", *BYTE_ERRORS),
    head=True,
    private=Private("signature", query=SignedSize),
)
async def direct(request: Request) -> Response:
    """The bytes never change while the image exists. Conditional requests and single byte ranges are supported."""
    left = verify_signed_url(request, DEFAULT_SIZE)
    job, size = await _image(request)
    return await _bytes(request, job, size, left)


@operation(
    "images_stored",
    "images",
    "The bytes of a URL that the service returned",
    headers=ByteHeaders,
    answers={**BYTES, 307: REFERRED},
    errors=("image_not_found", *BYTE_ERRORS),
    head=True,
    private=SIGNED_URL,
)
async def stored(request: Request) -> Response:
    """Serves a variant whose row lists exactly this path, and nothing else; 307 if it has been moved to S3."""
    left = verify_signed_url(request)
    wanted = str(request.path_params["path"])
    named = OURS.fullmatch(wanted)
    job = await state_of(request).jobs.table.job_of_image(named["image"]) if named else None
    size = named["variant"] if named else ""
    if job is None or size not in job.ready or wanted != f"{job.storage_bucket}/{job.ready[size]}":
        raise image_not_found()
    return await _bytes(request, job, size, left)


async def _image(request: Request, who: Identity | None = None) -> tuple[Job, str]:
    """The job and the requested variant, if `who` may fetch it. Raises Problem (404, 422)."""
    image_id = path_id(request, "image_id", image_not_found)
    size = parsed(request, SizeQuery).size
    job = await state_of(request).jobs.table.job_of_image(image_id)
    if job is None or is_hidden(job, who):
        raise image_not_found()
    if size in job.ready:
        return job, size
    if size not in {variant.name for variant in job.recipe.variants}:
        raise size_not_available(size)
    if job.status == "failed":
        raise image_not_found()
    raise image_not_ready(READY_IN_SECONDS)


async def _bytes(request: Request, job: Job, size: str, left: int | None) -> Response:
    """Send the bytes. `left`: seconds until the client's signature expires; None if reading is public."""
    try:
        return await _bytes_from(request, job, size, left)
    except NotStored:
        latest = await state_of(request).jobs.table.job(job.job_id)
        if latest is None or latest.storage_backend == job.storage_backend:
            raise
        return await _bytes_from(request, latest, size, left)  # it was moved to another backend in between


async def _bytes_from(request: Request, job: Job, size: str, left: int | None) -> Response:
    urls, served = state_of(request).stores.urls, _served(job, size)
    if not urls.is_presigned(job):
        return await send_variant(request, state_of(request).stores.storages[job.storage_backend], served, left)
    method: Literal["GET", "HEAD"] = "HEAD" if request.method == "HEAD" else "GET"
    seconds = urls.presigned_seconds if left is None else max(1, min(left, urls.presigned_seconds))
    return await redirect_to_storage(request, served, lambda: urls.presigned(job, size, method, seconds), seconds)


def _served(job: Job, size: str) -> StoredVariant:
    made = job.measured["variants"][size]
    return StoredVariant(
        bucket=job.storage_bucket,
        key=job.ready[size],
        size_bytes=made["size_bytes"],
        digest=made["sha256"],
        modified=job.completed_at or job.started_at or job.created_at,
    )
