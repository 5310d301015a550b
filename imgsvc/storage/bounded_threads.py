"""Runs file operations in threads that may hang: on a disk that does not respond a thread can only be abandoned."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from .thread_visit import Visit

T = TypeVar("T")


class BoundedThreads:
    """At most `most` threads at a time. An abandoned thread counts until it ends."""

    def __init__(self, most: int) -> None:
        self._limiter = anyio.CapacityLimiter(most)

    async def run(
        self, work: Callable[[], T], *, linger_seconds: float = 0, dispose: Callable[[T], None] | None = None
    ) -> T:
        """Return the result of `work`. A cancellation waits up to `linger_seconds` for it, then abandons the thread.

        `dispose` is called with a result that came too late. Raises what `work` raises.
        """
        borrower = object()
        try:
            self._limiter.acquire_on_behalf_of_nowait(borrower)
        except anyio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(borrower)
        loop = asyncio.get_running_loop()

        def release() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._limiter.release_on_behalf_of, borrower)

        held = _Held(work, release, dispose)
        try:
            found = await self._visited(held, linger_seconds)
        except BaseException:
            if not held.leave():
                self._limiter.release_on_behalf_of(borrower)
            raise
        self._limiter.release_on_behalf_of(borrower)
        return found

    async def _visited(self, held: "_Held[T]", linger_seconds: float) -> T:
        await checkpoint_if_cancelled()
        visit = Visit(held, counted=False)
        try:
            return await visit.result()
        except asyncio.CancelledError:
            if linger_seconds:
                with anyio.move_on_after(linger_seconds, shield=True):
                    await visit.ended()
            raise


class _Held(Generic[T]):
    """One operation in a thread, which its caller may abandon at any moment."""

    def __init__(self, work: Callable[[], T], release: Callable[[], None], dispose: Callable[[T], None] | None) -> None:
        self._work = work
        self._release = release
        self._dispose = dispose
        self._lock = threading.Lock()
        self._running = self._left = False
        self._found: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if self._left:
                raise RuntimeError("abandoned before it began")
            self._running = True
        found: list[T] = []
        try:
            found.append(self._work())
        finally:
            with self._lock:
                self._running, left = False, self._left
                if not left:
                    self._found = found
            if left:
                self._drop(found)
                self._release()
        return found[0]

    def leave(self) -> bool:
        """Abandon the thread. Returns whether it is still working, in which case it frees its slot itself."""
        with self._lock:
            self._left, found = True, self._found
            self._found = []
        self._drop(found)
        return self._running

    def _drop(self, found: list[T]) -> None:
        if found and self._dispose:
            self._dispose(found[0])
