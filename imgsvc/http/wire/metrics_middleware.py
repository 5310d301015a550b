"""Measures every request: count, duration, status. No label contains text from a client."""

import time
from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...telemetry.metrics import HttpMetrics

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
UNMATCHED = "unmatched"  # no route: scans of invalid paths all count in one series
EXPECTED = ("internal_error", "storage_full")  # rare and serious: alerts must notice the first one
GONE = 499  # the client disconnected before there was a response


class RequestMetrics:
    """Reads the route and the error from the scope: `route` is Starlette's, `problem` ours."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self._metrics = metrics
        for route in routes:
            for error_type in EXPECTED:
                metrics.expects_error(error_type, _template(route))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), GONE

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_progress += 1
        try:
            await self.app(scope, receive, send_noted)
        except Exception as error:
            if not isinstance(error, ClientDisconnect):
                scope["problem"] = "internal_error"  # in the middle of a response: no error could be sent
            raise
        finally:
            self._metrics.in_progress -= 1
            self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = _template(scope.get("route"))
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._metrics.request(method, endpoint, str(status), seconds)
        if "problem" in scope:
            self._metrics.error(scope["problem"], endpoint)


def _template(route: BaseRoute | None) -> str:
    """The route's path template. A path with a trailing slash counts as the one without."""
    template: str = getattr(route, "path", UNMATCHED)
    return template.rstrip("/") or "/"
