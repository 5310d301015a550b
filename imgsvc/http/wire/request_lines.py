"""The line of each request in the log."""

import json.encoder
from datetime import UTC, datetime
from urllib.parse import quote

import structlog
from starlette.types import Scope

from ...access.issued_secrets import redacted
from ...telemetry.logs import OUTPUT

log = structlog.get_logger()
RENDER = "/api/v1/render/"  # what follows opens a run: it is not logged
USERS = "/api/v1/operator/users/"  # what follows names a person, whom the request erases
HIDDEN = ((RENDER, "/render/…"), (USERS, "/users/…"))
QUIET = ("/api/v1/health/live",)  # called every few seconds by container health checks
text = json.encoder.encode_basestring_ascii


class RequestLines:
    """`level`: the least level of the log."""

    def __init__(self, level: str) -> None:
        self._wanted = level in ("DEBUG", "INFO")

    def write(self, scope: Scope, status: int, seconds: float, trace_id: str) -> None:
        """Log a request that has ended; status 0: without a response."""
        path = scope["path"]
        if not self._wanted or path in QUIET:
            return
        shown = next((shown for start, shown in HIDDEN if path.startswith(start)), None) or quote(path)
        milliseconds = round(1000 * seconds, 1)
        client = (scope.get("client") or ("",))[0]
        output = OUTPUT.json_lines
        if output is None:
            method = scope["method"]
            log.info("request", method=method, path=shown, status=status, ms=milliseconds, client=client)
            return
        # What structlog's processors make of the same event, without a chain of calls for each request.
        moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        output.write_soon(
            f'{{"method": {text(scope["method"])}, "path": {text(redacted(shown))}, "status": {status}, '
            f'"ms": {milliseconds}, "client": {text(client)}, "event": "request", "trace_id": {text(trace_id)}, '
            f'"level": "info", "timestamp": "{moment}"}}\n'
        )
