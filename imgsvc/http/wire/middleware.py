"""Middleware for every request: trace ID, standard headers, one log line, and errors that no handler caught.

Three layers, because CORS, which is between them, must also add its headers to the response to such an error.
"""

import re
import time
import uuid
from urllib.parse import quote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .error_mapping import as_problem

log = structlog.get_logger()
TRACE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",  # images say cross-origin
}
QUIET = ("/api/v1/health/live",)  # called every few seconds by container health checks


class Tracing:
    """Assigns the trace ID."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["trace_id"] = trace_id = _trace_id(Headers(scope=scope))
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            await self._traced(scope, receive, send, trace_id)

    async def _traced(self, scope: Scope, receive: Receive, send: Send, trace_id: str) -> None:
        began, status = time.perf_counter(), 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Trace-ID"] = headers["X-Correlation-ID"] = trace_id
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_traced)
        finally:
            if scope["path"] not in QUIET:
                milliseconds = round(1000 * (time.perf_counter() - began), 1)
                client = (scope.get("client") or ("",))[0]
                log.info(
                    "request",
                    method=scope["method"],
                    path=quote(scope["path"]),
                    status=status,
                    ms=milliseconds,
                    client=client,
                )


class CrossOrigin(CORSMiddleware):
    """CORS for the configured origins. Other origins get a response without CORS headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.is_allowed_origin(Headers(scope=scope).get("Origin", "")):
            await super().__call__(scope, receive, send)
            return

        async def send_varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).add_vary_header("Origin")
            await send(message)

        await self.app(scope, receive, send_varying)

    def preflight_response(self, request_headers: Headers) -> Response:
        """List what is allowed; the browser decides whether that is enough."""
        headers = super().preflight_response(request_headers).headers
        kept = {name: value for name, value in headers.items() if name.startswith(("access-control-", "vary"))}
        return Response(status_code=204, headers=kept)


class CaughtErrors:
    """Answers requests whose handler raised an unexpected exception."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except Exception as error:
            if begun:
                raise  # half of the response is sent: only closing the connection shows the client that it failed
            await (await as_problem(Request(scope), error))(scope, receive, send)


def _trace_id(headers: Headers) -> str:
    for name in ("X-Trace-ID", "X-Correlation-ID"):
        value = headers.get(name, "")
        if TRACE_ID.fullmatch(value):
            return value
    return str(uuid.uuid4())
