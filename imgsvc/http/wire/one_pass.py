"""What is done for every request, in one pass: what would be nine layers of middleware are calls, one after the other.

Before the handler: the target and the client's address are put right (`proxy_headers`), an unread body gets its drain
(`drain`), the trace ID is chosen (`trace`), a preflight request is answered (`cross_origin`), and a foreign host is
refused (`proxy_headers`). Around it: errors become responses (`error_mapping`). On the way out: the memory for
responses (`answer_memory`), CORS, the trace ID and the headers of every response. Afterwards: the metrics
(`request_metrics`) and the request line (`request_lines`).

CORS headers are added to the refusal of a host and to errors too, so that browsers can read those.
"""

import time

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...lazy_dataclass import dataclass
from .answer_memory import COUNTED, AnswerMemory, no_room
from .cross_origin import CrossOrigin
from .drain import drained, has_body
from .error_mapping import as_problem
from .formats import NEGOTIATED, varied
from .head import Head, head_of
from .proxy_headers import AllowedHosts, ForwardedHeaders, take_absolute_target
from .request_lines import RequestLines
from .request_metrics import RequestMetrics
from .trace import TraceIds, standard_headers


@dataclass(frozen=True, slots=True)
class Concerns:
    """The parts of the pass. `cross_origin` is None where no other origin may call."""

    forwarded: ForwardedHeaders
    hosts: AllowedHosts
    memory: AnswerMemory
    metrics: RequestMetrics
    lines: RequestLines
    cross_origin: CrossOrigin | None = None


class OnePass:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, concerns: Concerns) -> None:
        self._app = app
        self._concerns = concerns
        self._trace_ids = TraceIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        take_absolute_target(scope)
        self._concerns.forwarded.apply(scope)
        head = head_of(scope)
        if has_body(head):
            receive, send = drained(scope, receive, send)
        trace_id = scope["trace_id"] = self._trace_ids.of(head)
        bound = structlog.contextvars.bind_contextvars(trace_id=trace_id)
        exchange = _Exchange(scope, head, send, self._concerns)
        self._concerns.metrics.begin()
        began = time.perf_counter()
        try:
            await exchange.run(self._app, receive)
        except Exception as error:
            if not isinstance(error, ClientDisconnect):
                scope["problem"] = "internal_error"  # in the middle of a response: no error could be sent
            raise
        finally:
            seconds = time.perf_counter() - began
            self._concerns.metrics.end(scope, exchange.status, seconds)
            self._concerns.lines.write(scope, exchange.status, seconds, trace_id)
            structlog.contextvars.reset_contextvars(**bound)


class _Exchange:
    """One request and its response. `status` is 0 until the response begins."""

    __slots__ = ("_concerns", "_head", "_refused", "_scope", "_send", "_start", "status")

    def __init__(self, scope: Scope, head: Head, send: Send, concerns: Concerns) -> None:
        self.status = 0
        self._scope = scope
        self._head = head
        self._send = send
        self._concerns = concerns
        self._start: Message | None = None  # of the response, sent with its first bytes: until then it may be replaced
        self._refused = False

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        cors = self._concerns.cross_origin
        early = cors.preflight(self._scope) if cors else None
        if early is not None:
            await early(self._scope, receive, self._send_last)
            return
        try:
            if problem := self._concerns.hosts.refused(self._scope, self._head):
                await problem.response(Request(self._scope))(self._scope, receive, self._send_ready)
            else:
                await app(self._scope, receive, self._send_counted)
        except Exception as error:
            if self.status:
                raise  # half of the response is sent: only closing the connection shows the client that it failed
            await (await as_problem(Request(self._scope), error))(self._scope, receive, self._send_ready)

    async def _send_counted(self, message: Message) -> None:
        """Send a handler's message within the memory for responses; a 503 replaces a response that does not fit."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._refused:
            return
        memory = self._concerns.memory
        size = 0 if COUNTED in self._scope else len(message.get("body", b""))
        if self._start is not None:
            if size and not memory.has_room(size):
                self._refused = True
                await no_room(memory).response(Request(self._scope))(self._scope, _nothing, self._send_ready)
                return
            start, self._start = self._start, None
            await self._send_ready(start)
        if not size:
            await self._send(message)
            return
        memory.held_bytes += size
        try:
            await self._send(message)
        finally:
            memory.release(size)

    async def _send_ready(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._concerns.cross_origin:
            self._concerns.cross_origin.add_headers(self._head.get(b"origin"), message)
        await self._send_last(message)

    async def _send_last(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if NEGOTIATED in self._scope:
                message["headers"] = varied(message["headers"])
            message["headers"] = [*message["headers"], *standard_headers(message["headers"], self._scope["trace_id"])]
        await self._send(message)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
