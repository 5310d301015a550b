"""An image: what it is, and its bytes."""

from typing import Any

import anyio
import structlog
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ..jobs.model import Job
from ..parts import parts_of
from ..settings import VARIANT_NAME
from .answers import answer
from .files import Served, serve
from .ids import UUID, path_id
from .jobs import dimensions, public_metadata
from .problems import (
    image_not_found,
    image_not_ready,
    not_yours,
    size_not_available,
    too_many_images,
    validation,
)
from .uploads import authenticated

log = structlog.get_logger()

DEFAULT_SIZE = "medium"
MAX_BATCH = 50
END_RUN_SECONDS = 10.0  # a worker is killed within milliseconds; publishing may take longer
READY_IN_SECONDS = 2  # what a client is told to wait for an image whose job still runs


class ImageInfo(BaseModel):
    image_id: str
    url: str
    size: str
    metadata: dict[str, Any]


async def image(request: Request) -> Response:
    return await (delete(request) if request.method == "DELETE" else info(request))


async def info(request: Request) -> Response:
    job, size = await _image(request)
    metadata = {"dominant_color": job.measured.get("dominant_color"), "dimensions": dimensions(job.measured, size)}
    url = parts_of(request).urls.variant(job, size)
    return answer(ImageInfo(image_id=job.image_id, url=url, size=size, metadata=metadata))


class AllUrls(BaseModel):
    image_id: str
    urls: dict[str, str]
    metadata: dict[str, Any]


class BatchImage(BaseModel):
    image_id: str
    url: str
    size: str
    dominant_color: str | None


class Batch(BaseModel):
    images: list[BatchImage]
    requested: int
    found: int
    missing: list[str]


class Deleted(BaseModel):
    image_id: str
    deleted: bool = True
    files_removed: int


async def every_size(request: Request) -> Response:
    image_id = path_id(request, "image_id", image_not_found)
    job = await parts_of(request).table.job_of_image(image_id)
    if job is None or job.status == "failed":
        raise image_not_found()
    if job.status != "completed":
        raise image_not_ready(READY_IN_SECONDS)
    urls = parts_of(request).urls.of(job)
    return answer(AllUrls(image_id=job.image_id, urls=urls, metadata=public_metadata(job)))


async def batch(request: Request) -> Response:
    """Several images at once; what is unknown, deleted, malformed or lacks the size is `missing`."""
    asked = [part.strip() for part in request.query_params.get("image_ids", "").split(",") if part.strip()]
    if not asked:
        raise validation((("query", "image_ids"), "Field required", "missing"))
    if len(asked) > MAX_BATCH:
        raise too_many_images(MAX_BATCH, len(asked))
    size = _size(request)
    parts = parts_of(request)
    jobs = await parts.table.images([image_id.lower() for image_id in asked if UUID.fullmatch(image_id)])
    images, missing = [], []
    for image_id in asked:
        job = jobs.get(image_id.lower())
        if job is None or size not in job.ready:
            missing.append(image_id)
            continue
        url, colour = parts.urls.variant(job, size), job.measured.get("dominant_color")
        images.append(BatchImage(image_id=job.image_id, url=url, size=size, dominant_color=colour))
    return answer(Batch(images=images, requested=len(asked), found=len(images), missing=missing))


async def delete(request: Request) -> Response:
    """Gone for everybody with one commit; then the run is ended and the files are removed."""
    who = authenticated(request)
    image_id = path_id(request, "image_id", image_not_found)
    parts = parts_of(request)
    job = await parts.table.job_of_image(image_id)
    if job is None or job.org_id != who.org_id:
        raise image_not_found()
    if job.user_id != who.user_id:
        await parts.table.note("delete_denied", {"org_id": who.org_id, "user_id": who.user_id}, job)
        raise not_yours()
    deleted = await parts.table.delete(job)
    if deleted is None:
        raise image_not_found()
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(END_RUN_SECONDS):
            await parts.queue.cancel(job.job_id)
        parts.endings.settled(job.job_id)
        removed = await parts.housekeeping.remove_files(deleted)
    log.info("image_deleted", image_id=image_id, job_id=job.job_id, files_removed=removed)
    return answer(Deleted(image_id=image_id, files_removed=removed))


async def direct(request: Request) -> Response:
    job, size = await _image(request)
    return await _serve(request, job, size)


async def stored(request: Request) -> Response:
    """GET /storage/{bucket}/{path}: what the table lists under this very path, never a path by itself."""
    wanted = str(request.path_params["path"])
    image_id, _, rest = wanted.rsplit("/", 1)[-1].partition("_")
    job = await parts_of(request).table.job_of_image(image_id) if UUID.fullmatch(image_id) else None
    size = rest.removesuffix(".webp")
    if job is None or size not in job.ready or wanted != f"{job.storage_bucket}/{job.ready[size]}":
        raise image_not_found()
    return await _serve(request, job, size)


async def _image(request: Request) -> tuple[Job, str]:
    """The image and the variant asked for, if it can be fetched. Raises Problem (404, 422)."""
    image_id = path_id(request, "image_id", image_not_found)
    size = _size(request)
    job = await parts_of(request).table.job_of_image(image_id)
    if job is None:
        raise image_not_found()
    if size in job.ready:
        return job, size
    if size not in {variant.name for variant in job.recipe.variants}:
        raise size_not_available(size)
    if job.status == "failed":
        raise image_not_found()
    raise image_not_ready(READY_IN_SECONDS)


def _size(request: Request) -> str:
    size = request.query_params.get("size", DEFAULT_SIZE)
    if not VARIANT_NAME.fullmatch(size):
        raise validation((("query", "size"), "must be the name of a variant", "size_invalid"))
    return size


async def _serve(request: Request, job: Job, size: str) -> Response:
    made = job.measured["variants"][size]
    served = Served(
        bucket=job.storage_bucket,
        key=job.ready[size],
        size_bytes=made["size_bytes"],
        digest=made["sha256"],
        modified=job.completed_at or job.started_at or job.created_at,
    )
    return await serve(request, parts_of(request).storages[job.storage_backend], served)
