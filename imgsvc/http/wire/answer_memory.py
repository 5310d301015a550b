"""A bound on the bytes of answers that are held for clients which have not taken them yet, all together.

One copy that all answers share (the API document, the page's scripts) costs nothing and is not counted.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Problem, overloaded

SMALL_BYTES = 32 * 1024  # of a piece, once there is little room
FREE_BYTES = 4 * 1024  # an answer of this size is never refused
LARGE_SHARE, PIECES_SHARE = 0.5, 0.75  # of the memory: for pieces as large as is wanted, and for any; the rest for JSON
WAIT_SECONDS = 10.0  # for room
LOOK_SECONDS = 0.25
READERS = 8  # answers that hold memory for bytes they do not have yet
COUNTED = "imgsvc.answer_counted"  # in the scope: the bytes are counted elsewhere, or shared by all


class NoRoom(Exception):
    """The memory for answers stayed full."""


class AnswerMemory:
    """`held_bytes` of at most `max_bytes`; `relieve` gives up a client that takes nothing, if there is one."""

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self.max_bytes = max_bytes
        self.relieve: Callable[[], bool] = lambda: False
        self._released = anyio.Event()
        self._readers = anyio.Semaphore(READERS, fast_acquire=True)

    @asynccontextmanager
    async def room(self, wanted_bytes: int) -> AsyncIterator[int]:
        """Hold as many bytes as are wanted, or fewer where there is little room, for reading them inside.

        They are held on after it: `release` gives them back. Raises NoRoom.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            async with self._readers:
                taken = self._take(wanted_bytes)
                if taken:
                    yield taken
                    return
                released = self._released
            if time.monotonic() > deadline:
                raise NoRoom
            self.relieve()
            with anyio.move_on_after(LOOK_SECONDS):
                await released.wait()

    def _take(self, wanted_bytes: int) -> int:
        for size, share in ((wanted_bytes, LARGE_SHARE), (SMALL_BYTES, PIECES_SHARE)):
            granted = min(wanted_bytes, size)
            if self.held_bytes + granted <= share * self.max_bytes:
                self.held_bytes += granted
                return granted
        return 0

    def release(self, taken_bytes: int) -> None:
        """Give back what `room` gave."""
        self.held_bytes -= taken_bytes
        self._released.set()
        self._released = anyio.Event()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count bytes that are there already."""
        self.held_bytes += size
        try:
            yield
        finally:
            self.release(size)

    def has_room(self, size: int) -> bool:
        """Whether an answer of this size may be held too, if need be in the place of one that is not taken."""
        fits = size <= FREE_BYTES or self.held_bytes + size <= self.max_bytes
        return fits or (self.relieve() and self.held_bytes <= self.max_bytes)


class BoundedAnswers:
    """Counts the bodies that handlers make, and answers 503 in the place of one that there is no room for."""

    def __init__(self, app: ASGIApp, memory: AnswerMemory) -> None:
        self.app = app
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        refused = False

        async def send_counted(message: Message) -> None:
            nonlocal start, refused
            if message["type"] == "http.response.start":
                start = message  # goes out with the first bytes: until then another answer may take its place
                return
            if refused:
                return
            size = 0 if scope.get(COUNTED) else len(message.get("body", b""))
            if start is not None:
                if not self._memory.has_room(size):
                    refused = True
                    await no_room(self._memory).response(Request(scope))(scope, receive, send)
                    return
                head, start = start, None
                await send(head)
            with self._memory.holding(size):
                await send(message)

        await self.app(scope, receive, send_counted)


def no_room(memory: AnswerMemory) -> Problem:
    """The answer in the place of one that there is no room for."""
    detail = "Too much of other answers waits for clients that do not take it."
    return overloaded(detail, limit_bytes=memory.max_bytes, measured_bytes=memory.held_bytes)
