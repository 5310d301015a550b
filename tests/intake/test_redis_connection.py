"""One Redis that is slow, hangs, refuses, talks nonsense or is killed: logged once, never waited for twice."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvloop
from structlog.testing import capture_logs

from imgsvc.intake import redis_connection
from imgsvc.intake.redis_limit import RedisRateLimit, Reservation
from imgsvc.jobs.table.quota import Quota, RateLimited
from imgsvc.settings import SettingsError
from tests.support.redis_server import RedisServer
from tests.support.speed import seconds, within
from tests.support.tcp_server import Talk, serving

QUOTA = Quota(50, timedelta(hours=1))
PATIENCE = 0.05  # seconds; elsewhere more, since the machine may be busy
PASSWORD = "p4ssw0rd-of-the-test"
LIMIT_SECONDS = 10


@asynccontextmanager
async def running(url: str, timeout_seconds: float = 5) -> AsyncIterator[RedisRateLimit]:
    limit = RedisRateLimit(url, timeout_seconds, "t:")
    await limit.connection.check()
    async with anyio.create_task_group() as group:
        group.start_soon(limit.connection.run)
        yield limit
        group.cancel_scope.cancel()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who waits for many tries."""
    for name, value in (("TRIAL_SECONDS", 0.01), ("CONNECT_SECONDS", seconds(0.2))):
        monkeypatch.setattr(redis_connection, name, value)


async def until(true: Callable[[], Any]) -> None:
    with within(LIMIT_SECONDS):
        while not true():
            await anyio.sleep(0.005)


async def reserved(limit: RedisRateLimit) -> Reservation | None:
    return await limit.reserve("o", "u", QUOTA)


def used(server: RedisServer) -> int:
    return int(server.ask("HGET", "t:uploads:1:o:u", "used") or 0)


async def test_a_smaller_quota_counts_the_same_places() -> None:
    with RedisServer() as server:
        async with running(server.url) as limit:
            narrow = Quota(2, QUOTA.window)
            for count in (1, 2, 3):
                place = await reserved(limit)
                assert place is not None and (place.standing.used, place.standing.limit) == (count, 50)
            looked = await limit.standing("o", "u", narrow)
            assert looked is not None and (looked.used, looked.limit, looked.remaining) == (3, 2, 0)
            with pytest.raises(RateLimited) as limited:
                await limit.reserve("o", "u", narrow)
            assert limited.value.standing == looked
            assert place is not None and looked.reset == place.standing.reset
            other = await limit.standing("o", "v", QUOTA)
            assert other is not None and other.used == 0
            assert server.ask("KEYS", "*") == [limit.key("o", "u")]


async def test_many_at_once_get_each_place_once() -> None:
    with RedisServer() as server:
        async with running(server.url) as limit:
            found = await asyncio.gather(*(reserved(limit) for _ in range(300)), return_exceptions=True)
            places = [place for place in found if isinstance(place, Reservation)]
            assert sorted(place.standing.used for place in places) == list(range(1, 51))
            assert sum(isinstance(one, RateLimited) for one in found) == 250
            for place in places[:20]:
                limit.release(place)
            await limit.connection.flush(LIMIT_SECONDS)
            assert used(server) == 30


def test_loop_that_was_busy_is_not_a_slow_redis() -> None:
    """In the server's own loop, which looks at its timers before it looks at what has come in."""

    async def busy(url: str) -> None:
        async with running(url, 0.2) as limit:
            for _ in range(2):
                waiting = [asyncio.create_task(reserved(limit)) for _ in range(5)]
                for _ in range(3):
                    await asyncio.sleep(0)
                time.sleep(0.5)  # noqa: ASYNC251, that is the point
                assert all(await asyncio.gather(*waiting))

    with RedisServer() as server, capture_logs() as logs, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(busy(server.url))
    assert logs == []


async def test_redis_that_hangs_is_waited_for_once() -> None:
    with RedisServer() as server, capture_logs() as logs:
        async with running(server.url, PATIENCE) as limit:
            server.pause()
            began = time.monotonic()
            assert await asyncio.gather(*(reserved(limit) for _ in range(40))) == [None] * 40
            assert 0.04 < time.monotonic() - began < seconds(2)
            with pytest.raises(StopIteration) as ended:  # it does not wait for anything
                limit.reserve("o", "u", QUOTA).send(None)
            assert ended.value.value is None
            assert await limit.standing("o", "u", QUOTA) is None
            server.resume()
            await until(lambda: limit.connection.up)
            assert await reserved(limit)
    away, back = logs
    assert (away["event"], away["log_level"], away["reason"]) == (
        "redis_unavailable",
        "warning",
        "no answer within 50 ms",
    )
    assert (back["event"], back["log_level"], back["uploads_not_shared"]) == ("redis_available", "info", 41)


