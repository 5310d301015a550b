"""Authentication of the operator: for reading the dashboard and metrics, and for changes.

The token is a bearer token (RFC 6750) or the password of Basic (RFC 7617); a session is a cookie. A loopback address
proves nothing, since a reverse proxy has one, so it grants nothing.
"""

import base64
import binascii
import re
from typing import Literal
from urllib.parse import quote, urlsplit

import structlog
from starlette.requests import Request

from ..state import state_of
from ..wire.problems import Problem

log = structlog.get_logger()

COOKIE = "imgsvc_session"
ORIGIN = re.compile(r"https?://([^/?#\\@\s]+)")  # RFC 6454 section 7: no path, no user
CUSTOM_HEADER = "X-Requested-With"  # a form or an image on another page can't send it
AuthMethod = Literal["bearer", "basic", "cookie", "public"]


async def require_reader(request: Request) -> AuthMethod:
    """Authenticate a read-only operator request; returns the method used, or `public`. Raises Problem (401, 429)."""
    way = await _presented(request)
    if way is None and state_of(request).settings.operator.public:
        return "public"
    if way is None:
        raise _refusal(request, "operator_required", "This requires the operator's token.")
    return way


async def require_signed_in(request: Request) -> AuthMethod:
    """Authenticate a read-only operator request that `[operator] public` does not open. Raises Problem (401, 429)."""
    way = await _presented(request)
    if way is None:
        raise _refusal(request, "operator_required", "This requires the operator's token.")
    return way


async def require_operator(request: Request) -> AuthMethod:
    """Authenticate an operator request that changes something, with the CSRF check for cookie and Basic.

    Raises Problem (401, 403, 429).
    """
    way = await _presented(request)
    if way is None:
        raise _refusal(request, "operator_required", "This requires the operator's token.")
    if way != "bearer" and not (same_origin(request) and CUSTOM_HEADER in request.headers):
        # A browser adds cookies and Basic credentials to requests that another site's page makes it send.
        raise _cross_site(request)
    return way


async def is_operator(request: Request) -> bool:
    """For public endpoints that show the operator more. A user's JWT is not an attempt; nothing is refused."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.count(".") == 2:
        return False
    try:
        return await _presented(request) is not None
    except Problem:
        return False


async def checked(request: Request, secret: str, *, code: bool = False) -> None:
    """Check a token or a one-use code. Raises Problem: 401 if it is wrong, 429 after too many wrong ones.

    A correct one is accepted at once, whatever else comes from its address: behind a proxy all clients share an
    address, and an attacker must not lock out the operator or Prometheus. 256 bits cannot be guessed.
    """
    operators, attempts = state_of(request).access.operators, state_of(request).access.throttle
    if operators.redeem_code(secret) if code else operators.knows(secret):
        return
    address = request.client.host if request.client else ""
    attempts.refused(address)
    log.warning("operator_refused", client=address, path=quote(request.scope["path"]), by="code" if code else "token")
    wait = attempts.wait(address)
    if wait:
        await attempts.slow_down()
        raise _too_many(wait)
    what = "code is wrong, expired or already used" if code else "token is wrong"
    raise _refusal(request, "operator_refused", f"The operator's {what}.")


def same_origin(request: Request) -> bool:
    """Whether the browser reports that a page of this service sent the request.

    The scheme is not compared but left to Sec-Fetch-Site: behind a proxy that ends TLS only the browser knows it.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    if len(request.headers.getlist("Origin")) > 1:
        return False
    origin = ORIGIN.fullmatch(request.headers.get("Origin", "").lower())
    public = urlsplit(request.app.state.public_url).netloc.lower()
    return origin is not None and origin[1] in (request.headers.get("Host", "").lower(), public)


def from_elsewhere(request: Request) -> bool:
    """Whether another site's page sent the request. Programs send no Origin."""
    return ("Origin" in request.headers or "Sec-Fetch-Site" in request.headers) and not same_origin(request)


def refuse_elsewhere(request: Request) -> None:
    """Refuse a request that another site's page sent. Raises Problem (403)."""
    if from_elsewhere(request):
        raise _cross_site(request)


def wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("Accept", "")


async def _presented(request: Request) -> AuthMethod | None:
    """The request's valid credential; None if it has none, or a session that has ended."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        await checked(request, value.strip())
        return "bearer"
    if scheme.lower() == "basic":
        await checked(request, _password(value))
        return "basic"
    if state_of(request).access.sessions.get(request.cookies.get(COOKIE, "")):
        return "cookie"
    return None


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _refusal(request: Request, code: str, what: str) -> Problem:
    """The 401. A browser is not offered Basic: it would open its own dialog instead of the page's field."""
    detail = (
        f"{what} Send it as a bearer token or as the password of Basic authentication, or open the link that "
        "`imgsvc dashboard` prints. It is OPERATOR_TOKEN, or in the file operator_token in the data folder."
    )
    browser = wants_page(request) or COOKIE in request.cookies or "Sec-Fetch-Site" in request.headers
    challenge = 'Bearer realm="imgsvc operator"' + ("" if browser else ', Basic realm="imgsvc operator"')
    return Problem(401, code, detail, headers={"WWW-Authenticate": challenge})


def _too_many(wait: float) -> Problem:
    detail = "Too many wrong operator tokens came from this address. Wait a little."
    return Problem(429, "operator_attempts", detail, headers={"Retry-After": str(int(wait) + 1)})


def _cross_site(request: Request) -> Problem:
    client = request.client.host if request.client else ""
    log.warning("cross_site_refused", client=client, path=quote(request.scope["path"]))
    detail = (
        "With a session or Basic credentials this requires an Origin of this service and the header X-Requested-With; "
        "programs should send a bearer token. Behind a proxy that changes Host, set PUBLIC_URL."
    )
    return Problem(403, "cross_site", detail)
