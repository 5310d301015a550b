"""CORS for the configured origins. Other origins get a response without CORS headers."""

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .trace import TRACE_HEADERS

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
ACCEPTED = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Metadata")
EXPOSED = ("Content-Range", "ETag", "Idempotency-Replayed", "Location", "Preference-Applied", "Retry-After")
RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class CrossOrigin(CORSMiddleware):
    """Starlette's decisions, for the one pass over a request instead of a layer around it."""

    def __init__(self, origins: Sequence[str]) -> None:
        super().__init__(
            _unused,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=[*ACCEPTED, *TRACE_HEADERS],
            expose_headers=[*EXPOSED, *TRACE_HEADERS, *RATE_HEADERS],
        )

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a preflight request from an allowed origin; None for any other request."""
        if scope["method"] != "OPTIONS":
            return None
        headers = Headers(scope=scope)
        asks = "origin" in headers and "access-control-request-method" in headers
        return self.preflight_response(headers) if asks and self.is_allowed_origin(headers["origin"]) else None

    def preflight_response(self, request_headers: Headers) -> Response:
        """List what is allowed; the browser decides whether that is enough."""
        headers = super().preflight_response(request_headers).headers
        kept = {name: value for name, value in headers.items() if name.startswith(("access-control-", "vary"))}
        return Response(status_code=204, headers=kept)

    def add_headers(self, origin: bytes | None, message: Message) -> None:
        """Add to a response's start what this origin may do with it, unless it is for any origin."""
        headers = MutableHeaders(scope=message)
        if headers.get("Access-Control-Allow-Origin") == "*":
            return
        text = (origin or b"").decode("latin-1")
        allowed = origin is not None and self.is_allowed_origin(text)
        if allowed:
            headers.update(self.simple_headers)
        if allowed and not self.allow_all_origins:
            self.allow_explicit_origin(headers, text)
        else:
            headers.add_vary_header("Origin")


async def _unused(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError
