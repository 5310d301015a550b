"""An image: what it is, and its bytes."""

from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ..jobs.model import Job
from ..parts import parts_of
from ..settings import VARIANT_NAME
from .answers import answer
from .files import Served, serve
from .ids import UUID, path_id
from .jobs import dimensions
from .problems import image_not_found, image_not_ready, size_not_available, validation

DEFAULT_SIZE = "medium"
READY_IN_SECONDS = 2  # what a client is told to wait for an image whose job still runs


class ImageInfo(BaseModel):
    image_id: str
    url: str
    size: str
    metadata: dict[str, Any]


async def info(request: Request) -> Response:
    job, size = await _image(request)
    metadata = {"dominant_color": job.measured.get("dominant_color"), "dimensions": dimensions(job.measured, size)}
    url = parts_of(request).urls.variant(job, size)
    return answer(ImageInfo(image_id=job.image_id, url=url, size=size, metadata=metadata))


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
