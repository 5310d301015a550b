"""A page for each error code: what happened, and what to do; and a list of all codes."""

from collections.abc import Iterable
from http import HTTPStatus
from itertools import groupby

from starlette.requests import Request
from starlette.responses import Response

from ..look.components import facts
from ..look.frame import page, root_of
from ..look.html import Html, el
from ..openapi.operations import PAGE, Answer, operation
from ..state import state_of
from ..wire.error_codes import CODES, limit_of
from ..wire.problems import Problem

KEPT = {"Cache-Control": "no-cache"}


@operation(
    "about_error_page",
    "about",
    "What an error code means",
    answers={200: Answer("A page that explains the code.", PAGE, ("Content-Security-Policy",))},
    errors=("not_found",),
)
async def error_page(request: Request) -> Response:
    """The page that the `type` of every error links to."""
    code = str(request.path_params["code"])
    if code not in CODES:
        raise Problem(404, "not_found", "There is no such error code.")
    known = CODES[code]
    limit = limit_of(code, state_of(request).settings)
    words = (
        el("p", el("a", "All error codes", href=f"{root_of(request)}/errors"), class_="crumbs"),
        el("h1", el("code", code)),
        el("h2", "What happened"),
        el("p", known.meaning),
        (el("h2", "The limit"), el("p", limit)) if limit else None,
        el("h2", "What to do"),
        el("p", known.advice),
        facts(("Status", _status(known.status))),
    )
    return await page(request, code, *words, plain=True, headers=KEPT, body_class="reading")


@operation(
    "about_error_list",
    "about",
    "All error codes",
    answers={200: Answer("A page with all codes by their status.", PAGE, ("Content-Security-Policy",))},
)
async def error_list(request: Request) -> Response:
    """Each with what it means, and a link to its page."""
    root = root_of(request)
    ordered = sorted(CODES, key=lambda code: (CODES[code].status, code))
    words = (
        el("h1", "Error codes"),
        el("p", "Every error has one of these codes in its member ", el("code", "code"), "."),
        [_of_status(root, status, codes) for status, codes in groupby(ordered, lambda code: CODES[code].status)],
    )
    return await page(request, "Error codes", *words, plain=True, headers=KEPT, body_class="reading")


def _of_status(root: str, status: int, codes: Iterable[str]) -> Html:
    listed = [
        el("div", el("dt", el("a", el("code", code), href=f"{root}/errors/{code}")), el("dd", CODES[code].meaning))
        for code in codes
    ]
    return el("section", el("h2", _status(status)), el("dl", listed, class_="words"), class_="card")


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
