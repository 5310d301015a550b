"""One worker process: its start, the lines exchanged with it, and its end.

A child process with pipes instead of a process pool. It starts with a scrubbed environment (a pool's children inherit
all secrets), speaks JSON (a pool unpickles whatever a taken-over worker sends), and never runs the caller's main
module.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel

MAX_LINE = 1 << 20  # bytes of one message
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX")
M = TypeVar("M", bound=BaseModel)


class Launcher:
    """Starts processes without blocking the event loop, from one thread that lives as long as the processes.

    uvloop forks, and copying the page tables of a service of some hundred megabytes blocks it for tens of milliseconds;
    `subprocess` uses vfork. One thread, because PR_SET_PDEATHSIG fires when the thread that started a child ends.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

    async def launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process with pipes as standard input and output. Raises OSError."""
        begun = self._thread.submit(_popen, command)
        try:
            return await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_abandon)
            raise

    def close(self) -> None:
        """End the thread, and with it every process that it started. Does not wait."""
        self._thread.shutdown(wait=False)


def _popen(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603, our own interpreter and module
        command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
    )


def _abandon(begun: "Future[subprocess.Popen[bytes]]") -> None:
    """End a process whose caller was cancelled while it was being started."""
    if begun.cancelled() or begun.exception() is not None:
        return
    process = begun.result()
    process.kill()
    process.communicate()


class Worker:
    """A worker process. Only one task of the event loop may read and write messages."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._killed = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._pidfd: int | None = None
        with suppress(AttributeError, OSError):  # no pidfd outside Linux
            self._pidfd = os.pidfd_open(process.pid)

    @classmethod
    async def launch(cls, launcher: Launcher, niceness: int) -> Self:
        """Start a process, without waiting for its first line. Raises OSError."""
        command = (sys.executable, "-P", "-m", f"{__package__}.worker", str(os.getpid()), str(niceness))
        worker = cls(await launcher.launch(command))
        try:
            await worker._connect()
        except BaseException:
            await worker.close()
            raise
        return worker

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=MAX_LINE)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), self._process.stdout)
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), self._process.stdin
        )
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.poll() is None

    async def write(self, line: bytes) -> bool:
        """Write one line; False if the process could not receive it."""
        try:
            self._writer.write(line + b"\n")
            await self._writer.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    async def read(self, kind: type[M]) -> M | None:
        """Read the next message; None if the process has ended. Raises ValueError for a line of another kind."""
        line = await self._reader.readline()
        return kind.model_validate_json(line) if line.endswith(b"\n") else None

    def kill(self) -> None:
        """Kill the process immediately."""
        self._killed = True
        with suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # never a pid that the system has reused
            else:
                self._process.kill()

    async def close(self) -> None:
        """End the process and close its pipes. A cancellation does not interrupt this."""
        with anyio.CancelScope(shield=True):
            self.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None and not hasattr(self, "_writer"):
                    pipe.close()
            if hasattr(self, "_writer"):
                self._writer.close()
            await self._ended()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    async def _ended(self) -> None:
        if self._pidfd is None:
            await anyio.to_thread.run_sync(self._process.wait)
            return
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._pidfd, over.set)  # readable once the process has ended
        try:
            await over.wait()
        finally:
            loop.remove_reader(self._pidfd)
        self._process.wait()


def _environment() -> dict[str, str]:
    """The worker's environment: nothing that a decoder does not need, above all no secret."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path and Path(path).exists())}
