"""What a connection and its request wait for, while hundreds of them do: a few hundred bytes each.

In the place of asyncio's `Event` and `Queue`, which keep one deque of 0.8 KB in each event and four in each queue.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from hypercorn.asyncio.task_group import TaskGroup, _handle
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope


class Waiters(list["asyncio.Future[None]"]):
    """Tasks that wait for the same change; each looks by itself whether it can go on."""

    __slots__ = ()

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.append(waiter)
        try:
            await waiter
        finally:
            self.remove(waiter)

    def wake(self) -> None:
        for waiter in self:
            if not waiter.done():
                waiter.set_result(None)


class LeanEvent:
    """Hypercorn's `EventWrapper`."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._waiters = Waiters()

    async def clear(self) -> None:
        self._is_set = False

    async def set(self) -> None:
        self._is_set = True
        self._waiters.wake()

    async def wait(self) -> None:
        if not self._is_set:
            await self._waiters.wait()

    def is_set(self) -> bool:
        return self._is_set


class LeanContext(WorkerContext):
    event_class = LeanEvent


class Messages:
    """The queue of one request: parts of its body, and its end."""

    __slots__ = ("_limit", "_messages", "_waiters")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: list[ASGIReceiveEvent] = []
        self._waiters = Waiters()

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Put a message behind the others: bytes of the body once there are none, others once they are fewer than the
        limit.
        """
        most = 1 if message.get("body") else self._limit
        while len(self._messages) >= most:
            await self._waiters.wait()
        self._messages.append(message)
        self._waiters.wake()

    async def get(self) -> ASGIReceiveEvent:
        """Take the first, once there is one."""
        while not self._messages:
            await self._waiters.wait()
        self._waiters.wake()
        return self._messages.pop(0)


class Requests(TaskGroup):
    """The tasks of one connection, each of which answers a request."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        messages, of_wsgi = Messages(config.max_app_queue_size), cast(Any, None)
        self.spawn(_handle, app, config, scope, messages.get, send, of_wsgi, of_wsgi)
        return messages.put
