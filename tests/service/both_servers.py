"""Hypercorn as it is, and with our fixes: the same application behind either."""

import asyncio
import gc
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.run import worker_serve
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config, Sockets
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.typing import ConnectionState

from imgsvc.service.hypercorn_fixes.connection import Connection
from imgsvc.service.hypercorn_fixes.http1 import Http1
from imgsvc.service.hypercorn_fixes.piece_reader import stream_protocol
from imgsvc.service.hypercorn_fixes.server import HttpServer, Patience
from imgsvc.service.hypercorn_fixes.tls_session import TlsServer
from imgsvc.service.hypercorn_fixes.waiting import LeanContext
from tests.support.speed import seconds

HEAD_BYTES = 16 * 1024
PLAIN_SECONDS = 1.0  # that the plain one has to behave
FIXED_SECONDS = 10.0
FOREVER_SECONDS = 300.0
CLEAN_UP_SECONDS = 5.0
LOCAL = ("127.0.0.1", 1)


class Application:
    """Answers every request with `body`, and notes what it was asked."""

    def __init__(self, body: bytes = b"answer") -> None:
        self.body = body
        self.asked: list[str] = []
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
            return
        self.asked.append(scope["type"])
        try:
            await self.answer(send)
        finally:
            self.ended.set()

    async def answer(self, send: Any) -> None:
        length = (b"content-length", str(len(self.body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": self.body})


class EndlessApplication(Application):
    async def answer(self, send: Any) -> None:
        await asyncio.sleep(FOREVER_SECONDS)


class ReceivingApplication(Application):
    """Notes the body of each of so many requests before it answers."""

    def __init__(self, requests: int = 1) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self._requests = requests

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["type"])
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        await self.answer(send)
        if len(self.bodies) == self._requests:
            self.ended.set()


def config(**more: Any) -> Config:
    made = Config()
    made.h11_max_incomplete_size = HEAD_BYTES
    made.errorlog = None
    for name, value in more.items():
        setattr(made, name, value)
    return made


async def is_so(condition: Callable[[], bool], limit_seconds: float) -> bool:
    """Whether it becomes so in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_seconds):
            while not condition():
                await asyncio.sleep(0.01)
    return condition()


async def spoken(application: Application, *sent: bytes, fixed: bool) -> list[bytes]:
    """What one connection's protocol writes once it has received these bytes, piece by piece, write by write."""
    written: list[bytes] = []

    async def send(event: Event) -> None:
        if isinstance(event, RawData) and event.data:
            written.append(event.data)

    with suppress(TimeoutError):  # an answer that nothing will take any more
        async with asyncio.timeout(limit(fixed=fixed)), TaskGroup(asyncio.get_running_loop()) as group:
            kind: Any = Http1 if fixed else ProtocolWrapper
            protocol = kind(
                ASGIWrapper(cast(Any, application)),
                config(),
                LeanContext(None) if fixed else WorkerContext(None),
                group,
                ConnectionState({}),
                False,
                LOCAL,
                LOCAL,
                send,
            )
            for piece in sent:
                await protocol.handle(RawData(data=piece))
            await is_so(lambda: bool(written), limit(fixed=fixed))
            if application.asked:
                await is_so(application.ended.is_set, limit(fixed=fixed))
            await protocol.handle(Closed())
    return written


@asynccontextmanager
async def connections(
    application: Application, settings: Config, *, fixed: bool, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[TCPServer], list["asyncio.Task[None]"]]]:
    """A listening address, and the connections made to it with their tasks."""
    found: list[TCPServer] = []
    tasks: list[asyncio.Task[None]] = []
    context, loop = LeanContext(None) if fixed else WorkerContext(None), asyncio.get_running_loop()
    ours = partial(Connection, waiting=set(), tls=TlsServer(tls) if tls else None)
    kind: Any = ours if fixed else TCPServer

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = kind(ASGIWrapper(cast(Any, application)), loop, settings, context, {}, reader, writer)
        found.append(one)
        tasks.append(loop.create_task(one.run()))

    if fixed:
        server = await loop.create_server(partial(stream_protocol, accepted), "127.0.0.1", 0)
    else:
        server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    try:
        yield "{}://{}:{}".format(scheme, *server.sockets[0].getsockname()), found, tasks
    finally:
        server.close()
        await context.terminated.set()
        for one in found:
            one.writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=CLEAN_UP_SECONDS)


@asynccontextmanager
async def served(
    application: Application, settings: Config, *, fixed: bool
) -> AsyncIterator[tuple[str, asyncio.Event, "asyncio.Task[None]"]]:
    """A listening address, the event that stops its server, and the server's task."""
    listener, stop = socket.create_server(("127.0.0.1", 0)), asyncio.Event()
    url = "http://{}:{}".format(*listener.getsockname())

    async def stopped() -> None:
        await stop.wait()

    if fixed:
        http = HttpServer(cast(Any, application), settings, Patience(idle_seconds=0.2, min_bytes_per_second=1))
        running = http.run(listener, stopped)
    else:
        listener.setblocking(False)
        app, sockets = ASGIWrapper(cast(Any, application)), Sockets([], [listener], [])
        running = worker_serve(app, settings, sockets=sockets, shutdown_trigger=stopped)
    task = asyncio.get_running_loop().create_task(running)
    try:
        yield url, stop, task
    finally:
        stop.set()
        await asyncio.wait([task], timeout=CLEAN_UP_SECONDS)
        task.cancel()
        listener.close()


async def received(client: socket.socket) -> None:
    """Return once the first byte of an answer has come; nothing more is read."""
    client.setblocking(False)
    await asyncio.get_running_loop().sock_recv(client, 1)


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Count the bytes that Python's functions have allocated since, and not freed."""
    gc.collect()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def limit(*, fixed: bool) -> float:
    return seconds(FIXED_SECONDS) if fixed else PLAIN_SECONDS
