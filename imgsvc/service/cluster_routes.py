"""The routes by which machines of a cluster read sources and put variants."""

from starlette.routing import Route

from ..http.api import render
from ..http.wire.request_lines import RENDER

RENDER_ROUTES = [
    Route(RENDER + "{token}", render.variants, methods=["PUT"]),
    Route(RENDER + "{token}/source", render.source),
    Route(RENDER + "{token}/{variant}", render.variant, methods=["PUT"]),
    Route(RENDER + "{token}/{variant}", render.address, methods=["POST"]),
]
