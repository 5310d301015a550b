"""Hypercorn as an HTTP/1.1 server with limits: HTTP/2 is refused, and no client is waited for without a time limit.

All internal parts of Hypercorn that are replaced or relied on are here. The replacements and their reasons:
- `StrictHead`: h11 checks the size of a head only while it is incomplete (python-hyper/h11#182), and accepts a bare LF
  (since python-hyper/h11#115), Content-Length beside Transfer-Encoding (python-hyper/h11#90) and any version: a proxy
  may read such a head differently (RFC 9112 sections 2.2 and 6.3).
- `Http1`: Hypercorn changes to HTTP/2 on request, which goes past a proxy that checks paths, keeps answers in memory
  for a client whose window is 0, and bounds resets only by a number of requests (pgjones/hypercorn#146): a proxy speaks
  it for us. A WebSocket would be refused without a response. A head and a small body are two writes.
  It permits the body of `Expect: 100-continue` before the application has looked at the request (no issue found).
- `Connection`: Hypercorn's hands a whole body to the transport, and keeps the socket of a client that has left until
  the keep-alive time is over (no issue found for either). It closes while a client sends on, whose system may then drop
  the response that it has (RFC 9112 section 9.6). It leaves TLS to the event loop: see `tls_session`.
  It makes and cancels a task for each request, to limit the wait for the next: see `idle_timer`. A connection that has
  ended stays in memory, with its TLS, until a collection of cycles, which comes after hundreds (no issue found).
- `HttpServer`: Hypercorn has no deadline for a client that does not read (a `write_timeout` was proposed and not taken,
  pgjones/hypercorn#262). Its stop waits for a client that does not read (with TLS it fails instead,
  pgjones/hypercorn#202), and on asyncio's own loop, from Python 3.12 on, for requests without an end
  (pgjones/hypercorn#308).

`tests/service/test_hypercorn_fixes.py` shows for each that the plain part misbehaves, and fails once it does not.
"""

import asyncio
import os
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, cast

import h11
import structlog
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp

from ..http.wire.drain import CLIENT
from .idle_timer import IdleTimer
from .tls_session import TlsSession

log = structlog.get_logger()

TRIED_WITH = ("0.18.0",)  # versions of Hypercorn with which all tests have passed

PIECE_BYTES = 256 * 1024  # written to the transport at a time, which keeps no copy of it
TLS_PIECE_BYTES = 64 * 1024  # encrypted at a time, once the kernel has room
COPIED_BYTES = 16 * 1024  # of a body that is joined with its head, so that both are sent in one write
LINGER_SECONDS = 2.0  # for a client that sends on after its answer; a reset would take the answer from it
READ_BYTES = 64 * 1024
LOOK_SECONDS = 1.0  # between two checks of the clients that are waited for
STALLED_SECONDS = 2.0  # without a byte received, before a client may be dropped in favour of others
ABORT_SECONDS = 1.0  # for handlers to end once their connections are gone
BYTES_ACKED_AT = 120  # of tcpi_bytes_acked in Linux's struct tcp_info
TCP_INFO_BYTES = 256

HEAD_END = re.compile(rb"\n\r?\n")
BARE_LF = re.compile(rb"(?<!\r)\n")
VERSION = re.compile(rb"[^\r\n]* HTTP/1\.[01]\r\n")
LENGTH = re.compile(rb"\ncontent-length[ \t]*:", re.IGNORECASE)
ENCODING = re.compile(rb"\ntransfer-encoding[ \t]*:", re.IGNORECASE)


def warn_if_untried() -> None:
    """Log a warning when the installed Hypercorn is a version that these fixes were not tried with."""
    installed = version("hypercorn")
    if installed not in TRIED_WITH:
        log.warning(
            "hypercorn_untried",
            installed=installed,
            tried=", ".join(TRIED_WITH),
            effect="replaced parts of it may not fit this version: run the tests, or install one that was tried",
        )


class StrictHead(h11.Connection):
    """An h11 server connection that refuses heads which a proxy before it may read differently, and large ones."""

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head_bytes)
        self._max_head_bytes = max_head_bytes

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Always false, since Hypercorn would answer at once; `Http1.permit_body` answers."""
        return False

    def next_event(self) -> Any:
        """Like h11's, but for one empty line before a request, which is ignored (RFC 9112, 2.2): some clients send one
        behind a body. Raises RemoteProtocolError.
        """
        if self.their_state is h11.IDLE:
            if self.trailing_data[0].startswith(b"\r\n"):
                self._receive_buffer.maybe_extract_at_most(2)
            _check_head(self.trailing_data[0], self._max_head_bytes)
        return super().next_event()


def _check_head(received: bytes, max_bytes: int) -> None:
    if received.startswith(b"PRI * HTTP/2"):
        raise h11.RemoteProtocolError("HTTP/2 is not spoken here", error_status_hint=400)
    end = HEAD_END.search(received)
    if end is None:
        return  # h11 limits the size of an incomplete head
    head = received[: end.end()]
    if len(head) > max_bytes:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
    if BARE_LF.search(head) or not VERSION.match(head) or (LENGTH.search(head) and ENCODING.search(head)):
        raise h11.RemoteProtocolError("the head is malformed", error_status_hint=400)


class Http1(H11Protocol):
    """Hypercorn's HTTP/1.1 without upgrades: a request that asks for one is answered as if it had not."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connection = StrictHead(self.config.h11_max_incomplete_size)
        self._head = b""

    @property
    def is_permission_awaited(self) -> bool:
        """Whether the client holds back the body until it is permitted (`Expect: 100-continue`)."""
        return bool(cast(StrictHead, self.connection).client_is_waiting_for_100_continue)

    async def permit_body(self) -> None:
        """Send the 100, if it is awaited."""
        if self.is_permission_awaited:
            headers = self.config.response_headers("h11")
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers, reason=b"Continue"))

    @property
    def is_still_received(self) -> bool:
        """Whether more of a request may come that has been answered: its body, or the rest of a malformed head."""
        return self.connection.their_state in (h11.SEND_BODY, h11.ERROR)

    async def _send_h11_event(self, event: Any) -> None:
        """Keep the head until the first bytes of the body: nothing is left in the transport for a second write."""
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            return
        head, self._head = self._head, b""
        if head and len(data) > COPIED_BYTES:
            await self.send(RawData(data=head))
            head = b""
        if head or data:
            await self.send(RawData(data=head + data))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Neither `Upgrade: h2c` (a tunnel past a proxy that checks paths) nor HTTP/2 from the first byte."""

    async def _create_stream(self, request: h11.Request) -> None:
        kept = [(name, value) for name, value in request.headers if name.lower() != b"upgrade"]
        if len(kept) < len(request.headers):
            request = h11.Request(
                method=request.method, headers=kept, target=request.target, http_version=request.http_version
            )
        await super()._create_stream(request)


@dataclass(frozen=True, slots=True)
class Patience:
    """The limits for slow clients: time without a byte received, and a minimum rate over each such time."""

    idle_seconds: float
    min_bytes_per_second: int


@dataclass(slots=True)
class _Progress:
    """What a waiting client has received: at the start of the current window, and when it last received anything."""

    window_began: float
    window_bytes: int
    last_seconds: float
    last_bytes: int


class Connection(TCPServer):
    """One connection. It is in `waiting` while bytes of a response wait for its client."""

    def __init__(self, *arguments: Any, waiting: "set[Connection]", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(*arguments)
        self._waiting = waiting
        self._left = False
        self.idle_timer = IdleTimer(self.config.keep_alive_timeout, self.context.terminated.is_set)
        self.idle_task = cast(Any, self.idle_timer)
        self._lingering: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._raw: socket.socket = self.writer.get_extra_info("socket")
        self._tls = TlsSession(tls) if tls else None
        self.writer.transport.set_write_buffer_limits(high=0)  # a handler goes on once the kernel has all

    async def run(self) -> None:
        try:
            tls = self._tls is not None
            client = parse_socket_addr(self._raw.family, self._raw.getpeername())
            server = parse_socket_addr(self._raw.family, self._raw.getsockname())
            async with TaskGroup(self.loop) as group:
                self._task_group = group
                state = ConnectionState({CLIENT: self})
                protocol = Http1(
                    self.app, self.config, self.context, group, state, tls, client, server, self.protocol_send
                )
                self.protocol = cast(Any, protocol)  # instead of Hypercorn's wrapper, which changes to HTTP/2
                await self.idle_task.restart(cast(Any, group), self._idle_timeout)
                await self._read_data()
                self._left = True
                await self.idle_task.stop()
        except OSError:
            pass
        finally:
            await self._close()
            self._break_cycles()

    def _break_cycles(self) -> None:
        """Let the memory be freed now."""
        self.protocol = cast(Any, None)
        if (error := self.reader.exception()) is not None:
            error.__traceback__ = None  # of frames that refer to this connection

    async def _idle_timeout(self) -> None:
        self._end_tls()
        await asyncio.shield(self._initiate_server_close())

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated) and self._left:
            return  # a wait for the next request would keep the socket
        if isinstance(event, Closed) and self._http1.is_still_received and not (self._left or self.gone):
            self._linger()
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                for piece in _pieces(event.data, TLS_PIECE_BYTES if self._tls else PIECE_BYTES):
                    await self._write(piece)
            except (ConnectionError, RuntimeError, ssl.SSLError):
                await self.protocol.handle(Closed())

    async def _write(self, piece: bytes | memoryview) -> None:
        """Write, and wait until the kernel has taken it: of an unread answer little is held here."""
        if self._tls is None:
            self.writer.write(piece)
        else:
            if len(piece) > COPIED_BYTES:
                await self.takes_more()  # before there is an encrypted copy
            self.writer.writelines(self._tls.encrypted(piece))
        if self.writer.transport.get_write_buffer_size() or self.gone:
            with self._waited_for():
                await self.writer.drain()

    def _end_tls(self) -> None:
        if self._tls is not None and not self.gone:
            with suppress(OSError, RuntimeError):
                self.writer.write(self._tls.end())

    def _linger(self) -> None:
        """End our side, and drop what still comes, for LINGER_SECONDS at most (RFC 9112 section 9.6)."""
        if self._lingering is None:
            self._end_tls()
            with suppress(OSError, RuntimeError):
                self.writer.write_eof()
            self._lingering = self.loop.call_later(LINGER_SECONDS, self.writer.transport.close)

    async def _read_data(self) -> None:
        while not (self.reader.at_eof() or (self._tls is not None and self._tls.ended)):
            try:
                data = await self.reader.read(READ_BYTES)
                if self._lingering is not None:
                    continue
                if self._tls is not None and data:
                    data = await self._decrypted(self._tls, data)
                    if not data:
                        continue
            except OSError:  # such as ssl.SSLError
                break
            await self.protocol.handle(RawData(data))
            data = b""  # not kept while the next is waited for
        await self.protocol.handle(Closed())

    async def _decrypted(self, tls: TlsSession, data: bytes) -> bytes:
        try:
            return tls.decrypted(data)
        finally:
            if (reply := tls.to_send()) and not self.gone:
                self.writer.write(reply)
                with self._waited_for():  # else one that asks for new keys again and again would fill the memory
                    await self.writer.drain()

    async def _close(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self._end_tls()
        with self._waited_for():
            await super()._close()

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        self._waiting.add(self)
        try:
            yield
        finally:
            self._waiting.discard(self)

    @property
    def _http1(self) -> Http1:
        return cast(Http1, self.protocol)

    @property
    def is_permission_awaited(self) -> bool:
        """Whether the client holds back the body until it is permitted (`Expect: 100-continue`)."""
        return self._http1.is_permission_awaited

    async def permit_body(self) -> None:
        """Let the client send its body."""
        await self._http1.permit_body()

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""
        return bool(self.writer.transport.is_closing())

    async def takes_more(self) -> None:
        """Wait until the kernel has room for more or the client is gone, so that nothing is held in memory."""
        if self.gone or _is_writable(self._raw.fileno()):
            return
        try:
            descriptor = os.dup(self._raw.fileno())  # the event loop does not allow watching the transport's own
        except OSError:
            return
        room = self._room = self.loop.create_future()
        self.loop.add_writer(descriptor, self._wake)
        try:
            with self._waited_for():
                await room
        finally:
            self.loop.remove_writer(descriptor)
            os.close(descriptor)

    def taken_bytes(self) -> int:
        """The bytes that the client's system has confirmed; more may wait in user space and the kernel."""
        with suppress(OSError, ValueError, struct.error, AttributeError):  # ValueError: it was closed meanwhile
            found = self._raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            return int(struct.unpack_from("=Q", found, BYTES_ACKED_AT)[0])
        return -self.writer.transport.get_write_buffer_size()  # not Linux: progress as far as it is visible

    def abort(self) -> None:
        """Drop the connection and the bytes that wait for its client."""
        self.writer.transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _is_writable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _pieces(data: bytes | memoryview, size: int) -> Iterator[bytes | memoryview]:
    """Split a body: in the transport TLS would copy a whole one, and its progress would not be visible."""
    if len(data) <= size:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), size):
        yield view[start : start + size]


class HttpServer:
    """Serves an application on one listening socket until it is stopped."""

    def __init__(self, app: ASGIApp, config: Config, patience: Patience) -> None:
        self._app: AppWrapper = ASGIWrapper(cast(Any, app))
        self._config = config
        self._patience = patience
        self._context = WorkerContext(None)
        self._tls = config.create_ssl_context()
        self._open: dict[asyncio.Task[Any], Connection] = {}
        self._waiting: set[Connection] = set()
        self._progress: dict[Connection, _Progress] = {}

    async def run(self, listener: socket.socket, stop: Callable[[], Awaitable[None]]) -> None:
        """Serve until `stop` returns; then requests in progress have `graceful_timeout`, and are aborted after it."""
        listener.setblocking(False)
        start = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
        server = await start(self._connected, sock=listener, backlog=self._config.backlog)
        watching = asyncio.create_task(self._watch())
        try:
            await stop()
        finally:
            server.close()  # asyncio's wait_closed() waits for every client from Python 3.12 on
            await self._end()
            watching.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        try:
            connection = Connection(
                self._app, loop, self._config, self._context, {}, reader, writer, waiting=self._waiting, tls=self._tls
            )
        except OSError:  # the client has already disconnected
            writer.transport.abort()
            return
        self._open[task] = connection
        try:
            await connection.run()
        except asyncio.CancelledError:
            if not self._context.terminated.is_set():
                raise
            # The stop has aborted it; before Python 3.12 asyncio's streams log a task that ends as cancelled.
        finally:
            del self._open[task]

    async def _end(self) -> None:
        await self._context.terminated.set()
        for connection in self._open.values():
            connection.idle_timer.expire()
        if self._open:
            await asyncio.wait(list(self._open), timeout=self._config.graceful_timeout)
        left = dict(self._open)
        for task, connection in left.items():
            connection.abort()
            task.cancel()
        if left:
            log.info("connections_aborted", connections=len(left))
            await asyncio.wait(list(left), timeout=ABORT_SECONDS)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._look(time.monotonic())

    def _look(self, moment: float) -> None:
        """Drop the clients that receive nothing, or too little."""
        seen = {}
        for connection in list(self._waiting):
            taken = connection.taken_bytes()
            progress = self._progress.get(connection) or _Progress(moment, taken, moment, taken)
            seen[connection] = progress
            if self._is_late(progress, moment, taken):
                log.info("client_too_slow", taken_bytes=taken - progress.window_bytes)
                connection.abort()
        self._progress = seen

    def _is_late(self, progress: _Progress, moment: float, taken: int) -> bool:
        patience = self._patience
        if taken != progress.last_bytes:
            progress.last_seconds, progress.last_bytes = moment, taken
        if moment - progress.last_seconds >= patience.idle_seconds:
            return True
        window = moment - progress.window_began
        if window < patience.idle_seconds:
            return False
        late = taken - progress.window_bytes < patience.min_bytes_per_second * window
        progress.window_began, progress.window_bytes = moment, taken
        return late

    def abort_slowest(self) -> bool:
        """Drop the client that has received nothing for the longest time, if any; returns whether there was one."""
        moment: Final = time.monotonic()
        slow = [
            (progress.last_seconds, connection)
            for connection, progress in self._progress.items()
            if connection in self._waiting and moment - progress.last_seconds >= STALLED_SECONDS
        ]
        if not slow:
            return False
        connection = min(slow, key=lambda one: one[0])[1]
        del self._progress[connection]
        log.info("client_too_slow", reason="others need the memory")
        connection.abort()
        return True