def refuse_password(server: RedisServer) -> Callable[[], Any]:
    admin = server.client()
    admin.config_set("requirepass", PASSWORD)
    admin.client_kill_filter(_type="normal", skipme=True)

    def undo() -> None:
        admin.config_set("requirepass", "")
        admin.close()

    return undo


def refuse_memory(server: RedisServer) -> Callable[[], Any]:
    server.ask("CONFIG", "SET", "maxmemory", 1)
    return lambda: server.ask("CONFIG", "SET", "maxmemory", 0)


def refuse_writes(server: RedisServer) -> Callable[[], Any]:
    server.ask("REPLICAOF", "127.0.0.1", 1)
    return lambda: server.ask("REPLICAOF", "NO", "ONE")


def vanish(server: RedisServer) -> Callable[[], Any]:
    server.kill()
    return server.start


def hang(server: RedisServer) -> Callable[[], Any]:
    server.pause()
    return server.resume


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (refuse_password, "Authentication required|Connection lost"),
        (refuse_memory, "OOM|maxmemory"),
        (refuse_writes, "read only replica"),
        (vanish, "Connection|refused|closed"),
        (hang, "no answer within"),
    ],
)
@pytest.mark.usefixtures("hasty")
async def test_outage_is_told_once_and_ends_by_itself(
    break_it: Callable[[RedisServer], Callable[[], Any]], reason: str
) -> None:
    with RedisServer() as server, capture_logs() as logs:
        async with running(server.url, seconds(0.1)) as limit:
            place = await reserved(limit)
            assert place is not None
            undo = break_it(server)
            assert [await reserved(limit) for _ in range(3)] == [None] * 3
            for _ in range(3):  # a PING would find a Redis that refuses to write well
                await limit.connection.check()
            assert not limit.connection.up and limit.connection.info == {}
            limit.release(place)
            undo()
            await until(lambda: limit.connection.up)
            await limit.connection.flush(LIMIT_SECONDS)
            # What was given back meanwhile came through. One that hung may have run commands without an answer.
            assert used(server) <= (break_it is hang)
            assert await reserved(limit)
            assert limit.connection.info["redis_version"]
    assert [line["event"] for line in logs] == ["redis_unavailable", "redis_available"]
    assert re.search(reason, logs[0]["reason"]), logs[0]
    assert logs[1]["uploads_not_shared"] == 3


async def test_cancelled_reservation_takes_no_place() -> None:
    with RedisServer() as server:
        async with running(server.url) as limit:
            server.pause()
            several = [
                asyncio.create_task(reserved(limit)) for _ in range(3 * redis_connection.CONNECTIONS)
            ]  # some wait
            await until(lambda: len(limit.connection._under_way) == redis_connection.CONNECTIONS)
            for task in several:
                task.cancel()
            await asyncio.wait(several)
            assert all(task.cancelled() for task in several)
            server.resume()
            await limit.connection.flush(LIMIT_SECONDS)
            assert used(server) == 0
            assert await reserved(limit)
            assert used(server) == 1


async def test_place_of_a_window_that_is_over_goes_back_to_no_newer_one() -> None:
    with RedisServer() as server:
        async with running(server.url) as limit:
            short = Quota(3, timedelta(milliseconds=100))
            old = await limit.reserve("o", "u", short)
            assert old is not None
            await until(lambda: not server.ask("EXISTS", old.key))  # Redis itself drops it when the window ends
            new = await limit.reserve("o", "u", QUOTA)
            assert new is not None and new.start >= old.start + 100_000
            limit.release(old)
            await limit.connection.flush(LIMIT_SECONDS)
            assert used(server) == 1


async def test_clock_that_is_set_back_begins_a_new_window() -> None:
    with RedisServer() as server:
        async with running(server.url) as limit:
            place = await reserved(limit)
            assert place is not None
            server.ask("HSET", place.key, "start", place.start + 10_000_000)
            again = await reserved(limit)
            assert again is not None and again.standing.used == 1
            assert again.start < place.start + 10_000_000


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """The address of something that is not Redis itself."""
    async with serving(talk) as port:
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"


@asynccontextmanager
async def stranger(answer: bytes) -> AsyncIterator[str]:
    """It gives one answer to everything."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            writer.write(answer)

    async with listening(talk) as url:
        yield url


@asynccontextmanager
async def far_away(server: RedisServer, latency_seconds: float) -> AsyncIterator[str]:
    """The same Redis, whose responses arrive late."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
        with suppress(ConnectionError), closing(writer):  # a client that closes before it has read everything resets
            while data := await reader.read(1 << 16):
                await anyio.sleep(latency)
                writer.write(data)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(server.socket)
        await asyncio.gather(carry(reader, to_redis, 0), carry(from_redis, writer, latency_seconds))

    async with listening(talk) as url:
        yield url.replace(f":{PASSWORD}@", "")


