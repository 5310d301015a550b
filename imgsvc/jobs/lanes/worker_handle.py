"""One worker process: its start, the lines exchanged with it, and its end.

A child process instead of a process pool. It starts with a scrubbed environment (a pool's children inherit all
secrets), speaks JSON (a pool unpickles whatever a taken-over worker sends), and never runs the caller's main module.
Its standard input and output are one socket and not two pipes: uvloop closes the descriptor of a pipe twice, and in
between a thread may have opened a file under the same number.
"""

import asyncio
import os
import signal
import socket
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

    async def launch(self, command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start a process, and return it with the other end of its standard input and output. Raises OSError."""
        begun = self._thread.submit(_popen, command)
        try:
            return await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_abandon)
            raise

    def close(self) -> None:
        """End the thread, and with it every process that it started. Does not wait."""
        self._thread.shutdown(wait=False)


def _popen(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603, our own interpreter and module
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), env=_environment()
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def _abandon(begun: "Future[tuple[subprocess.Popen[bytes], socket.socket]]") -> None:
    """End a process whose caller was cancelled while it was being started."""
    if begun.cancelled() or begun.exception() is not None:
        return
    process, connection = begun.result()
    connection.close()
    process.kill()
    process.wait()


class Worker:
    """A worker process. Only one task of the event loop may read and write messages."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.pid = process.pid
        self._process = process
        self._connection = connection
        self._killed = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._pidfd: int | None = None
        with suppress(AttributeError, OSError):  # no pidfd outside Linux
            self._pidfd = os.pidfd_open(process.pid)

    @classmethod
    async def launch(cls, launcher: Launcher, niceness: int) -> Self:
        """Start a process, without waiting for its first line. Raises OSError."""
        command = (sys.executable, "-P", "-m", f"{__package__}.worker", str(os.getpid()), str(niceness))
        worker = cls(*await launcher.launch(command))
        try:
            worker._reader, worker._writer = await asyncio.open_connection(sock=worker._connection, limit=MAX_LINE)
        except BaseException:
            await worker.close()
            raise
        return worker

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.poll() is None

    async def write(self, line: bytes) -> bool:
        """Write one line; False if the process could not receive it."""
        assert self._writer
        try:
            self._writer.write(line + b"\n")
            await self._writer.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    async def read(self, kind: type[M]) -> M | None:
        """Read the next message; None if the process has ended. Raises ValueError for a line of another kind."""
        try:
            line = await self._reader.readline()
        except ConnectionResetError:  # it ended without having read all that was written
            return None
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
        """End the process and close the connection to it. A cancellation does not interrupt this."""
        with anyio.CancelScope(shield=True):
            self.kill()
            (self._writer or self._connection).close()
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
