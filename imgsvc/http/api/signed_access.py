"""Private reading (`[storage] signed_urls`): who gets URLs, and what a signed one opens.

A signed URL is looked at before the image is looked up, so that nobody learns from a refusal whether there is one. A
token neither helps nor hurts there: who holds the URL may use it, and what is answered depends on the URL alone.
"""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request

from ...access.permissions import READ, PermissionDenied
from ...access.signing import EXPIRES, SignatureExpired, SignatureInvalid
from ...access.tokens import Identity
from ...jobs.table.model import Job
from ..openapi.operations import Private
from ..state import state_of
from ..wire.problems import signature_expired, signature_invalid, signature_required
from ..wire.validation import Query
from .uploads import authenticated


class SignedQuery(Query):
    """What stands in a signed URL, for the API document, which knows the signature as a way to get in."""

    expires: Annotated[
        str, Field(pattern=f"^{EXPIRES.pattern}$", description="In seconds since 1970.", examples=["1772370000"])
    ]


TOKEN_OF_ORG = Private("bearer", ("permission_denied",))
SIGNED_URL = Private("signature", query=SignedQuery)


async def reader_of(request: Request) -> Identity | None:
    """Who asks for URLs, and may; None where everybody does. Raises Problem (401) or what Permissions and Tokens do."""
    state = state_of(request)
    if state.stores.urls.signatures is None:
        return None
    who = await authenticated(request)
    try:
        await state.access.permissions.require(who, READ)
    except PermissionDenied as denied:
        await state.access.denials.record("read_denied", who.org_id, who.user_id, permission=denied.permission)
        raise
    return who


def is_hidden(job: Job, who: Identity | None) -> bool:
    """Whether there is no such job for this reader."""
    return who is not None and job.org_id != who.org_id


def verify_signed_url(request: Request, default_size: str = "") -> int | None:
    """How many seconds this URL is good for; None: for ever. `default_size` where `size` is part of it.

    Raises Problem (403).
    """
    signatures = state_of(request).stores.urls.signatures
    if signatures is None:
        return None
    given = request.query_params
    expires, signature = given.getlist("expires"), given.getlist("signature")
    if not (expires and signature):
        raise signature_required()
    sizes = (given.getlist("size") or [default_size]) if default_size else [""]
    if max(len(expires), len(signature), len(sizes)) > 1:
        raise signature_invalid()
    try:
        return signatures.seconds_left(_path(request), sizes[0], expires[0], signature[0])
    except SignatureInvalid:
        raise signature_invalid() from None
    except SignatureExpired:
        raise signature_expired() from None


def _path(request: Request) -> str:
    """What the service itself sees, decoded once; the parameters of a route lack what its pattern leaves out."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", ""))
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path
