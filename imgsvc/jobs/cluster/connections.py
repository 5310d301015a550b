"""How a worker reaches the service and its storage: with httpx, whose pool of connections is shared out.

httpcore's pool looks at all of its connections, with system calls, when a request begins and when it ends: with 20
requests at a time that takes longer than the requests. So each has a small pool to itself, which the next one gets.
"""

import ssl
from collections.abc import AsyncIterator, Callable

import httpx

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
IN_ONE_POOL = httpx.Limits(max_connections=2, max_keepalive_connections=2)  # to the service, and to the storage


def client(verify: ssl.SSLContext | bool = True) -> httpx.AsyncClient:
    """A client of which nothing comes from the environment."""
    shared = SharedOut(lambda: httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=IN_ONE_POOL))
    return httpx.AsyncClient(transport=shared, timeout=TIMEOUT, trust_env=False)


class SharedOut(httpx.AsyncBaseTransport):
    """Gives each request an idle transport, the one that was used last, or a new one."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._make = make
        self._all: list[httpx.AsyncBaseTransport] = []
        self._idle = [self._new()]  # now: with the first one httpx imports what it needs, for which a ticket would wait

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        transport = self._idle.pop() if self._idle else self._new()
        try:
            response = await transport.handle_async_request(request)
        except BaseException:
            self._idle.append(transport)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, lambda: self._idle.append(transport))
        return response

    def _new(self) -> httpx.AsyncBaseTransport:
        transport = self._make()
        self._all.append(transport)
        return transport

    async def aclose(self) -> None:
        for transport in self._all:
            await transport.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response. `ended` is called once it is closed."""

    def __init__(self, body: httpx.AsyncByteStream, ended: Callable[[], None]) -> None:
        self._body = body
        self._ended: Callable[[], None] | None = ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._body:
            yield data

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            ended, self._ended = self._ended, None
            if ended:
                ended()
