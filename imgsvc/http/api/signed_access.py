"""Private reading (`[storage] signed_urls`): which tokens get URLs, and what a signed URL allows.

The signature is checked before the image is looked up, so that a refusal does not reveal whether the image exists. A
token makes no difference there: the response depends on the URL alone.
"""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request

from ...access.jwk import KeysUnavailable
from ...access.permissions import READ, AuthorizationUnavailable, PermissionDenied
from ...access.signing import EXPIRES, SignatureExpired, SignatureInvalid
from ...access.tokens import Identity, TokenInvalid
from ...jobs.table.model import Job
from ...storage.base import StorageError
from ..openapi.operations import Private
from ..state import state_of
from ..wire.bearer import authenticated, bearer_token, ticket_of, verified
from ..wire.image_metadata import placeholders
from ..wire.problems import Problem, signature_expired, signature_invalid, signature_required
from ..wire.validation import Query


class SignedQuery(Query):
    """The signature parameters, for requests and for the API document."""

    expires: Annotated[
        str, Field(pattern=f"^{EXPIRES.pattern}$", description="In seconds since 1970.", examples=["1772370000"])
    ]


TOKEN_OF_ORG = Private("bearer", ("permission_denied",))
SIGNED_URL = Private("signature", query=SignedQuery)


async def reader_of(request: Request) -> Identity | None:
    """The authenticated reader; None if reading is public. Raises Problem (401), or as Permissions and Tokens do."""
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


async def urls_of_ready(request: Request, job: Job) -> dict[str, str]:
    """{variant: URL} of what is ready; empty where this client may not read, or the storage is not configured."""
    return dict((await shown_of(request, job))["urls"])


async def shown_of(request: Request, job: Job) -> dict[str, Any]:
    """`urls` as `urls_of_ready`, `dominant_color` and `thumbhash`: a blur of a private image is not for all either."""
    state = state_of(request)
    if state.stores.urls.signatures is not None and not await _may_read(request, job):
        return {"urls": {}, "dominant_color": None, "thumbhash": None}
    try:
        urls = await state.stores.urls.of(job)
    except StorageError:
        urls = {}
    return {"urls": urls, **placeholders(job)}


async def _may_read(request: Request, job: Job) -> bool:
    """Whether the request carries a token that may read this job's image. Any other counts as no token."""
    access = state_of(request).access
    try:
        if (ticket := await ticket_of(request)) is not None:
            return job.ticket_id == ticket.ticket_id
        who = await verified(request, bearer_token(request))
        if job.org_id == who.org_id:
            await access.permissions.require(who, READ)
            return True
    except (TokenInvalid, KeysUnavailable, PermissionDenied, AuthorizationUnavailable, Problem):
        pass
    return False


def is_hidden(job: Job, who: Identity | None) -> bool:
    """Whether the job must look non-existent to this reader."""
    return who is not None and job.org_id != who.org_id


def verify_signed_url(request: Request, default_size: str = "") -> int | None:
    """Check a signed URL; returns the seconds until it expires, None if reading is public. `default_size` replaces a
    missing `size`.

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
    """The path as the service sees it, decoded once. The route's parameters lack the fixed parts of its pattern."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", ""))
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path
