"""The bearer token of a request (RFC 6750 section 2.1)."""

import structlog
from starlette.requests import Request

from ...access.issued_secrets import KEY_PREFIX, TICKET_PREFIX
from ...access.tokens import Identity, TokenExpired, TokenInvalid, TokenTooLong
from ...jobs.table.credentials import UploadTicket
from ..state import state_of
from .problems import not_authenticated, token_too_long

log = structlog.get_logger()


def bearer_token(request: Request) -> str:
    """The token as sent; empty if there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def verified(request: Request, token: str) -> Identity:
    """The identity of a JWT or an API key. Raises TokenInvalid, KeysUnavailable or sqlite3.Error."""
    access, metrics = state_of(request).access, state_of(request).telemetry.metrics.access
    if not token.startswith(KEY_PREFIX):
        return await access.tokens.verify(token)
    key = await access.credentials.key(token)
    metrics.key_used(accepted=key is not None)
    if key is None:
        raise TokenInvalid("there is no such API key, or it was revoked")
    return key.identity


async def ticket_of(request: Request) -> UploadTicket | None:
    """The upload ticket that the request carries as a bearer token. Raises Problem (401) if it is none of ours."""
    token = bearer_token(request)
    if not token.startswith(TICKET_PREFIX):
        return None
    ticket = await state_of(request).access.credentials.ticket(token)
    if ticket is None:
        raise not_authenticated("token_invalid")
    return ticket


async def authenticated(request: Request) -> Identity:
    """The identity of the request's token. Raises Problem (401), KeysUnavailable or PersonBeingErased."""
    token = bearer_token(request)
    if not token:
        raise not_authenticated("token_missing")
    try:
        identity = await verified(request, token)
    except TokenInvalid as error:
        code = "token_expired" if isinstance(error, TokenExpired) else "token_invalid"
        log.info("token_refused", code=code, reason=str(error))
        raise token_too_long(error) if isinstance(error, TokenTooLong) else not_authenticated(code) from None
    if identity.key_id is not None:
        state_of(request).jobs.table.erasures.require_none(identity.org_id, identity.user_id)
    return identity
