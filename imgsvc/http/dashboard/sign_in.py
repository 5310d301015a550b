"""The page to sign in."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from ..look.frame import page, root_of
from ..look.html import Html, el
from ..state import state_of


async def sign_in_page(
    request: Request, status: int = 200, headers: Mapping[str, str] | None = None, notice: str = ""
) -> Response:
    """The page to sign in. `notice` says why a sign-in at the provider did not succeed."""
    card = el(
        "section",
        el("h1", "Sign in to the dashboard", id="title"),
        el("p", notice, class_="notice bad", role="alert") if notice else None,
        _provider(request),
        _form(),
        _where(),
        el("noscript", el("p", "Signing in needs JavaScript.")),
        class_="card",
        aria_labelledby="title",
    )
    return await page(
        request,
        "Sign in",
        card,
        signed_in=False,
        scripts=("login.js",),
        styles=("login.css",),
        status=status,
        headers=headers,
        body_class="login reading",
    )


def _provider(request: Request) -> Html | None:
    provider = state_of(request).access.sign_on
    if provider is None:
        return None
    address = f"{root_of(request)}/dashboard/oidc/start"
    return el("p", el("a", f"Sign in with {provider.provider_name}", href=address, class_="button"), class_="sign-on")


def _form() -> Html:
    """Enabled by its script: before that, Enter would send the token in an address."""
    return el(
        "form",
        el(
            "p",
            el("label", "Operator token", for_="token"),
            el(
                "input",
                id="token",
                type="password",
                autocomplete="current-password",
                spellcheck="false",
                required=True,
                disabled=True,
                aria_describedby="said where",
            ),
            class_="field",
        ),
        el("p", el("button", "Sign in", type="submit", id="enter", class_="main", disabled=True)),
        el("p", id="said", role="alert"),
        id="form",
        method="post",
    )


def _where() -> Html:
    command, token, file = el("code", "imgsvc dashboard"), el("code", "OPERATOR_TOKEN"), el("code", "operator_token")
    return el(
        "div",
        el(
            "p", "Alternatively, ", el("code", "./run imgsvc dashboard"), " (or ", command,
            ", also in its container) prints a link that signs you in.",
        ),
        el(
            "p", "The token is the value of ", token, "; without one, the text in the file ",
            file, " in the data folder.", class_="muted",
        ),
        id="where",
    )  # fmt: skip
