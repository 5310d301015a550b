"""The frame of all pages: head, header with navigation, footer, and the policy that they are sent with."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from ..state import state_of
from .html import Child, Html, el, join

# `data:` is for the placeholders of pictures; a filter is a form that is sent to this service.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:{pictures}; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Of the pages that explain something: without scripts and forms.
PLAIN_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
NAVIGATION = {  # key: words, address. Pages of the operator
    "overview": ("Overview", "dashboard"),
    "images": ("Pictures", "dashboard/images"),
    "jobs": ("Jobs", "dashboard/jobs"),
    "care": ("Care", "dashboard/care"),
}
PUBLIC = {"dashboard": ("Dashboard", "dashboard")}
FOOTER = (("API", "docs"), ("Error codes", "errors"), ("Health", "api/v1/health"))


def root_of(request: Request) -> str:
    """The service's root relative to the requested path, so that addresses hold behind any path prefix."""
    return "/".join([".."] * (str(request.scope["path"]).count("/") - 1)) or "."


async def page(
    request: Request,
    title: str,
    *content: Child,
    here: str = "",
    signed_in: bool = True,
    plain: bool = False,
    scripts: tuple[str, ...] = (),
    styles: tuple[str, ...] = (),
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    body_class: str | None = None,
) -> Response:
    """A whole page. `here` is its key in NAVIGATION; without `signed_in` it links no other page of the operator.

    `plain` pages are public, and run no script. `scripts` (modules) and `styles` are names of static files,
    added to those of every page.
    """
    policy = PLAIN_POLICY if plain else POLICY.format(pictures=await _pictures_from(request) if signed_in else "")
    sent = {"Content-Security-Policy": policy, "Cache-Control": "no-store", **(headers or {})}
    name, root = state_of(request).settings.service.name, root_of(request)
    head = _head(root, f"{title} · {name}" if title else name, () if plain else ("frame.js", *scripts), styles)
    body = el(
        "body",
        el("a", "Skip to the content", href="#content", class_="skip"),
        _header(request, name, here, signed_in and not plain),
        el("main", *content, id="content", tabindex="-1"),
        el("p", id="announcements", class_="unseen", role="status"),
        _footer(root),
        class_=body_class,
    )
    whole = join(Html("<!doctype html>"), el("html", head, body, lang="en"))
    return Response(whole, status, sent, media_type="text/html")


async def _pictures_from(request: Request) -> str:
    """The object storage, where the service redirects to; empty: pictures come from here."""
    origin = await state_of(request).stores.urls.foreign_origin()
    return f" {origin}" if origin else ""


def _head(root: str, title: str, scripts: tuple[str, ...], styles: tuple[str, ...]) -> Html:
    static = f"{root}/dashboard/static"
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="robots", content="noindex"),
        el("title", title),
        el("link", rel="icon", href=f"{static}/icon.svg", type="image/svg+xml"),
        [el("link", rel="stylesheet", href=f"{static}/{name}") for name in ("theme.css", "base.css", *styles)],
        [el("script", type="module", src=f"{static}/{name}") for name in scripts],
    )


def _header(request: Request, name: str, here: str, signed_in: bool) -> Html:
    root = root_of(request)
    known = {"overview": NAVIGATION["overview"]} if here == "overview" else PUBLIC
    links = [
        el("a", words, href=f"{root}/{address}", aria_current="page" if key == here else None)
        for key, (words, address) in (NAVIGATION if signed_in else known).items()
    ]
    account = (
        el("button", "Sign out", type="button", class_="quiet", data_action="sign-out")
        if signed_in
        else el("a", "Sign in", href=f"{root}/dashboard/login", class_="button quiet")
    )
    return el(
        "header",
        el(
            "a",
            el("img", src=f"{root}/dashboard/static/icon.svg", alt="", width=28, height=28),
            el("span", name, class_="name"),
            href=f"{root}/dashboard",
            class_="brand",
        ),
        el("nav", links, aria_label="Dashboard"),
        account,
        class_="frame",
    )


def _footer(root: str) -> Html:
    links = [el("a", words, href=f"{root}/{address}") for words, address in FOOTER]
    return el("footer", el("nav", links, aria_label="Documentation"), class_="frame")
