"""HTTP/1.1 with the least work: for a client of a test that must not take the processor from the service.

Over kept connections, each of which has one request at a time. The body of an answer is read whole, by its length.
"""

import asyncio
from urllib.parse import urlsplit

import httpx

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODILESS = (b"204", b"304")


class PlainHttp:
    """Without TLS."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Connection]] = {}

    async def send(self, method: str, url: str, trace_id: str, body: bytes = b"") -> httpx.Response:
        """Raises httpx.TransportError."""
        where = urlsplit(url)
        idle = self._idle.setdefault(where.netloc, [])
        target = f"{where.path}?{where.query}" if where.query else where.path
        head = f"{method} {target} HTTP/1.1\r\nHost: {where.netloc}\r\nX-Trace-ID: {trace_id}\r\n"
        if method == "PUT":
            head += f"Content-Length: {len(body)}\r\n"
        try:
            connection = idle.pop() if idle else await asyncio.open_connection(where.hostname, where.port)
            answer = await _exchange(connection, b"%b\r\n%b" % (head.encode(), body))
        except (OSError, EOFError) as error:
            raise httpx.TransportError(str(error)) from error
        idle.append(connection)
        return answer

    def close(self) -> None:
        for _, writer in (one for idle in self._idle.values() for one in idle):
            writer.close()


async def _exchange(connection: Connection, request: bytes) -> httpx.Response:
    """Raises OSError or EOFError, also if the request is cancelled: the connection is closed then."""
    reader, writer = connection
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = head.split(maxsplit=2)[1]
        _, _, length = head.partition(b"\r\ncontent-length:")
        size = int(length.split(b"\r\n")[0] or 0)
        content = b"" if status in BODILESS else await reader.readexactly(size)
    except BaseException:
        writer.close()
        raise
    return httpx.Response(int(status), content=content)
