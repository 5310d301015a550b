"""Visits to threads, for what blocks: above all files.

An upload makes some ten of them. Those of anyio take twice the processor time: a cancel scope, a limiter, a checkpoint
and a queue in Python for each. A cancellation means the same here as there: it waits for the visit's end.
"""

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

P = ParamSpec("P")
T = TypeVar("T")

MOST = 40  # counted visits at a time; further ones wait for their turn
IDLE_SECONDS = 10.0  # that a thread waits for its next visit


class Visit(Generic[T]):
    """One call in a thread, which begins at once. One that is not `counted` has a limit of its own (BoundedThreads)."""

    def __init__(self, work: Callable[[], T], *, counted: bool) -> None:
        self.counted = counted
        self._work = work
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._found: list[T] = []
        self._error: BaseException | None = None
        _POOL.begin(self)

    async def ended(self) -> None:
        """Wait for the end of the call. Cancelled, it may be called once more."""
        if self._over.cancelled():
            self._over = self._loop.create_future()
            if self._found or self._error:
                self._over.set_result(None)
        await self._over

    async def result(self) -> T:
        """Wait for the result, or raise what the call raised."""
        await self.ended()
        if self._error is not None:
            error, self._error = self._error, None  # which refers to this frame
            raise error
        return self._found.pop()

    def perform(self) -> None:
        """Call it, in the thread."""
        try:
            self._found.append(self._context.run(self._work))
        except BaseException as error:
            self._error = error

    def tell(self) -> None:
        """Pass the result on, in the thread, which has no further use of this object."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


class AwaitedVisit(Visit[T]):
    """A visit that a further thread may wait for, which goes on at once: the event loop is not even woken in between.

    The loop is told of the end only if something in it waits for that.
    """

    def __init__(self, work: Callable[[], T], *, counted: bool) -> None:
        self.has_ended = False
        self._is_awaited = False  # in the event loop: set before it looks at `has_ended`, and read after that is set
        self._signals: SimpleQueue[None] = SimpleQueue()
        self._callbacks: list[Callable[[], None]] = []
        super().__init__(work, counted=counted)

    def wait(self) -> bool:
        """Wait in a thread for the end of the call; False if `interrupt` was called first. Raises what it raised."""
        if not self.has_ended:
            self._signals.get()
        if self.has_ended and self._error is not None:
            raise self._error
        return self.has_ended

    def interrupt(self) -> None:
        """End the wait in a thread; if none has begun, end the next."""
        self._signals.put(None)

    async def ended(self) -> None:
        self._is_awaited = True
        if not self.has_ended:
            await super().ended()

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Have this called in the event loop, once the call has ended."""
        self._callbacks.append(callback)
        self._is_awaited = True
        if self.has_ended:
            self._loop.call_soon(self._end)

    def tell(self) -> None:
        self.has_ended = True
        self._signals.put(None)
        if self._is_awaited:
            super().tell()

    def _end(self) -> None:
        super()._end()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class _Pool:
    """Threads, each of which ends after some idle time. None keeps the process from ending."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Thread] = []
        self._waiting: deque[Visit[Any]] = deque()
        self._counted = 0

    def begin(self, visit: "Visit[Any]") -> None:
        with self._lock:
            if visit.counted:
                if self._counted >= MOST:
                    self._waiting.append(visit)
                    return
                self._counted += 1
            thread = self._idle.pop() if self._idle else None
        if thread is None:
            thread = _Thread(self)
            try:
                thread.start()
            except BaseException:
                with self._lock:
                    self._counted -= visit.counted
                raise
        thread.inbox.put(visit)

    def ended(self, thread: "_Thread", visit: "Visit[Any]") -> "Visit[Any] | None":
        """A thread has made a visit. Returns another one for it, or notes that it is idle."""
        with self._lock:
            if visit.counted and self._waiting:
                return self._waiting.popleft()
            self._counted -= visit.counted
            self._idle.append(thread)
            return None

    def leave(self, thread: "_Thread") -> bool:
        """Let an idle thread end. False: it is just being given a visit."""
        with self._lock:
            with suppress(ValueError):
                self._idle.remove(thread)
                return True
            return False


class _Thread(threading.Thread):
    def __init__(self, pool: _Pool) -> None:
        super().__init__(name="visit", daemon=True)
        self.inbox: SimpleQueue[Visit[Any]] = SimpleQueue()
        self._pool = pool

    def run(self) -> None:
        visit: Visit[Any] | None = self.inbox.get()
        while visit is not None:
            visit.perform()
            another = self._pool.ended(self, visit)  # before its caller goes on, who may need a thread at once
            visit.tell()
            visit = None  # what it refers to may be large
            visit = another or self._next()

    def _next(self) -> Visit[Any] | None:
        try:
            return self.inbox.get(timeout=IDLE_SECONDS)
        except Empty:
            return None if self._pool.leave(self) else self.inbox.get()


_POOL = _Pool()


def _forget() -> None:
    """A forked process has none of the threads."""
    global _POOL
    _POOL = _Pool()


os.register_at_fork(after_in_child=_forget)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread. A cancellation takes effect at the caller's next wait, once the call has ended."""
    await checkpoint_if_cancelled()
    return await result_of(Visit(partial(function, *args, **kwargs), counted=True))


async def result_of(visit: Visit[T]) -> T:
    """What a visit returns or raises. A cancellation is as for `in_thread`."""
    try:
        return await visit.result()
    except asyncio.CancelledError:
        if anyio.current_effective_deadline() > -inf:  # not by a scope, which would cancel the next wait too
            raise
    with anyio.CancelScope(shield=True):
        await visit.ended()
    return await visit.result()
