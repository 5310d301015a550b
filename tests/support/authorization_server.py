"""A real authorization server on loopback, in the test's own process, that answers as the test wants, and badly too."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

CHECK = "/api/v1/authorization/check"
Act = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A call as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def answering(
    status: int = 200, body: bytes = b"{}", *headers: str, length: int | None = None
) -> Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]:
    """One whole answer; `length` says another Content-Length than the body has."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {size}", *headers, "", ""]

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + body)

    return act


GRANT = answering(200, b'{"allowed": true}')
SILENT_GRANT = answering(200, b'{"because": "of the role"}')
SAY_NO = answering(200, b'{"allowed": false}')
FORBID = answering(403, b"no")


async def reset(_: Asked, writer: asyncio.StreamWriter) -> None:
    """In the middle of an answer."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{")
    await writer.drain()
    writer.transport.abort()


async def hang_up(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def stall(_: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(_: Asked, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, so that no single read ever takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(_: Asked, writer: asyncio.StreamWriter) -> None:
    """An answer without an end."""
    writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"allowed": true\r\n')
    while True:
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await writer.drain()


@dataclass
class AuthorizationServer:
    """`act` decides how the next calls are answered; while `gate` is closed they wait for it."""

    act: Act = GRANT
    port: int = 0
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def questions(self) -> list[tuple[str, str, str]]:
        return [(one.body["org_id"], one.body["user_id"], one.body["permission"]) for one in self.asked]

    async def start(self) -> None:
        """At the same port again, the second time."""
        self.gate.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a killed one: what is connected is cut."""
        assert self._server
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
                while not writer.is_closing():
                    await self._answer(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        asked = Asked(first.split()[1], headers, body)
        self.asked.append(asked)
        self.arrived.release()
        await self.gate.wait()
        await self.act(asked, writer)
        await writer.drain()


@asynccontextmanager
async def authorization_server(
    act: Act = GRANT, tls: ssl.SSLContext | None = None
) -> AsyncIterator[AuthorizationServer]:
    server = AuthorizationServer(act, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
