"""The server: its connections, the limits for slow clients, and its stop."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

import structlog
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.typing import AppWrapper
from starlette.types import ASGIApp

from ...lazy_dataclass import dataclass
from .connection import Connection
from .piece_reader import stream_protocol
from .tls_session import TlsServer
from .waiting import LeanContext

log = structlog.get_logger()

LOOK_SECONDS = 1.0  # between two checks of the clients that are waited for
STALLED_SECONDS = 2.0  # without a byte received, before a client may be dropped in favour of others
ABORT_SECONDS = 1.0  # for handlers to end once their connections are gone


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


class HttpServer:
    """Serves an application on one listening socket until it is stopped."""

    def __init__(self, app: ASGIApp, config: Config, patience: Patience) -> None:
        self._app: AppWrapper = ASGIWrapper(cast(Any, app))
        self._config = config
        self._patience = patience
        self._context = LeanContext(None)
        context = config.create_ssl_context()
        self._tls = TlsServer(context) if context else None
        self._open: dict[asyncio.Task[Any], Connection] = {}
        self._waiting: set[Connection] = set()
        self._progress: dict[Connection, _Progress] = {}

    async def run(self, listener: socket.socket, stop: Callable[[], Awaitable[None]]) -> None:
        """Serve until `stop` returns; then requests in progress have `graceful_timeout`, and are aborted after it."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        start = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
        protocol = partial(stream_protocol, self._connected)
        server = await start(protocol, sock=listener, backlog=self._config.backlog)
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
