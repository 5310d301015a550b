"""HTTP/1.1 for httpx with the least work: for a client of a test that must not take the processor from the service.

Over kept connections, each of which has one request at a time. The body of an answer is read whole, by its length.
"""

import asyncio

import httpx

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODILESS = (b"204", b"304")


class PlainTransport(httpx.AsyncBaseTransport):
    """Without TLS."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int | None], list[Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = b"".join([data async for data in request.stream])  # type: ignore[union-attr]  # is an async client's
        idle = self._idle.setdefault((request.url.host, request.url.port), [])
        try:
            connection = idle.pop() if idle else await asyncio.open_connection(request.url.host, request.url.port)
            answer = await _exchange(connection, request, body)
        except (OSError, EOFError) as error:
            raise httpx.TransportError(str(error)) from error
        idle.append(connection)
        return answer

    async def aclose(self) -> None:
        for _, writer in (one for idle in self._idle.values() for one in idle):
            writer.close()


async def _exchange(connection: Connection, request: httpx.Request, body: bytes) -> httpx.Response:
    """Raises OSError or EOFError, also if the request is cancelled: the connection is closed then."""
    reader, writer = connection
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    try:
        writer.write(b"\r\n".join([*lines, b"", body]))
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in rest)]
        length = next((int(value) for name, value in headers if name.lower() == b"content-length"), 0)
        status = first.split()[1]
        content = b"" if status in BODILESS else await reader.readexactly(length)
    except BaseException:
        writer.close()
        raise
    return httpx.Response(int(status), headers=headers, content=content)
