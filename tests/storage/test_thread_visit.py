"""Visits to threads: what comes back, cancellations, how many there are at a time, and when the threads end."""

import asyncio
import contextvars
import os
import threading
from collections.abc import Iterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from imgsvc.storage import thread_visit
from imgsvc.storage.thread_visit import MOST, Visit, in_thread, result_of
from tests.support.speed import within

NAME = contextvars.ContextVar("NAME", default="")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What visits wait for; set at the end in any case."""
    held = threading.Event()
    yield held
    held.set()


def visitors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, thread_visit._Thread)]


async def test_result_and_error_come_back_from_another_thread() -> None:
    assert await in_thread(threading.get_ident) != threading.get_ident()
    assert await in_thread(int, "11", base=2) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")
    NAME.set("ours")
    assert await in_thread(NAME.get) == "ours"


async def test_cancellation_waits_for_the_end_of_the_call_and_loses_no_result(gate: threading.Event) -> None:
    """A result may be an open file: its caller gets it, and is cancelled at its next wait."""
    begun, after = threading.Event(), list[str]()

    def call() -> str:
        begun.set()
        assert gate.wait(30)
        return "opened"

    async def caller() -> None:
        after.append(await in_thread(call))
        await checkpoint()
        after.append("not cancelled")

    with within(20):
        async with anyio.create_task_group() as group:
            group.start_soon(caller)
            await in_thread(begun.wait, 20)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await checkpoint()
                assert after == []
                gate.set()
    assert after == ["opened"]


async def test_error_of_a_call_whose_caller_was_cancelled(gate: threading.Event) -> None:
    begun = threading.Event()

    def call() -> None:
        begun.set()
        assert gate.wait(30)
        raise OSError("refused")

    async def caller() -> None:
        with pytest.raises(OSError, match="refused"):
            await in_thread(call)

    with within(20):
        async with anyio.create_task_group() as group:
            group.start_soon(caller)
            await in_thread(begun.wait, 20)
            group.cancel_scope.cancel()
            gate.set()


async def test_a_visit_may_wait_for_one_that_was_begun_before() -> None:
    """However many do."""
    ended = list[str]()

    async def pair() -> None:
        over = threading.Event()
        first = Visit(over.set, counted=True)
        second = Visit(lambda: over.wait(30), counted=True)
        await result_of(first)
        assert await result_of(second)
        ended.append("both")

    with within(30):
        async with anyio.create_task_group() as group:
            for _ in range(2 * MOST):
                group.start_soon(pair)
    assert len(ended) == 2 * MOST


async def test_nothing_begins_for_a_caller_that_is_cancelled() -> None:
    called = list[int]()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await in_thread(called.append, 1)
    assert called == []


async def test_task_that_asyncio_cancels_does_not_wait(gate: threading.Event) -> None:
    begun = threading.Event()

    def call() -> None:
        begun.set()
        gate.wait(30)

    task = asyncio.ensure_future(in_thread(call))
    with within(20):
        await in_thread(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not gate.is_set()


async def test_no_more_visits_at_a_time_than_there_may_be(gate: threading.Event) -> None:
    inside, most, lock = 0, list[int](), threading.Lock()

    def call() -> None:
        nonlocal inside
        with lock:
            inside += 1
            most.append(inside)
            if inside == MOST:
                gate.set()
        assert gate.wait(30)
        with lock:
            inside -= 1

    with within(30):
        async with anyio.create_task_group() as group:
            for _ in range(2 * MOST):
                group.start_soon(in_thread, call)
    assert len(most) == 2 * MOST
    assert max(most) == MOST


async def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_visit, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(thread_visit, "_POOL", thread_visit._Pool())
    before = set(visitors())
    for _ in range(3):
        assert await in_thread(int, "1") == 1
        with within(20):
            while set(visitors()) - before:
                await anyio.sleep(0.01)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
async def test_forked_process_starts_threads_of_its_own() -> None:
    await in_thread(int)
    child = os.fork()
    if not child:
        status = 1
        try:
            asyncio.set_event_loop(None)
            asyncio.events._set_running_loop(None)
            status = asyncio.new_event_loop().run_until_complete(in_thread(int, "0"))
        finally:
            os._exit(status)
    with within(20):
        assert await in_thread(os.waitpid, child, 0) == (child, 0)
