"""Images: their metadata and URLs."""

from functools import cached_property
from typing import Annotated, cast

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from ...jobs.answer_model import IMAGE_ID, THUMBHASH, AnswerModel, example
from ...jobs.table.model import Job
from ...storage.base import StorageNotConfigured
from ...storage.keys import IS_UUID
from ..openapi.operations import operation
from ..state import state_of
from ..wire.formats import Formats, mark_negotiated
from ..wire.image_metadata import (
    CLIENT_EXAMPLE,
    DIMENSIONS,
    EXAMPLE,
    Brief,
    ClientMetadata,
    PublicMetadata,
    dimensions,
    placeholders,
    public_metadata,
)
from ..wire.image_patch import Focal
from ..wire.json_response import json_list_response, json_response, ready_json_response
from ..wire.markup import EXAMPLE as MARKUP_EXAMPLE
from ..wire.markup import Markup, markup
from ..wire.path_ids import path_id
from ..wire.problems import image_not_found, image_not_ready, too_many_images
from ..wire.urls import Urls
from ..wire.validation import parsed
from .signed_access import TOKEN_OF_ORG, is_hidden, reader_of
from .variants import NOT_THERE, OUT_OF_REACH, READY_IN_SECONDS, FormatQuery, SizeQuery, find_variant

MAX_BATCH = 50
ALL_URLS = "all URLs"  # the name in Job.derived
MOST_KEPT = 3  # bytes of JSON for each character of a row: the memory of rows counts with no more


KEY = f"/storage/holiday/processed/medium/{IMAGE_ID}_medium.webp"


class ImageInfo(AnswerModel):
    """One variant of an image."""

    model_config = example(
        image_id=IMAGE_ID,
        url=KEY,
        size="medium",
        focal=None,
        metadata={"dominant_color": "#4a7fa5", "thumbhash": THUMBHASH, "dimensions": DIMENSIONS},
    )

    image_id: str
    url: str
    size: str
    metadata: Brief
    focal: Focal | None


@operation(
    "images_info",
    "images",
    "One variant of an image",
    query=FormatQuery,
    answers={200: ImageInfo},
    errors=(*NOT_THERE, "size_not_available", "format_not_available", "method_not_allowed", *OUT_OF_REACH),
    private=TOKEN_OF_ORG,
)
async def info(request: Request) -> Response:
    mark_negotiated(request)
    job, size, variant = await find_variant(request, await reader_of(request))
    metadata = Brief(**placeholders(job), dimensions=dimensions(job.measured, variant))
    url = await state_of(request).stores.urls.variant(job, variant)
    return json_response(
        ImageInfo(image_id=job.image_id, url=url, size=size, metadata=metadata, focal=Focal.of(job.recipe.focal))
    )


class AllUrls(AnswerModel):
    """Every variant of an image."""

    model_config = example(
        image_id=IMAGE_ID,
        urls={"medium": KEY},
        formats={"avif": {"medium": KEY.replace(".webp", ".avif")}},
        focal=None,
        metadata=EXAMPLE,
        client_metadata=CLIENT_EXAMPLE,
        markup=MARKUP_EXAMPLE,
    )

    image_id: str
    urls: dict[str, str]
    formats: Formats
    focal: Focal | None
    metadata: PublicMetadata
    client_metadata: ClientMetadata
    markup: Markup


class BatchImage(AnswerModel):
    image_id: str
    url: str
    size: str
    dominant_color: str | None
    thumbhash: str | None


class Batch(AnswerModel):
    """In the requested order; `missing` lists IDs that are unknown, deleted, malformed or without this size."""

    model_config = example(
        images=[
            {"image_id": IMAGE_ID, "url": KEY, "size": "medium", "dominant_color": "#4a7fa5", "thumbhash": THUMBHASH}
        ],
        requested=2,
        found=1,
        missing=["6dfb1ae8-4a5c-4b7e-8b38-0f6d5c2f7a10"],
    )

    images: list[BatchImage]
    requested: int
    found: int
    missing: list[str]


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
    return ready_json_response(job.derived.get(ALL_URLS) or await all_urls(state_of(request).stores.urls, job))


async def all_urls(urls: Urls, job: Job) -> bytes:
    """Every variant, as JSON: kept with the row where the URLs are the same for all readers at all times."""
    lasting, usual, formats = urls.are_lasting(job), await urls.of(job), await urls.formats(job)
    found = AllUrls(
        image_id=job.image_id,
        urls=usual,
        formats=formats,
        focal=Focal.of(job.recipe.focal),
        metadata=cast(PublicMetadata, public_metadata(job)),
        client_metadata=job.client_metadata,
        markup=markup(job, usual, formats),
    )
    text = found.model_dump_json(by_alias=True).encode()
    if lasting and len(text) <= MOST_KEPT * job.text_length:
        job.derived[ALL_URLS] = text
    return text


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

    @cached_property
    def well_formed(self) -> list[str]:
        """The IDs that may be those of images, in lower case as generated."""
        return [image_id.lower() for image_id in self.image_ids if IS_UUID.fullmatch(image_id)]


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
    jobs, urls = await state.jobs.table.images(query.well_formed), state.stores.urls
    entries, missing, kept = [], [], _kept(size)
    for image_id in asked:
        job = jobs.get(image_id) or jobs.get(image_id.lower())
        if job is None or is_hidden(job, who) or size not in job.ready:
            missing.append(image_id)
            continue
        try:
            entries.append(job.derived.get(kept) or await batch_entry(urls, job, size))
        except StorageNotConfigured:
            missing.append(image_id)
    return json_list_response(Batch(images=[], requested=len(asked), found=len(entries), missing=missing), entries)


def _kept(size: str) -> str:
    return f"batch {size}"


async def batch_entry(urls: Urls, job: Job, size: str) -> bytes:
    """The image in a batch, as JSON: kept with the row where its URL is the same for all readers at all times."""
    lasting, url = urls.are_lasting(job), await urls.variant(job, size)
    entry = BatchImage(image_id=job.image_id, url=url, size=size, **placeholders(job))
    text = entry.model_dump_json().encode()
    if lasting:
        job.derived[_kept(size)] = text
    return text
