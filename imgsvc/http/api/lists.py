"""GET /api/v1/images: the images of a user, or of an organisation for its admins, newest first."""

from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import ADMIN, READ, PermissionDenied
from ...access.tokens import Identity
from ..openapi.operations import operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.image_list import ListedImage, ListedImages, next_of, page_of
from ..wire.json_response import json_response
from ..wire.list_query import ListQuery
from ..wire.validation import parsed


class OwnQuery(ListQuery):
    scope: Annotated[
        Literal["own", "org"],
        Field(description="`org`: the images of the whole organisation, for its `image:admin`."),
    ] = "own"


@operation(
    "images_list",
    "images",
    "Images, newest first",
    access="bearer",
    query=OwnQuery,
    answers={200: ListedImages},
    errors=("permission_denied", "overloaded"),
)
async def list_images(request: Request) -> Response:
    """The caller's own, or those of the organisation. All filters can be combined. Pages are stable: an image that
    comes or goes moves no other to another page.
    """
    who = await authenticated(request)
    await _permitted(request, who, READ)
    query = parsed(request, OwnQuery)
    if query.scope == "org":
        await _permitted(request, who, ADMIN)
    wanted = query.filter(who.org_id, None if query.scope == "org" else who.user_id)
    reader = f"user {query.scope}"
    page = await page_of(request, query, wanted, reader)
    urls = state_of(request).stores.urls
    images = [ListedImage.of(job, urls.direct(job)) for job in page.jobs]
    return json_response(ListedImages(images=images, next=next_of(request, page, wanted, reader)))


async def _permitted(request: Request, who: Identity, permission: str) -> None:
    """Check the permission. Raises PermissionDenied, after recording it, or AuthorizationUnavailable."""
    access = state_of(request).access
    try:
        await access.permissions.require(who, permission)
    except PermissionDenied:
        await access.denials.record("list_denied", who.org_id, who.user_id, permission=permission)
        raise
