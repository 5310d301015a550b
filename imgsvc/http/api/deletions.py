"""Deleting images: one, or up to a hundred in one request."""

from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import PermissionDenied
from ...access.tokens import Identity
from ..openapi.operations import operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.deletion import Deleted, ManyDeleted, ManyToDelete, delete_each, deleted_files
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.problems import image_not_found


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
    return json_response(Deleted(image_id=image_id, files_removed=await _delete(request, who, image_id)))


@operation(
    "images_delete_many",
    "images",
    "Delete several images",
    access="bearer",
    body=ManyToDelete,
    answers={200: ManyDeleted},
    errors=("overloaded",),
)
async def delete_many(request: Request) -> Response:
    """Each image is deleted or refused by itself, as it would be alone; the answer says which, in the given order."""
    who = await authenticated(request)
    wanted = await json_body(request, ManyToDelete)
    return json_response(await delete_each(wanted.image_ids, lambda image_id: _delete(request, who, image_id)))


async def _delete(request: Request, who: Identity, image_id: str) -> int:
    """Returns the number of files. Raises Problem (404), PermissionDenied or AuthorizationUnavailable."""
    state = state_of(request)
    job = await state.jobs.table.job_of_image(image_id)
    if job is None or job.org_id != who.org_id:
        raise image_not_found()
    try:
        await state.access.permissions.require_to_delete(who, own=job.user_id == who.user_id)
    except PermissionDenied:
        await state.access.denials.record("delete_denied", who.org_id, who.user_id, job=job)
        raise
    return await deleted_files(request, job)
