"""Deleting several images in one request: its body and its answer, for users and for the operator."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from ...access.permissions import PermissionDenied
from ...jobs.answer_model import IMAGE_ID, AnswerModel, example
from ...jobs.table.model import Job
from ...storage.keys import IS_UUID
from ..state import state_of
from .problems import Problem, image_not_found

MAX_DELETED = 100


class Deleted(AnswerModel):
    """The image is gone; `files_removed` counts the variants that were in storage."""

    model_config = example(image_id=IMAGE_ID, deleted=True, files_removed=4)

    image_id: str
    deleted: bool = True
    files_removed: int


class ManyToDelete(BaseModel):
    """The images to delete."""

    model_config = ConfigDict(
        defer_build=True, extra="forbid", json_schema_extra={"examples": [{"image_ids": [IMAGE_ID]}]}
    )

    image_ids: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Field(min_length=1, max_length=MAX_DELETED, description="Their IDs."),
    ]


class OneDeleted(AnswerModel):
    """`code` says why an image was not deleted: `image_not_found` or `permission_denied`."""

    image_id: str
    deleted: bool
    files_removed: int
    code: str | None


class ManyDeleted(AnswerModel):
    """The outcome for each image, in the given order."""

    model_config = example(images=[{"image_id": IMAGE_ID, "deleted": True, "files_removed": 4, "code": None}])

    images: list[OneDeleted]


async def deleted_files(request: Request, job: Job) -> int:
    """Delete the image; returns the number of its files. Raises Problem (404) if it was deleted meanwhile."""
    removed = await state_of(request).jobs.deletion.delete(job)
    if removed is None:
        raise image_not_found()
    return removed


async def delete_each(image_ids: Sequence[str], delete: Callable[[str], Awaitable[int]]) -> ManyDeleted:
    """Delete one after the other; `delete` may raise Problem or PermissionDenied. A malformed ID is not found."""
    return ManyDeleted(images=[await _outcome(image_id, delete) for image_id in image_ids])


async def _outcome(image_id: str, delete: Callable[[str], Awaitable[int]]) -> OneDeleted:
    code: str | None = None
    removed = 0
    try:
        if not IS_UUID.fullmatch(image_id):
            raise image_not_found()
        removed = await delete(image_id.lower())
    except Problem as problem:
        code = problem.code
    except PermissionDenied:
        code = "permission_denied"
    return OneDeleted(image_id=image_id, deleted=code is None, files_removed=removed, code=code)
