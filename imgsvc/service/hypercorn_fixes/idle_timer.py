"""The time limit of a connection that waits for its next request."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypercorn.asyncio.task_group import TaskGroup


class IdleTimer:
    """In the place of Hypercorn's `AsyncioSingleTask`, which makes and cancels a task for each request."""

    def __init__(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """`is_over`: whether the server is being stopped, and waits for no request."""
        self._seconds = seconds
        self._is_over = is_over
        self._handle: asyncio.TimerHandle | None = None
        self._expire: Callable[[], None] = _nothing

    async def restart(self, group: TaskGroup, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `action` in the group once the time is over."""
        self._cancel()
        self._expire = lambda: group.spawn(action)
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(0 if self._is_over() else self._seconds, self.expire)

    async def stop(self) -> None:
        """A request has come, or the connection ends."""
        self._cancel()
        self._expire = _nothing

    def expire(self) -> None:
        """End the wait now, if the connection waits."""
        if self._handle is not None:
            self._cancel()
            self._expire()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _nothing() -> None:
    """Nothing is waited for."""
