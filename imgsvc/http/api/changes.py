"""Changes of a completed image, as a JSON merge patch (RFC 7396): each member that is sent replaces what there is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import PermissionDenied
from ...jobs.answer_model import IMAGE_ID, AnswerModel, example
from ...jobs.table.model import Job
from ..openapi.operations import Body, operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.problems import image_not_found, not_completed

MERGE_PATCH = "application/merge-patch+json"
Part = Annotated[float, Field(ge=0, le=1)]


class Focal(BaseModel):
    """A point, as parts of the width and of the height of the picture as displayed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    x: Part
    y: Part


class ImageChanges(BaseModel):
    """The members to change. Those that are left out stay."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra={"examples": [{"focal": {"x": 0.5, "y": 0.25}}]}
    )

    focal: Annotated[
        Focal | None,
        Field(description="What crops are made around; null: the centre of attention. They get new URLs."),
    ] = None


class ImageChanged(AnswerModel):
    """The image as changed. `rendering`: the variants that are made anew; until then the old ones are served."""

    model_config = example(image_id=IMAGE_ID, focal={"x": 0.5, "y": 0.25}, rendering=["hero"])

    image_id: str
    focal: Focal | None
    rendering: list[str]


@operation(
    "images_change",
    "images",
    "Change an image",
    access="bearer",
    body=(Body(MERGE_PATCH, ImageChanges),),
    answers={200: ImageChanged},
    errors=("permission_denied", "image_not_found", "not_completed", "method_not_allowed", "overloaded"),
)
async def change(request: Request) -> Response:
    """Allowed for its uploader and, where permissions are checked, for an `image:admin` of the organisation.

    The image stays completed. The URL of a variant that was made anew leads to the new one for 30 days.
    """
    job = await _own_image(request)
    changes = await json_body(request, ImageChanges)
    if job.status != "completed":
        raise not_completed(job.status)
    focal = None if job.recipe.focal is None else Focal(x=job.recipe.focal[0], y=job.recipe.focal[1])
    rendering: list[str] = []
    if "focal" in changes.model_fields_set:
        focal, rendering = changes.focal, await _set_focal(request, job, changes.focal)
    return json_response(ImageChanged(image_id=job.image_id, focal=focal, rendering=rendering))


async def _own_image(request: Request) -> Job:
    """The image, if the token may change it. Raises Problem (401, 404), PermissionDenied, or as Permissions."""
    who, state = await authenticated(request), state_of(request)
    job = await state.jobs.table.job_of_image(path_id(request, "image_id", image_not_found))
    if job is None or job.org_id != who.org_id:
        raise image_not_found()
    try:
        await state.access.permissions.require_to_change(who, own=job.user_id == who.user_id)
    except PermissionDenied:
        await state.access.denials.record("change_denied", who.org_id, who.user_id, job=job)
        raise
    return job


async def _set_focal(request: Request, job: Job, focal: Focal | None) -> list[str]:
    rendering = await state_of(request).jobs.focal_point.set(job, (focal.x, focal.y) if focal else None)
    if rendering is None:
        raise image_not_found()  # it was deleted in between
    return rendering
