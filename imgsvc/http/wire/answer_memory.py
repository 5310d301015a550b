"""Limits the memory for response bodies that clients have not received yet, over all responses.

A body that all responses share (the API document, the page's scripts) is not counted.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from .problems import Problem, overloaded

SMALL_BYTES = 32 * 1024  # of a piece, once memory is short
FREE_BYTES = 4 * 1024  # a response of this size is never refused
LARGE_SHARE, PIECES_SHARE = 0.5, 0.75  # of the memory: for full-size pieces, for all pieces; the rest is for JSON
WAIT_SECONDS = 10.0  # for free memory
LOOK_SECONDS = 0.25
READERS = 8  # responses that reserve memory for bytes that are still being read
COUNTED = "imgsvc.answer_counted"  # in the scope: the bytes are counted elsewhere, or shared


class NoRoom(Exception):
    """The memory for responses stayed full."""


class AnswerMemory:
    """The memory, `held_bytes` of at most `max_bytes`. `relieve` drops a client that receives nothing, if any."""

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self.max_bytes = max_bytes
        self.relieve: Callable[[], bool] = lambda: False
        self._released: anyio.Event | None = None  # while something waits for bytes to be released
        self._readers = anyio.Semaphore(READERS, fast_acquire=True)

    @asynccontextmanager
    async def room(self, wanted_bytes: int) -> AsyncIterator[int]:
        """Reserve the wanted bytes, or fewer if memory is short, for reading them inside the context.

        They stay reserved afterwards until `release`. Raises NoRoom.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            async with self._readers:
                taken = self._take(wanted_bytes)
                if taken:
                    yield taken
                    return
                released = self._released = self._released or anyio.Event()
            if time.monotonic() > deadline:
                raise NoRoom
            self.relieve()
            with anyio.move_on_after(LOOK_SECONDS):
                await released.wait()

    def take(self, wanted_bytes: int) -> bool:
        """Reserve exactly this, if it is there now: for bytes that need no reading. `release` gives it back."""
        if self.held_bytes + wanted_bytes > LARGE_SHARE * self.max_bytes:
            return False
        self.held_bytes += wanted_bytes
        return True

    def _take(self, wanted_bytes: int) -> int:
        for size, share in ((wanted_bytes, LARGE_SHARE), (SMALL_BYTES, PIECES_SHARE)):
            granted = min(wanted_bytes, size)
            if self.held_bytes + granted <= share * self.max_bytes:
                self.held_bytes += granted
                return granted
        return 0

    def release(self, taken_bytes: int) -> None:
        """Release bytes that `room` reserved."""
        self.held_bytes -= taken_bytes
        if self._released is not None:
            self._released.set()
            self._released = None

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count bytes that are already in memory."""
        self.held_bytes += size
        try:
            yield
        finally:
            self.release(size)

    def has_room(self, size: int) -> bool:
        """Whether a response of this size fits, if necessary by dropping one whose client receives nothing."""
        fits = size <= FREE_BYTES or self.held_bytes + size <= self.max_bytes
        return fits or (self.relieve() and self.held_bytes <= self.max_bytes)


def no_room(memory: AnswerMemory) -> Problem:
    """The error that replaces a response that does not fit."""
    detail = "Clients that do not read their responses fill the memory for responses."
    return overloaded(detail, limit_bytes=memory.max_bytes, measured_bytes=memory.held_bytes)
