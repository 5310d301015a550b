"""Changing an image (RFC 7396, application/merge-patch+json), for its owner and for the operator."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from ...imaging.geometry import Point
from ...jobs.answer_model import COMPLETED, example
from ...jobs.table.model import Job
from ...jobs.table.patches import Patched
from ..openapi.operations import Body
from ..state import state_of
from .image_list import LISTED, ListedImage
from .image_metadata import CLIENT_EXAMPLE, ClientMetadata
from .json_body import json_body
from .moments import Moment, check_future, whole
from .problems import image_not_found
from .upload_fields import METADATA, METADATA_BYTES, field_value

MERGE_PATCH = "application/merge-patch+json"
MAX_BYTES = 2 * METADATA_BYTES  # a patch may remove one half and add another
CHANGED: dict[str, Any] = {
    "client_metadata": CLIENT_EXAMPLE,
    "focal": {"x": 0.5, "y": 0.25},
    "rendering": ["thumbnail"],
}
Part = Annotated[float, Field(ge=0, le=1)]


class Focal(BaseModel):
    """A point, as parts of the width and of the height of the picture as displayed."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    x: Part
    y: Part

    @classmethod
    def of(cls, point: Point | None) -> Self | None:
        return None if point is None else cls(x=point[0], y=point[1])


class ImagePatch(BaseModel):
    """The members to change; absent ones stay as they are."""

    model_config = ConfigDict(
        defer_build=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "client_metadata": {"title": "At the sea", "draft": None},
                    "expires_at": None,
                    "focal": {"x": 0.5, "y": 0.25},
                }
            ]
        },
    )

    client_metadata: Annotated[
        dict[str, Any] | None,
        Field(description="Merged into the client's object: null removes a member, or in its place all of them."),
    ] = None
    expires_at: Annotated[
        Moment | None, Field(description="When the image expires; null: never.", examples=[COMPLETED])
    ] = None
    focal: Annotated[
        Focal | None,
        Field(description="What crops are made around; null: the centre of attention. They get new URLs."),
    ] = None


class ChangedImage(ListedImage):
    """The image as it is now, with the client's own object. `rendering`: the variants that are being rendered again
    around `focal`; until then the old ones are served.
    """

    model_config = example(**LISTED, **CHANGED)

    client_metadata: ClientMetadata
    focal: Focal | None
    rendering: list[str]

    @classmethod
    def after(cls, patched: Patched, urls: dict[str, str], **more: Any) -> Self:
        job, focal = patched.job, patched.focal
        return cls.of(
            job,
            urls,
            client_metadata=job.client_metadata,
            focal=Focal.of(focal),
            rendering=patched.rendering,
            **more,
        )


PATCH_BODY = (Body(MERGE_PATCH, ImagePatch),)


async def read_patch(request: Request) -> dict[str, Any]:
    """The members of the request. Raises Problem (422)."""
    given = await json_body(request, ImagePatch, MAX_BYTES)
    changes = {name: getattr(given, name) for name in given.model_fields_set}
    if (moment := changes.get("expires_at")) is not None:
        check_future("body", moment)
        changes["expires_at"] = whole(moment)
    if given.focal is not None:
        changes["focal"] = (given.focal.x, given.focal.y)
    return changes


async def patched(request: Request, job: Job, changes: dict[str, Any]) -> Patched:
    """Apply the changes, all of them or none. Raises Problem (404, 422) or NotCompleted (409)."""
    changed = await state_of(request).jobs.changes.make(job, changes, _check)
    if changed is None:
        raise image_not_found()
    return changed


def _check(metadata: dict[str, Any]) -> None:
    """The rules of an upload, for the merged object. Raises Problem (422)."""
    field_value(METADATA, json.dumps(metadata), "client_metadata")
