"""A page of a list of images: its items, and the cursor of the next one."""

from typing import Any, Self

from starlette.requests import Request

from ...jobs.answer_model import CREATED, IMAGE_ID, JOB_ID, THUMBHASH, AnswerModel, example
from ...jobs.table.listing import ImageFilter, Page
from ...jobs.table.model import Job, Status
from ...telemetry.access_metrics import PageEnd
from ..state import state_of
from .image_metadata import Size, placeholders
from .list_query import ListQuery, context_of, position

LISTED: dict[str, Any] = {
    "image_id": IMAGE_ID,
    "job_id": JOB_ID,
    "status": "completed",
    "bucket": "holiday",
    "original_filename": "IMG_0042.jpg",
    "created_at": CREATED,
    "dominant_color": "#4a7fa5",
    "thumbhash": THUMBHASH,
    "dimensions": {"width": 3000, "height": 2000},
    "size_bytes": 1_310_472,
    "ready": ["thumbnail", "medium"],
    "urls": {"medium": f"/api/v1/images/{IMAGE_ID}/direct?size=medium"},
    "expires_at": None,
}
CURSOR = "Vt2S1pVQ3sX1m0Jw0c0n0m8bqkq3yYt2m1W0f5Zq8sY1cF3k"


class ListedImage(AnswerModel):
    """`dimensions` are those of the upload, as it is shown. `size_bytes` counts what is stored: all variants that are
    ready. Both, `dominant_color` and `thumbhash` are null until they are known.
    """

    model_config = example(**LISTED)

    image_id: str
    job_id: str
    status: Status
    bucket: str
    original_filename: str | None
    created_at: str
    dominant_color: str | None
    thumbhash: str | None
    dimensions: Size | None
    size_bytes: int
    ready: list[str]
    urls: dict[str, str]
    expires_at: str | None

    @classmethod
    def of(cls, job: Job, urls: dict[str, str], **more: Any) -> Self:
        measured, ready = job.measured, job.ready
        return cls(
            image_id=job.image_id,
            job_id=job.job_id,
            status=job.status,
            bucket=job.storage_bucket,
            original_filename=job.original_filename,
            created_at=job.created_at,
            dimensions=measured.get("original_dimensions"),
            size_bytes=sum(measured["variants"][name]["size_bytes"] for name in ready),
            ready=list(urls),
            urls=urls,
            expires_at=job.expires_at,
            **placeholders(job),
            **more,
        )


class ListedImages(AnswerModel):
    """`next` is the cursor of the next page, null on the last one. A page of rare images may be short, or empty, and
    have a `next`: the search goes on there.
    """

    model_config = example(images=[LISTED], next=CURSOR)

    images: list[ListedImage]
    next: str | None


async def page_of(request: Request, query: ListQuery, wanted: ImageFilter, reader: str) -> Page:
    """The page that the query asks for. Raises Problem (422)."""
    after = position(request, query.after, context_of(reader, wanted))
    page = await state_of(request).jobs.lists.page(wanted, after, query.limit)
    end: PageEnd = "last" if page.next is None else "full" if len(page.jobs) == query.limit else "bounded"
    state_of(request).telemetry.metrics.access.page(end)
    return page


def next_of(request: Request, page: Page, wanted: ImageFilter, reader: str) -> str | None:
    """The cursor behind a page."""
    if page.next is None:
        return None
    cursors = state_of(request).access.cursors
    return cursors.of(page.next.created_at, page.next.image_id, context_of(reader, wanted))
