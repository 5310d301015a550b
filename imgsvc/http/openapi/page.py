"""GET /docs: Swagger UI from an installed package. It loads nothing from other servers and has no inline script."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ...storage.base import IMMUTABLE
from ..wire.cached_response import CachedBody
from ..wire.problems import Problem
from .operations import ASSET_ANSWERS, PAGE, Answer, operation

OURS = Path(__file__).parent / "static"
SWAGGER_UI = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
STATIC = {"docs.css": "text/css", "docs.js": "text/javascript"}
# Swagger UI shows its own images as data: and a call's response as blob:; its styles are set by script.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Assets:
    """The page's files: a closed list, read in a thread at the first request, and kept."""

    def __init__(self, service_name: str) -> None:
        self.service_name = service_name
        self._reading = anyio.Lock()
        self._held: Mapping[str, CachedBody] = {}

    async def held(self) -> Mapping[str, CachedBody]:
        """{name: bytes}"""
        async with self._reading:
            if not self._held:
                self._held = await anyio.to_thread.run_sync(_read)
        return self._held


def _read() -> dict[str, CachedBody]:
    from openapi_ui_bundles.swagger_ui import static_path

    found = {name: (Path(static_path) / name, kind) for name, kind in SWAGGER_UI.items()}
    found |= {name: (OURS / name, kind) for name, kind in STATIC.items()}
    return {name: CachedBody(path.read_bytes(), kind) for name, (path, kind) in found.items()}


@operation(
    "docs_docs", "about", "The API as a page", answers={200: Answer("Swagger UI.", PAGE, ("Content-Security-Policy",))}
)
async def docs(request: Request) -> Response:
    """Shows `/openapi.json` and tries every call from the browser; it needs no internet."""
    kept: Assets = request.app.state.assets
    held = await kept.held()
    slash = request.url.path.endswith("/")
    folder, above = ("", "../") if slash else ("docs/", "")
    address = {name: f"{folder}{name}?v={held[name].digest[:16]}" for name in held}
    name, look = escape(kept.service_name), f"{above or './'}dashboard/static"
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<meta name=color-scheme content='light dark'>"
        f"<title>{name}: API</title><link rel=icon href='{look}/icon.svg' type='image/svg+xml'>"
        f"<link rel=stylesheet href='{address['swagger-ui.css']}'><link rel=stylesheet href='{look}/theme.css'>"
        f"<link rel=stylesheet href='{address['docs.css']}'>"
        f"<header class=docs-head><a class=brand href='{above}dashboard'>"
        f"<img src='{look}/icon.svg' alt='' width=28 height=28>{name}</a><h1>API documentation</h1>"
        f"<a href='{above}errors'>Error codes</a><a href='{above}dashboard'>Dashboard</a></header>"
        f"<main id=docs data-document='{above}openapi.json'></main>"
        f"<script src='{address['swagger-ui-bundle.js']}'></script><script src='{address['docs.js']}'></script></html>"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})


@operation(
    "docs_asset",
    "about",
    "A part of the documentation page",
    answers=ASSET_ANSWERS,
)
async def asset(request: Request) -> Response:
    kept: Assets = request.app.state.assets
    held = (await kept.held()).get(str(request.path_params["asset"]))
    if held is None:
        raise Problem(404, "not_found", "There is no such part of the page.")
    versioned = request.query_params.get("v") == held.digest[:16]
    return held.answer(request, IMMUTABLE if versioned else "no-cache")
