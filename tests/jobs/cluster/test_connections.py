"""Connections of a worker: a request has one to itself, and the next request takes it over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from imgsvc.jobs.cluster import connections

BODY = b"a source"


class Peer:
    """A server that counts its connections. It answers `/held` once it is let go, and `/broken` not at all."""

    def __init__(self) -> None:
        self.opened = self.open_now = self.held = 0
        self.let_go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open_now += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"/broken" in head:
                    break
                if b"/held" in head:
                    self.held += 1
                    await self.let_go.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.open_now -= 1
            writer.close()


@asynccontextmanager
async def peer() -> AsyncIterator[tuple[Peer, str]]:
    found = Peer()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        yield found, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_next_request_takes_the_connection_over() -> None:
    async with peer() as (there, url), connections.client() as http:
        for _ in range(3):
            assert (await http.get(url)).content == BODY
        assert there.opened == 1


async def test_requests_at_the_same_time_have_one_each_which_stay_for_later_ones() -> None:
    async with peer() as (there, url), connections.client() as http:
        for _ in range(2):
            there.let_go, there.held = asyncio.Event(), 0
            held = [asyncio.create_task(http.get(f"{url}/held")) for _ in range(4)]
            await reached(lambda: there.held == 4)
            there.let_go.set()
            assert [(await one).content for one in held] == 4 * [BODY]
        assert there.opened == 4


async def test_body_that_is_not_read_gives_its_place_back() -> None:
    made: list[httpx.AsyncHTTPTransport] = []

    def make() -> httpx.AsyncHTTPTransport:
        made.append(httpx.AsyncHTTPTransport())
        return made[-1]

    async with peer() as (_, url), httpx.AsyncClient(transport=connections.SharedOut(make)) as http:
        for _ in range(3):
            async with http.stream("GET", url):
                pass
        assert len(made) == 1


async def test_failed_request_leaves_nothing_behind() -> None:
    async with peer() as (there, url), connections.client() as http:
        for _ in range(3):
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(f"{url}/broken")
        assert (await http.get(url)).content == BODY
        await reached(lambda: there.open_now == 1)


async def test_all_are_closed_with_the_client() -> None:
    async with peer() as (there, url):
        async with connections.client() as http:
            assert (await http.get(url)).content == BODY
        await reached(lambda: there.open_now == 0)
