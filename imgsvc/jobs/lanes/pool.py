"""A lane's process pool: one warm process, launched, given tasks, and ended.

It is a `ProcessPoolExecutor(max_workers=1)` with a context of ours (`spawn_context`), an environment without secrets,
and beside it two sockets. Over one go the descriptors of a task, and back comes, once the task has begun, a descriptor
of the child that performs it. Without that message a worker that was killed before its task would be held against it.
Over the other comes the task's end. The executor starts the process and ends it; as the way of a task it would take
three threads of this process and twice the time.
"""

import asyncio
import os
import select
import signal
import socket
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from ...imaging import malloc
from . import warm
from .cage import Mode
from .files import open_for_worker, with_free_files
from .messages import Hello, Task, TaskEnd
from .spawn_context import TaskError, WorkerContext, worker_pool

KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX")
MAX_END = warm.MAX_ANSWER + 200  # bytes of a task's end


class Launcher:
    """Starts pools without blocking the event loop, from one thread that lives as long as their processes.

    PR_SET_PDEATHSIG fires when the thread that started a process ends.
    """

    def __init__(self, *, large_pages: bool = True) -> None:
        self._large_pages = large_pages
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

    async def launch(self, niceness: int, cage: Mode) -> "Pool":
        """Start a pool and its warm process. Raises OSError."""
        begun = self._thread.submit(Pool, warm.Launch(os.getpid(), niceness, cage), large_pages=self._large_pages)
        try:
            return await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_abandon)
            raise

    def close(self) -> None:
        """End the thread, and with it every process that it started. Does not wait."""
        self._thread.shutdown(wait=False)


def _abandon(begun: "Future[Pool]") -> None:
    """End a pool whose caller was cancelled while it was being started."""
    if not begun.cancelled() and begun.exception() is None:
        begun.result().end()


class Pool:
    """A warm process and the executor that starts and ends it.

    Made in the launcher's thread; otherwise the event loop's alone. The constructor launches the process and asks
    for its hello, without waiting for it. Raises OSError.
    """

    def __init__(self, launch: warm.Launch, *, large_pages: bool = True) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends, their_ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._ends.setblocking(False)
        self._listening = False  # whether the event loop watches `_ends`
        self._children: list[int] = []  # pidfd of the child of each task that has begun
        self._context = WorkerContext(_environment(large_pages))
        with theirs, their_ends:
            self._executor = worker_pool(self._context, warm.initialize, (theirs, their_ends, launch))
            try:
                self._hello = self._executor.submit(warm.hello)
                self._executor.submit(warm.serve)
            except BaseException:
                self.end()
                raise

    @property
    def pid(self) -> int:
        assert self._context.process
        return self._context.process.pid

    @property
    def alive(self) -> bool:
        return self._context.process is not None and self._context.process.is_alive()

    async def hello(self) -> Hello | None:
        """The worker's first message; None if it has ended. Raises ValueError for something else."""
        text = await self._result_of(self._hello)
        return None if text is None else Hello.model_validate_json(text)

    async def send(self, task: Task, seconds: float, *, optional_codecs: bool) -> None:
        """Open the files of a task and let it be performed in a child that has so many seconds.

        `optional_codecs`: the warm process loads those of HEIC and AVIF first, if it has not.

        Waits while this process has no open files left. Raises as `open_for_worker`, or OSError if the descriptors
        can't be passed.
        """
        self._forget_children()
        await with_free_files(self._send, task, warm.ORDER.pack(seconds, optional_codecs))

    def _send(self, task: Task, order: bytes) -> None:
        """Do it in a thread: on a busy machine the kernel lets the worker go first, and the sender wait."""
        files = open_for_worker(task)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, which `end_of_task` tells
                socket.send_fds(self._socket, [order], files.descriptors)
        finally:
            files.close()

    async def end_of_task(self) -> TaskEnd | None:
        """How the task ended that was sent. None if the warm process has: see `has_begun`.

        Raises ValueError for what is no message.
        """
        message = await self._next_end()
        return TaskEnd.of(message) if message else None

    def has_begun(self) -> bool:
        """Whether the last task got a child, so that it may be the cause of what happened."""
        self._receive_children()
        return bool(self._children)

    def kill(self) -> None:
        """Kill the warm process and the child of its task at once."""
        if self._context.process is not None:
            self._context.process.terminate()
        self._receive_children()
        for child in self._children:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)

    async def close(self) -> None:
        """End both processes and close everything. A cancellation does not interrupt this."""
        self._stop_listening()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.end)

    def end(self) -> None:
        """Do the same, blocking."""
        self.kill()
        self._executor.shutdown()
        self._context.results.close()  # the executor has, unless its worker never started
        self.kill()  # a child that was forked meanwhile
        for child in self._children:
            _wait_for(child)
        self._forget_children()
        self._socket.close()
        self._ends.close()
        if self._context.process is not None:
            _reap_group(self._context.process.pid)
            self._context.process.close()

    def _receive_children(self) -> None:
        with suppress(BlockingIOError, ConnectionResetError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1, socket.MSG_CMSG_CLOEXEC)
                if not data:
                    return
                self._children += descriptors

    def _forget_children(self) -> None:
        self._receive_children()
        for child in self._children:
            os.close(child)
        self._children.clear()

    async def _next_end(self) -> bytes:
        """The next message of a task's end; nothing if the worker has ended."""
        while True:
            await self._readable()
            with suppress(BlockingIOError):
                try:
                    return self._ends.recv(MAX_END)
                except ConnectionResetError:
                    return b""

    async def _readable(self) -> None:
        """Wait until the worker has sent a message or has ended."""
        readable = asyncio.Event()
        self._listening = True
        asyncio.get_running_loop().add_reader(self._ends, readable.set)
        try:
            await readable.wait()
        finally:
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._ends)

    async def _result_of(self, future: "Future[Any]") -> Any:
        """The result of a pool's future, None if the worker ended. Raises ValueError. Never cancels the future."""
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell(_: "Future[Any]") -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(over.set)

        future.add_done_callback(tell)
        await over.wait()
        try:
            return future.result()
        except TaskError as error:
            raise ValueError("the worker failed") from error
        except BrokenProcessPool as error:
            if self._context.results.unusable:
                raise ValueError("not a result") from error
            return None


def _wait_for(child: int) -> None:
    """Wait until a child (a pidfd) that was killed has ended."""
    waiting = select.poll()
    waiting.register(child, select.POLLIN)
    waiting.poll()


def _reap_group(leader: int) -> None:
    """Take the exit status of what a warm process has left, which is this process's only as process 1 of a container.

    Also of a child that had not been announced yet: it ends with the warm process, in whose process group it is.
    """
    with suppress(ChildProcessError):
        while True:
            os.waitid(os.P_PGID, leader, os.WEXITED)


def _environment(large_pages: bool) -> dict[str, str]:
    """The warm process's environment: nothing that a decoder does not need, above all no secret."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    modules = os.pathsep.join(path for path in sys.path if path and Path(path).exists())
    return {malloc.TUNABLES: malloc.tunables(large_pages=large_pages), **kept, "PYTHONPATH": modules}
