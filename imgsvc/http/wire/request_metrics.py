"""Measures every request: count, duration, status. No label contains text from a client."""

from collections.abc import Sequence

from starlette.routing import BaseRoute
from starlette.types import Scope

from ...telemetry.metrics import HttpMetrics

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
UNMATCHED = "unmatched"  # no route: scans of invalid paths all count in one series
EXPECTED = ("internal_error", "storage_full")  # rare and serious: alerts must notice the first one
GONE = 499  # the client disconnected before there was a response


class RequestMetrics:
    """Reads the route and the error from the scope: `route` as Starlette sets it, `problem` ours."""

    def __init__(self, metrics: HttpMetrics, routes: Sequence[BaseRoute]) -> None:
        self._metrics = metrics
        self._routes = routes
        self._templates = {id(route): _template(route) for route in routes}
        for template in self._templates.values():
            for error_type in EXPECTED:
                metrics.expects_error(error_type, template)

    def begin(self) -> None:
        self._metrics.in_progress += 1

    def end(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has ended; 499 if it had no response."""
        self._metrics.in_progress -= 1
        route = scope.get("route")
        endpoint = self._templates.get(id(route)) or _template(route)
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._metrics.request(method, endpoint, status or GONE, seconds)
        if "problem" in scope:
            self._metrics.error(scope["problem"], endpoint)


def _template(route: BaseRoute | None) -> str:
    """The route's path template. A path with a trailing slash counts as the one without."""
    template: str = getattr(route, "path", UNMATCHED)
    return template.rstrip("/") or "/"
