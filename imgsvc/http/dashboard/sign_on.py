"""Sign-in to the dashboard at an OpenID Connect provider: the way there, and the way back."""

from html import escape

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ...access.people import name_of
from ..openapi.operations import PAGE, Answer, operation
from ..operator.sessions import set_cookie, sign_in
from ..operator.single_sign_on import COOKIE, PENDING_SECONDS, ProviderUnavailable, SignInRefused, SingleSignOn
from ..state import state_of
from ..wire.problems import NO_STORE, Problem
from ..wire.small_page import PAGE_HEADERS, small_page
from .page import sign_in_page

log = structlog.get_logger()

AWAY = "The sign-in provider did not answer. Try again later, or sign in with the operator token."
REFUSED = "The sign-in at the provider did not succeed: try again, or sign in with the operator token."


@operation(
    "dashboard_sign_on_start",
    "operator",
    "Sign in at the provider",
    answers={
        302: Answer("To the provider.", headers=("Location", "Set-Cookie")),
        503: Answer("The sign-in page, which says that the provider is unavailable.", PAGE),
    },
    errors=("not_found",),
)
async def start(request: Request) -> Response:
    """OpenID Connect: authorization code with PKCE. Only where `[operator] oidc_issuer` is set."""
    sign_on = _configured(request)
    try:
        redirect, cookie = await sign_on.begin(request)
    except ProviderUnavailable:
        return sign_in_page(request, 503, NO_STORE, AWAY)
    redirect.headers.update(NO_STORE)
    # Lax: the provider sends the browser back from another site.
    set_cookie(request, redirect, COOKIE, cookie, PENDING_SECONDS, same_site="lax")
    return redirect


@operation(
    "dashboard_sign_on_callback",
    "operator",
    "Back from the provider",
    answers={
        200: Answer("A page that leads to the dashboard, with a session in a cookie.", PAGE, ("Set-Cookie",)),
        400: Answer("The sign-in page: the provider's answer proves nothing.", PAGE),
        403: Answer("A page for a person who may not use the dashboard.", PAGE),
        503: Answer("The sign-in page, which says that the provider is unavailable.", PAGE),
    },
    errors=("not_found",),
)
async def callback(request: Request) -> Response:
    """Each answer of the provider is good once, in the browser that began the sign-in."""
    sign_on = _configured(request)
    client = request.client.host if request.client else ""
    try:
        claims = await sign_on.finish(request)
    except ProviderUnavailable as error:
        log.warning("sign_on_failed", client=client, reason=str(error))
        return sign_in_page(request, 503, NO_STORE, AWAY)
    except SignInRefused as error:
        log.warning("sign_on_refused", client=client, reason=str(error))
        return sign_in_page(request, 400, NO_STORE, REFUSED)
    if not sign_on.allows(claims):
        log.warning("sign_on_not_allowed", client=client, subject=claims["sub"])
        return HTMLResponse(small_page("Not allowed", _not_allowed(name_of(claims))), 403, {**PAGE_HEADERS, **NO_STORE})
    # A redirect would still count as the provider's, and the session's cookie, which is Strict, would not be sent.
    page = small_page("Signed in", '<p>You are signed in. <a href="../../dashboard">To the dashboard</a></p>')
    response = HTMLResponse(page, headers={**PAGE_HEADERS, **NO_STORE, "Refresh": "0; url=../../dashboard"})
    await sign_in(request, response, subject=str(claims["sub"]))
    set_cookie(request, response, COOKIE, "", 0, same_site="lax")
    return response


def _configured(request: Request) -> SingleSignOn:
    sign_on = state_of(request).access.sign_on
    if sign_on is None:
        raise Problem(404, "not_found", "No sign-in provider is configured.")
    return sign_on


def _not_allowed(name: str) -> str:
    return (
        f"<h1>Not allowed</h1><p>The provider signed you in as {escape(name)}, who may not use this dashboard.</p>"
        '<p><a href="../../dashboard/login">To the sign-in page</a></p>'
    )
