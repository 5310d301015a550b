"""Trials of a Redis that are under way when something else happens."""

import asyncio

import anyio
import anyio.lowlevel
from structlog.testing import capture_logs

from imgsvc.intake.redis_limit import RedisRateLimit
from tests.support.redis_server import RedisServer
from tests.support.speed import within

LIMIT_SECONDS = 10


async def test_trial_from_before_an_outage_does_not_end_it() -> None:
    """Redis may have answered the trial, and be killed before it answers a command."""
    with RedisServer() as server, capture_logs() as logs:
        connection = RedisRateLimit(server.url, LIMIT_SECONDS, "t:").connection
        await connection.check()
        server.pause()
        failing = asyncio.create_task(connection.request(("NO-SUCH-COMMAND",)))
        trial = asyncio.create_task(connection.check())
        await anyio.lowlevel.checkpoint()  # both are under way
        server.resume()
        assert await failing is None
        await trial
        assert not connection.up and [line["event"] for line in logs] == ["redis_unavailable"]
        await connection.check()
        assert connection.up
        await connection.close()


async def test_closing_ends_a_trial_that_is_under_way() -> None:
    """It would go on connecting, and what it opens would stay open."""
    with RedisServer() as server:
        connection = RedisRateLimit(server.url, LIMIT_SECONDS, "t:").connection
        trial = asyncio.create_task(connection.check())
        await anyio.lowlevel.checkpoint()
        trial.cancel()
        await asyncio.wait({trial})
        await connection.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with within(LIMIT_SECONDS):
            while len(server.ask("CLIENT", "LIST").splitlines()) > 1:  # the one that asks
                await anyio.sleep(0.005)
