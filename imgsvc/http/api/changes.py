"""PATCH /api/v1/images/{image_id}: the client's metadata, when the image expires, and what crops are made around."""

from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import PermissionDenied
from ..openapi.operations import operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.image_patch import PATCH_BODY, ChangedImage, patched, read_patch
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.problems import image_not_found


@operation(
    "images_update",
    "images",
    "Change an image",
    access="bearer",
    body=PATCH_BODY,
    answers={200: ChangedImage},
    errors=("permission_denied", "image_not_found", "not_completed", "method_not_allowed", "overloaded"),
)
async def update(request: Request) -> Response:
    """A JSON merge patch (RFC 7396): what it does not name stays. Allowed for the uploader (`image:update` where
    permissions are checked) and, with `image:admin` besides, for the images of the organisation. The job must have been
    completed. What caches keep already keeps its age there. Variants that crop are rendered again around a new `focal`;
    the URL of one that was replaced leads to the new one for 30 days.
    """
    who = await authenticated(request)
    image_id = path_id(request, "image_id", image_not_found)
    state = state_of(request)
    job = await state.jobs.table.job_of_image(image_id)
    if job is None or job.org_id != who.org_id:
        raise image_not_found()
    try:
        await state.access.permissions.require_to_update(who, own=job.user_id == who.user_id)
    except PermissionDenied as denied:
        await state.access.denials.record(
            "update_denied", who.org_id, who.user_id, job=job, permission=denied.permission
        )
        raise
    changed = await patched(request, job, await read_patch(request))
    return json_response(ChangedImage.after(changed, state.stores.urls.direct(changed.job)))
