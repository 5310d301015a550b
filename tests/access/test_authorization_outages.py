"""An outage of a real authorization server: which requests pass meanwhile, and when the server is called again."""

import asyncio

import anyio
import pytest
from structlog.testing import capture_logs

from imgsvc.access.permissions import Unavailable
from tests.support import authorization_server as says
from tests.support.authorization_server import answering
from tests.support.remote_authorization import UPLOAD, remote, skip_the_wait, tried


async def test_late_answer_of_before_the_outage_is_believed_and_ends_nothing() -> None:
    slow = asyncio.Event()

    async def slow_for_alice(asked: says.Asked, writer: asyncio.StreamWriter) -> None:
        if asked.body["user_id"] == "alice":
            await slow.wait()
            await says.GRANT(asked, writer)
        else:
            await answering(500)(asked, writer)

    async with remote(slow_for_alice, breaker_threshold=2) as (one, server):
        late = asyncio.create_task(tried(one))
        await server.arrived.acquire()
        with capture_logs() as logs:
            assert [await tried(one, "org", user, "image:upload") for user in "bcd"] == [None] * 3
            slow.set()
            assert await late is True
            assert await tried(one, "org", "bob", "image:upload") is None
        assert [entry["event"] for entry in logs] == ["authorization_unavailable"]
        assert (one.breaker.state, len(server.asked)) == ("open", 3)
        assert await tried(one) is True  # it is remembered


async def test_open_breaker_makes_no_call_and_says_when_to_come_back() -> None:
    async with remote(answering(500), breaker_timeout=40) as (one, server):
        for n in range(5):
            assert await tried(one, "org", f"user-{n}", "image:upload") is None
        assert one.breaker.state == "open"
        with pytest.raises(Unavailable) as raised:
            await one.allowed(*UPLOAD)
        assert 39 <= raised.value.retry_after <= 40
        server.act = says.GRANT
        assert await asyncio.gather(*(tried(one, "org", f"u{n}", "image:upload") for n in range(100))) == [None] * 100
        assert len(server.asked) == 5


async def test_what_is_known_is_answered_while_the_server_is_away() -> None:
    async with remote(breaker_threshold=1) as (one, server):
        assert await tried(one) is True
        await server.stop()
        assert await tried(one, "org", "bob", "image:upload") is None
        assert one.breaker.state == "open"
        assert await tried(one) is True
        await server.start()


async def test_denial_is_a_success() -> None:
    async with remote(answering(500)) as (one, server):
        for n in range(20):
            server.act = says.FORBID if n % 5 == 4 else answering(500)
            await tried(one, "org", f"user-{n}", "image:upload")
        assert (one.breaker.state, one.breaker.failures) == ("closed", 0)
        assert len(server.asked) == 20


async def test_exactly_one_of_100_is_the_probe() -> None:
    async with remote(answering(500), breaker_threshold=1) as (one, server):
        assert await tried(one) is None
        skip_the_wait(one.breaker)
        server.act = says.GRANT
        server.gate.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(tried(one, "org", f"user-{n}", "image:upload")) for n in range(100)]
            await server.arrived.acquire()  # of the call that opened it
            await server.arrived.acquire()
            assert str(one.breaker.state) == "half_open"
            server.gate.set()
        assert sorted(task.result() is True for task in waiting) == [False] * 99 + [True]
        assert len(server.asked) == 2
        assert one.breaker.state == "closed"
        assert await tried(one, "org", "user-99", "image:upload") is True


async def test_failed_probe_opens_it_again() -> None:
    async with remote(answering(500), breaker_threshold=2) as (one, server):
        assert [await tried(one) for _ in range(2)] == [None] * 2
        skip_the_wait(one.breaker)
        assert await tried(one) is None
        assert (one.breaker.state, one.breaker.failures, len(server.asked)) == ("open", 3, 3)
        assert await tried(one) is None
        assert len(server.asked) == 3


async def test_recovers_by_itself() -> None:
    async with remote(breaker_threshold=1, breaker_timeout=0.1) as (one, server):
        await server.stop()
        assert await tried(one) is None
        await server.start()
        while await tried(one) is None:
            await anyio.sleep(0.01)
        assert (one.breaker.state, len(server.asked)) == ("closed", 1)


async def test_fail_open_lets_through_with_a_warning_and_remembers_nothing() -> None:
    async with remote(answering(500), fail_open=True, breaker_threshold=2) as (one, server):
        with capture_logs() as logs:
            assert [await one.allowed(*UPLOAD) for _ in range(4)] == [True] * 4
        warned = [entry for entry in logs if entry["event"] == "allowed_without_authorization"]
        assert [entry["log_level"] for entry in warned] == ["warning"] * 4
        assert {(entry["org_id"], entry["user_id"], entry["permission"]) for entry in warned} == {UPLOAD}
        assert (len(server.asked), len(one.answers)) == (2, 0)
        server.act = says.SAY_NO
        skip_the_wait(one.breaker)
        assert await one.allowed(*UPLOAD) is False


async def test_log_tells_of_an_outage_once_and_of_its_end() -> None:
    async with remote(answering(500), breaker_threshold=2) as (one, server):
        with capture_logs() as logs:
            for _ in range(5):
                await tried(one)
            server.act = says.GRANT
            skip_the_wait(one.breaker)
            assert await tried(one) is True
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [
            ("authorization_unavailable", "warning"),
            ("authorization_available", "info"),
        ]
        assert logs[0]["reason"] == "it answered 500"
        assert logs[1]["unanswered"] == 5
