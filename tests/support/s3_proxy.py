"""What can go wrong between a service and its object storage: a proxy that answers, breaks or stalls on demand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

Fault = Literal["403", "501", "503", "reset", "stall", "cut"]
HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
BODY = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>So it is.</Message></Error>"
ANSWERS = {
    "403": HEAD % (b"403 Forbidden", 0),  # as to a HEAD, which has no body
    "501": HEAD % (b"501 Not Implemented", len(BODY) + 12) + BODY % b"NotImplemented",
    "503": HEAD % (b"503 Slow Down", len(BODY) + 6) + BODY % b"SlowDown",
}


class Proxy:
    """Bytes pass as they are, so that signatures stay good; a fault is one connection's."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.connections = 0
        self._port = port
        self._faults: list[Fault] = []
        self._cut_after = 0
        self._open: set[asyncio.Task[None]] = set()

    def fail(self, fault: Fault, times: int = 1, cut_after: int = 2000) -> None:
        """The next so many connections; those that are open end now. A `cut` is after so many bytes of the answer."""
        self._cut_after = cut_after
        self._faults = [fault] * times
        for task in self._open:
            task.cancel()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        fault = self._faults.pop() if self._faults else None
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await (self._failed(fault, reader, writer) if fault else self._passed(reader, writer))
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _failed(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault == "cut":
            return await self._passed(reader, writer, self._cut_after)
        await reader.readuntil(b"\r\n\r\n")
        if fault == "stall":
            await asyncio.Event().wait()
        if fault in ANSWERS:
            writer.write(ANSWERS[fault])
            await writer.drain()
            writer.write_eof()
            while await reader.read(65536):  # a reset would take the answer with it
                pass
        return None

    async def _passed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int = 0) -> None:
        from_store, to_store = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [asyncio.create_task(_pipe(reader, to_store)), asyncio.create_task(_pipe(from_store, writer, limit))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_store.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int = 0) -> None:
    sent = 0
    while data := await reader.read(limit - sent if limit else 65536):
        writer.write(data)
        await writer.drain()
        sent += len(data)
        if sent == limit:
            return


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """Before the S3 server at this port of loopback."""
    one = Proxy(port)
    server = await asyncio.start_server(one.connected, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        one.fail("reset", 0)
        await server.wait_closed()
