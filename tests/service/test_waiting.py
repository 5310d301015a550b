"""The queue of one request's messages."""

import asyncio
from typing import Any, cast

import pytest

from imgsvc.service.hypercorn_fixes.waiting import LeanEvent, Messages


def message(number: int) -> Any:
    return cast(Any, {"type": "http.request", "body": bytes([number])})


async def waiting(*tasks: "asyncio.Task[Any]") -> None:
    """Let each run as far as it can without the others; none has ended."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_a_message_waits_for_room_and_order_is_kept() -> None:
    queue, messages = Messages(2), [cast(Any, {"type": str(number)}) for number in range(3)]
    await queue.put(messages[0])
    await queue.put(messages[1])
    third = asyncio.create_task(queue.put(messages[2]))
    await waiting(third)
    assert [await queue.get() for _ in range(3)] == messages
    await third


async def test_bytes_of_a_body_wait_until_those_before_are_taken() -> None:
    """The end, which is no bytes, needs no more than room: it must not wait behind a body that nothing reads."""
    queue, end = Messages(2), cast(Any, {"type": "http.disconnect"})
    await queue.put(message(0))
    second = asyncio.create_task(queue.put(message(1)))
    await waiting(second)
    await queue.put(end)
    assert [await queue.get() for _ in range(3)] == [message(0), end, message(1)]
    await second


async def test_a_message_goes_to_one_of_those_who_wait() -> None:
    queue = Messages(2)
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await waiting(first, second)
    await queue.put(message(0))
    assert await first == message(0)
    await waiting(second)
    await queue.put(message(1))
    assert await second == message(1)


async def test_a_message_is_not_lost_with_a_wait_that_is_given_up_as_it_comes() -> None:
    queue = Messages(2)
    given_up = asyncio.create_task(queue.get())
    await waiting(given_up)
    await queue.put(message(0))
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await queue.get() == message(0)


async def test_an_event_lets_all_go_on_until_it_is_cleared() -> None:
    event = LeanEvent()
    tasks = [asyncio.create_task(event.wait()) for _ in range(2)]
    await waiting(*tasks)
    await event.set()
    await asyncio.gather(*tasks)
    await event.wait()
    await event.clear()
    again = asyncio.create_task(event.wait())
    await waiting(again)
    assert not event.is_set()
    await event.set()
    await again
