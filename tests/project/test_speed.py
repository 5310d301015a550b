"""Time limits of the tests on a machine that is slower than it should be."""

import asyncio

import anyio
import pytest

from tests.support import speed
from tests.support.speed import PATIENCE, within

LIMIT = 0.1


async def set_after(delay: float) -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(delay, event.set)
    await event.wait()


async def test_limit_is_stretched_by_what_the_machine_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "seconds", lambda limit: 3 * limit)
    with within(LIMIT):
        await set_after(2 * LIMIT)
    with pytest.raises(TimeoutError), within(LIMIT):
        await anyio.sleep_forever()


async def test_limit_of_a_quiet_machine_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "seconds", lambda limit: limit)
    with pytest.raises(TimeoutError), within(LIMIT):
        await set_after(2 * LIMIT)


async def test_nothing_is_waited_for_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "seconds", lambda limit: 1000 * limit)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), within(LIMIT):
        await anyio.sleep_forever()
    assert asyncio.get_running_loop().time() - began >= PATIENCE * LIMIT
