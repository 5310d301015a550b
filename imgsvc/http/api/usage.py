"""GET /api/v1/usage: what a user has stored, and what is left."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import ADMIN, READ, PermissionDenied
from ...access.tokens import Identity
from ...jobs.answer_model import COMPLETED, AnswerModel, example
from ...jobs.table.model import as_text
from ..openapi.operations import operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.json_response import json_response

USER: dict[str, Any] = {"images": 120, "bytes": 48_210_332, "uploads_left": 38, "resets_at": COMPLETED}
ORG: dict[str, Any] = {"images": 5_210, "bytes": 2_031_772_004}


class OrgUsage(AnswerModel):
    """Completed images, and the bytes of their files."""

    images: int
    bytes: int


class UserUsage(OrgUsage):
    """With the uploads that are left in the current window, and its end."""

    uploads_left: int
    resets_at: str


class ByteLimits(AnswerModel):
    """The most bytes that may be stored; 0: no limit."""

    bytes_per_user: int
    bytes_per_org: int


class UsageOf(AnswerModel):
    """`org` is there for its `image:admin` only. `counting` is true while the rows of an older version are counted: the
    figures are too low then, and no quota of bytes refuses anything.
    """

    model_config = example(user=USER, org=ORG, limits={"bytes_per_user": 0, "bytes_per_org": 0})

    user: UserUsage
    org: OrgUsage | None = None
    limits: ByteLimits
    counting: bool = False


@operation(
    "usage_usage",
    "images",
    "What the user has stored, and what is left",
    access="bearer",
    answers={200: UsageOf},
    errors=("permission_denied", "overloaded"),
)
async def usage(request: Request) -> Response:
    """Takes no statement that grows with the number of images."""
    who, state = await authenticated(request), state_of(request)
    try:
        await state.access.permissions.require(who, READ)
    except PermissionDenied:
        await state.access.denials.record("usage_denied", who.org_id, who.user_id, permission=READ)
        raise
    found = await state.jobs.table.limits.usage(who.org_id, who.user_id)
    quota = state.intake.allowance.tightened(who.tightening).quota
    standing = await state.rate_limiter.standing(who.org_id, who.user_id, quota)
    answer: dict[str, Any] = {
        "user": UserUsage(
            images=found.user.images,
            bytes=found.user.bytes,
            uploads_left=standing.remaining,
            resets_at=as_text(standing.reset),
        ),
        "limits": ByteLimits(bytes_per_user=quota.byte_limits.per_user, bytes_per_org=quota.byte_limits.per_org),
    }
    if await _is_admin(request, who):
        answer["org"] = OrgUsage(images=found.org.images, bytes=found.org.bytes)
    if found.counting:
        answer["counting"] = True
    return json_response(UsageOf(**answer), only_set=True)


async def _is_admin(request: Request, who: Identity) -> bool:
    """Raises AuthorizationUnavailable."""
    try:
        await state_of(request).access.permissions.require(who, ADMIN)
    except PermissionDenied:
        return False
    return True
