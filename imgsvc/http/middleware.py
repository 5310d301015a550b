"""Around every request: its trace id, the headers that every answer carries, one log line, and no crash."""

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import as_problem

log = structlog.get_logger()
TRACE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
QUIET = ("/api/v1/health/live",)  # asked every few seconds by whoever watches the container


class Tracing:
    """Gives the request its id, and answers for what no handler caught."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["trace_id"] = trace_id = _trace_id(Headers(scope=scope))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(trace_id=trace_id)
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
        except Exception as error:
            if status:
                raise  # half an answer is out: only closing the connection tells the client
            await (await as_problem(Request(scope), error))(scope, receive, send_traced)
        finally:
            if scope["path"] not in QUIET:
                milliseconds = round(1000 * (time.perf_counter() - began), 1)
                log.info("request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)


def _trace_id(headers: Headers) -> str:
    for name in ("X-Trace-ID", "X-Correlation-ID"):
        value = headers.get(name, "")
        if TRACE_ID.fullmatch(value):
            return value
    return str(uuid.uuid4())
