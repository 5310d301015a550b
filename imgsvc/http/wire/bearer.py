"""The bearer token of a request (RFC 6750 section 2.1)."""

import structlog
from starlette.requests import Request

from ...access.tokens import Identity, TokenExpired, TokenInvalid, TokenTooLong
from ..state import state_of
from .problems import not_authenticated, token_too_long

log = structlog.get_logger()


def bearer_token(request: Request) -> str:
    """The token as sent; empty if there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def authenticated(request: Request) -> Identity:
    """The identity of the request's token. Raises Problem (401) or KeysUnavailable."""
    token = bearer_token(request)
    if not token:
        raise not_authenticated("token_missing")
    try:
        return await state_of(request).access.tokens.verify(token)
    except TokenInvalid as error:
        code = "token_expired" if isinstance(error, TokenExpired) else "token_invalid"
        log.info("token_refused", code=code, reason=str(error))
        raise token_too_long(error) if isinstance(error, TokenTooLong) else not_authenticated(code) from None