@pytest.mark.usefixtures("hasty")
async def test_redis_that_is_always_too_slow_is_one_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """It connects and answers, but never as fast as an upload needs it. It must not come up to fail the next one."""
    monkeypatch.setattr(redis_connection, "CONNECT_SECONDS", LIMIT_SECONDS)
    with RedisServer() as server, capture_logs() as logs:
        # So late that an answer is not in time even if this event loop, which also delays it, stands still for a while.
        async with far_away(server, 6 * PATIENCE) as url, running(url, PATIENCE) as limit:
            for _ in range(3):
                assert await reserved(limit) is None
                await limit.connection.check()
            assert not limit.connection.up
    assert [(line["event"], line["reason"]) for line in logs] == [("redis_unavailable", "no answer within 50 ms")]


@pytest.mark.parametrize(
    "answer",
    [
        f"-ERR unknown command `AUTH`, with args beginning with: `{PASSWORD}`\r\n".encode(),
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"+OK\r\n" * 20,
        b"*-5\r\n$\xff",
        b"",
    ],
)
@pytest.mark.usefixtures("hasty")
async def test_nonsense_is_an_outage_that_tells_no_password(answer: bytes) -> None:
    with capture_logs() as logs:
        async with stranger(answer) as url, running(url, PATIENCE) as limit:
            if limit.connection.up:  # it talked like a Redis as far as it was asked
                assert await reserved(limit) is None
            assert not limit.connection.up
    assert [line["event"] for line in logs] == ["redis_unavailable"]
    assert PASSWORD not in repr(logs)


@pytest.mark.usefixtures("hasty")
async def test_tls_that_never_answers_is_an_outage() -> None:
    """A connection is accepted, without a handshake."""
    with capture_logs() as logs:
        async with stranger(b"") as url, running(url.replace("redis:", "rediss:"), PATIENCE) as limit:
            assert not limit.connection.up
            with pytest.raises(StopIteration):
                limit.reserve("o", "u", QUOTA).send(None)
            await limit.connection.check()
    assert [line["event"] for line in logs] == ["redis_unavailable"]
    assert PASSWORD not in repr(logs)


async def test_wrong_password_is_told_without_it() -> None:
    with RedisServer("--requirepass", "another") as server, capture_logs() as logs:
        async with running(f"unix://:{PASSWORD}@{server.socket}") as limit:
            assert await reserved(limit) is None
    assert "password" in logs[0]["reason"] and PASSWORD not in repr(logs)


async def test_valkey_is_a_redis_under_its_own_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with RedisServer("--port", str(port)) as server:
        async with running(f"valkey://127.0.0.1:{port}/0") as limit:
            assert await reserved(limit) is not None
            assert used(server) == 1


async def test_a_user_without_the_rights_is_told_which() -> None:
    with RedisServer() as server, capture_logs() as logs:
        server.ask("ACL", "SETUSER", "limited", "on", f">{PASSWORD}", "~t:*", "+ping", "+info", "+select", "+client")
        async with running(f"unix://limited:{PASSWORD}@{server.socket}") as limit:
            assert await reserved(limit) is None
    assert [line["event"] for line in logs] == ["redis_unavailable"]
    assert "allow its user EVAL, TIME, HMGET" in logs[0]["reason"] and PASSWORD not in repr(logs)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"-MOVED 3999 10.0.0.2:6381\r\n", "it is a Redis Cluster, which is not supported"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "it is a Redis Cluster, which is not supported"),
        (b"-ERR unknown command `EVAL`, with args beginning with: `local`\r\n", "a Sentinel?"),
        (b"-ERR unknown command 'EVAL'\r\n", "a Sentinel?"),
    ],
)
@pytest.mark.usefixtures("hasty")
async def test_servers_that_can_not_be_used_are_named(answer: bytes, words: str) -> None:
    with capture_logs() as logs:
        async with stranger(answer) as url, running(url, PATIENCE) as limit:
            assert not limit.connection.up
    assert [line["event"] for line in logs] == ["redis_unavailable"]
    assert words in logs[0]["reason"]


@pytest.mark.parametrize(
    "url", [f"redis://:{PASSWORD}@h:port", f"redis://:{PASSWORD}@h?no=1", f"redis://:{PASSWORD}@["]
)
def test_unusable_address_is_told_without_the_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"\[redis\] url \(REDIS_URL\)") as raised:
        RedisRateLimit(url, 0.05, "t:")
    assert PASSWORD not in str(raised.value)
