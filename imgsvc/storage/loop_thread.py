"""Runs an asyncio event loop in its own thread, for a library that blocks its loop (files, DNS, TLS, signing)."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the thread and wait for its result. Cancelling the caller cancels `work`."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call_soon(self, work: Callable[[], object]) -> None:
        """Call `work` in the thread, without waiting for it."""
        self._loop.call_soon_threadsafe(work)

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end())
            self._loop.close()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


@asynccontextmanager
async def loop_thread(name: str) -> AsyncIterator[LoopThread]:
    """The loop runs until the end of the block; tasks that are left then are cancelled."""
    loop = LoopThread()
    thread = threading.Thread(target=loop.run, name=name, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.end()
        await asyncio.shield(asyncio.to_thread(thread.join))
