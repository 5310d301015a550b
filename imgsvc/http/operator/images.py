"""Images for the operator: of every organisation."""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ...access.tokens import DEFAULT_ORG, MAX_NAME_CHARACTERS
from ...jobs.answer_model import COMPLETED, AnswerModel, example
from ...jobs.table.listing import ImageFilter
from ...jobs.table.model import Job
from ...jobs.views import MAX_EVENTS, AuditEvent
from ..dashboard.audit_words import words
from ..openapi.operations import by_method, operation
from ..state import state_of
from ..wire.deletion import Deleted, ManyDeleted, ManyToDelete, delete_each, deleted_files
from ..wire.image_list import CURSOR, LISTED, ListedImage, next_of, page_of
from ..wire.image_metadata import DIMENSIONS, ClientMetadata, Dimensions, dimensions
from ..wire.image_patch import CHANGED, PATCH_BODY, ChangedImage, Focal, patched, read_patch
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.list_query import ListQuery
from ..wire.path_ids import path_id
from ..wire.problems import image_not_found
from ..wire.urls import Urls
from ..wire.validation import parsed
from . import auth

READER = "operator"
WITH_OWNER: dict[str, Any] = {**LISTED, "user_id": "alice", "org_id": "default-org"}
SHOWN: dict[str, Any] = {
    "mime_type": "image/jpeg",
    "content_length": 2_411_724,
    "variants": {"medium": DIMENSIONS},
    **CHANGED,
    "events": [
        {
            "event": "completed",
            "created_at": COMPLETED,
            "facts": {"run": 2},
            "words": "All variants were stored.",
        }
    ],
}


class OperatorQuery(ListQuery):
    org: Annotated[
        str | None, Field(min_length=1, max_length=MAX_NAME_CHARACTERS, description="Only images of this organisation.")
    ] = None
    user: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_NAME_CHARACTERS,
            description=f"Only images of this user of `org`, which is `{DEFAULT_ORG}` unless given.",
        ),
    ] = None


class OwnedImage(ListedImage):
    """With its uploader."""

    model_config = example(**WITH_OWNER)

    user_id: str | None
    org_id: str | None


class ToldEvent(AuditEvent):
    """`words`: what happened, as a sentence."""

    words: str


class ShownImage(OwnedImage):
    """With what the list leaves out. `variants` are those that can be fetched, the largest first. `rendering`: those
    that are being rendered again around `focal`, which is null for the centre of attention. `events`: the audit trail
    of its job, newest first.
    """

    model_config = example(**WITH_OWNER, **SHOWN)

    mime_type: str
    content_length: int
    variants: dict[str, Dimensions]
    client_metadata: ClientMetadata
    focal: Focal | None
    rendering: list[str]
    events: list[ToldEvent]


class ChangedOwnedImage(ChangedImage):
    """As its owner sees it after a change, with its uploader."""

    model_config = example(**WITH_OWNER, **CHANGED)

    user_id: str | None
    org_id: str | None


class OwnedImages(AnswerModel):
    """Images, the newest first; `next` as for users."""

    model_config = example(images=[WITH_OWNER], next=CURSOR)

    images: list[OwnedImage]
    next: str | None


@operation(
    "operator_images_list",
    "operator",
    "The images of all users, newest first",
    access="operator",
    query=OperatorQuery,
    answers={200: OwnedImages},
    errors=("overloaded",),
)
async def list_images(request: Request) -> Response:
    """With the filters of users' lists, and by organisation and user. Never public: it names people."""
    await auth.require_signed_in(request)
    query, urls = parsed(request, OperatorQuery), state_of(request).stores.urls
    wanted = wanted_by(query)
    page = await page_of(request, query, wanted, READER)
    images = [owned(job, urls) for job in page.jobs]
    return json_response(OwnedImages(images=images, next=next_of(request, page, wanted, READER)))


@operation(
    "operator_images_image",
    "operator",
    "One image with its owner",
    access="operator",
    answers={200: ShownImage},
    errors=("image_not_found", "method_not_allowed", "overloaded"),
)
async def show(request: Request) -> Response:
    """As in the list, with its variants and what its owner may change. Never public."""
    await auth.require_signed_in(request)
    state = state_of(request)
    job = await _job(request, path_id(request, "image_id", image_not_found))
    waiting, urls = await state.jobs.table.further.waiting_focal(job), state.stores.urls.direct(job)
    recipe = waiting.recipe if waiting else job.recipe
    events = await state.jobs.reports.events(job.job_id, MAX_EVENTS)
    shown = ShownImage.of(
        job,
        urls,
        user_id=job.user_id,
        org_id=job.org_id,
        mime_type=job.mime_type,
        content_length=job.content_length,
        variants={name: dimensions(job.measured, name) for name in urls},
        client_metadata=job.client_metadata,
        focal=Focal.of(recipe.focal),
        rendering=list(dict.fromkeys(one.size for one in recipe.variants)) if waiting else [],
        events=[
            ToldEvent(event=one.kind, created_at=one.created_at, facts=one.facts, words=words(one)) for one in events
        ],
    )
    return json_response(shown)


@operation(
    "operator_images_update",
    "operator",
    "Change an image of any user",
    access="operator_acting",
    body=PATCH_BODY,
    answers={200: ChangedOwnedImage},
    errors=("image_not_found", "not_completed", "method_not_allowed", "overloaded"),
)
async def update(request: Request) -> Response:
    """A JSON merge patch, as its owner may send it."""
    await auth.require_operator(request)
    job = await _job(request, path_id(request, "image_id", image_not_found))
    changed = await patched(request, job, await read_patch(request))
    urls, owner = state_of(request).stores.urls, {"user_id": changed.job.user_id, "org_id": changed.job.org_id}
    return json_response(ChangedOwnedImage.after(changed, urls.direct(changed.job), **owner))


@operation(
    "operator_images_delete",
    "operator",
    "Delete an image of any user",
    access="operator_acting",
    answers={200: Deleted},
    errors=("image_not_found", "method_not_allowed", "overloaded"),
)
async def delete(request: Request) -> Response:
    """Every later request for the image is a 404. A running job is cancelled, and the files are removed."""
    await auth.require_operator(request)
    image_id = path_id(request, "image_id", image_not_found)
    return json_response(Deleted(image_id=image_id, files_removed=await _delete(request, image_id)))


@operation(
    "operator_images_delete_many",
    "operator",
    "Delete several images of any user",
    access="operator_acting",
    body=ManyToDelete,
    answers={200: ManyDeleted},
    errors=("overloaded",),
)
async def delete_many(request: Request) -> Response:
    """The response has the outcome for each, in the given order."""
    await auth.require_operator(request)
    wanted = await json_body(request, ManyToDelete)
    return json_response(await delete_each(wanted.image_ids, lambda image_id: _delete(request, image_id)))


async def _delete(request: Request, image_id: str) -> int:
    return await deleted_files(request, await _job(request, image_id))


async def _job(request: Request, image_id: str) -> Job:
    job = await state_of(request).jobs.table.job_of_image(image_id)
    if job is None:
        raise image_not_found()
    return job


def wanted_by(query: OperatorQuery) -> ImageFilter:
    return query.filter(query.org or (DEFAULT_ORG if query.user else None), query.user)


def owned(job: Job, urls: Urls) -> OwnedImage:
    return OwnedImage.of(job, urls.direct(job), user_id=job.user_id, org_id=job.org_id)


image = by_method(GET=show, PATCH=update, DELETE=delete)
