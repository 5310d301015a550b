"""Sign-in to the dashboard at an OpenID Connect provider: the way there, and the way back."""

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ...access.people import name_of
from ..look.frame import page
from ..look.html import el
from ..openapi.operations import PAGE, Answer, operation
from ..operator.sessions import set_cookie, sign_in
from ..operator.single_sign_on import COOKIE, PENDING_SECONDS, ProviderUnavailable, SignInRefused, SingleSignOn
from ..state import state_of
from ..wire.problems import NO_STORE, Problem
from .sign_in import sign_in_page

log = structlog.get_logger()
HOME = "../../dashboard"

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
        return await sign_in_page(request, 503, NO_STORE, AWAY)
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
        return await sign_in_page(request, 503, NO_STORE, AWAY)
    except SignInRefused as error:
        log.warning("sign_on_refused", client=client, reason=str(error))
        return await sign_in_page(request, 400, NO_STORE, REFUSED)
    if not sign_on.allows(claims):
        log.warning("sign_on_not_allowed", client=client, subject=claims["sub"])
        return await _not_allowed(request, name_of(claims))
    # A redirect would still count as the provider's, and the session's cookie, which is Strict, would not be sent.
    words = el("p", "You are signed in. ", el("a", "To the dashboard", href=HOME))
    headers = {**NO_STORE, "Refresh": f"0; url={HOME}"}
    response = await page(request, "Signed in", words, plain=True, headers=headers, body_class="reading")
    await sign_in(request, response, subject=str(claims["sub"]))
    set_cookie(request, response, COOKIE, "", 0, same_site="lax")
    return response


def _configured(request: Request) -> SingleSignOn:
    sign_on = state_of(request).access.sign_on
    if sign_on is None:
        raise Problem(404, "not_found", "No sign-in provider is configured.")
    return sign_on


async def _not_allowed(request: Request, name: str) -> Response:
    words = (
        el("h1", "Not allowed"),
        el("p", f"The provider signed you in as {name}, who may not use this dashboard."),
        el("p", el("a", "To the sign-in page", href=f"{HOME}/login")),
    )
    return await page(request, "Not allowed", *words, plain=True, status=403, headers=NO_STORE, body_class="reading")
