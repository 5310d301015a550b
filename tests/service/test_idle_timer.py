"""A connection that waits for its next request: how long, and until the server stops."""

import socket

import anyio.to_thread

from tests.service.both_servers import Application, config, is_so, received, served
from tests.support.clients import asking
from tests.support.speed import seconds


def ended(client: socket.socket) -> bool:
    """Read to the end of the stream."""
    client.settimeout(seconds(10))
    while client.recv(65_536):
        pass
    return True


async def test_it_ends_when_its_time_is_over() -> None:
    async with served(Application(), config(keep_alive_timeout=0.2), fixed=True) as (url, _, _):
        with asking(url, "/") as client:
            await received(client)
            assert await anyio.to_thread.run_sync(ended, client)


async def test_it_ends_at_once_when_the_server_stops() -> None:
    settings = config(keep_alive_timeout=60, graceful_timeout=60)
    async with served(Application(), settings, fixed=True) as (url, stop, task):
        with asking(url, "/") as client:
            await received(client)
            stop.set()
            assert await anyio.to_thread.run_sync(ended, client)
            assert await is_so(task.done, seconds(10))
