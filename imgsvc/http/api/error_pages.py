"""A page for each error code: what happened, and what to do."""

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ..openapi.operations import PAGE, Answer, operation
from ..state import state_of
from ..wire.error_codes import CODES, limit_of
from ..wire.problems import Problem
from ..wire.small_page import PAGE_HEADERS, small_page


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
    limit_line = f"<dt>The limit<dd>{escape(limit)}" if limit else ""
    content = (
        f"<h1><code>{escape(code)}</code></h1>"
        f"<dl><dt>What happened<dd>{escape(known.meaning)}{limit_line}<dt>What to do<dd>{escape(known.advice)}"
        f"<dt>Status<dd>{known.status}</dl>"
    )
    return HTMLResponse(small_page(code, content), headers=PAGE_HEADERS)
