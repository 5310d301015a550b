"""An event loop in a thread of its own, for a library that makes its loop wait (files, DNS, TLS set-up, signing)."""

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
        """Run `work` there and wait for it here. If the caller is cancelled, so is `work`."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def soon(self, work: Callable[[], object]) -> None:
        """Call it there, without waiting."""
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
    """The loop turns until the end of the block; what still runs there then is cancelled."""
    loop = LoopThread()
    thread = threading.Thread(target=loop.run, name=name, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.end()
        await asyncio.shield(asyncio.to_thread(thread.join))
