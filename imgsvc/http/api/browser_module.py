"""GET /static/imgsvc.js: the ES module with which pages of any origin upload."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from ..openapi.operations import Answer, Content, operation
from ..wire.cached_response import CachedBody
from ..wire.conditional import EMBEDDABLE

SCRIPT = "text/javascript"
# A module is fetched with CORS, without credentials: any page may have it, whichever origins the API allows.
FOR_ANY_PAGE = {**EMBEDDABLE, "Access-Control-Allow-Origin": "*"}
MODULE = CachedBody(  # read at import, before there is an event loop to block
    files(__package__).joinpath("static", "imgsvc.js").read_bytes(), SCRIPT, FOR_ANY_PAGE
)
HEADERS = ("ETag", "Cache-Control", "Cross-Origin-Resource-Policy", "Access-Control-Allow-Origin")


@operation(
    "browser_module",
    "about",
    "The module for browsers",
    answers={
        200: Answer("The module.", Content(SCRIPT, example="export class Uploader { … }"), HEADERS),
        304: Answer("Not modified.", headers=HEADERS),
    },
)
async def module(request: Request) -> Response:
    """An ES module that uploads, follows the jobs and draws placeholders. It may be copied. Revalidated each time."""
    return MODULE.answer(request)
