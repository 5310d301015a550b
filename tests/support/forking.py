"""Processes of `imgsvc` that start in 40 ms: forked from one that has loaded everything.

A forked process runs the program's own `__main__`, with descriptors, a folder, an environment and a session of its
own. What only a start of the interpreter shows needs a real one: the block of the environment in /proc, what is
imported, variables that the interpreter or the C library reads, memory that is measured, a terminal.
"""

import errno
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Self

from tests.support.once import RUN, last_process
from tests.support.preload import library
from tests.support.speed import is_over

ROOT = Path(__file__).parent.parent.parent
WAIT_SECONDS = 30
MESSAGE_BYTES = 1 << 17


class ForkServerEnded(Exception):
    """The process that forks is gone; its standard error says why."""


class Forked:
    """A process that was forked, with the names that subprocess.Popen gives to a text process."""

    def __init__(self, pid: int, status: "Future[int]", stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self._status = status

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """The exit status once it has ended; negative: the signal that ended it."""
        return self._status.result() if self._status.done() else None

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        try:
            return self._status.result(timeout)
        except NotYet:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it writes to its pipes until it ends. Raises TimeoutExpired."""
        said: dict[IO[str], str] = {}

        def read(pipe: IO[str]) -> None:
            with pipe:
                said[pipe] = pipe.read()

        pipes = [pipe for pipe in (self.stdout, self.stderr) if pipe]
        readers = [threading.Thread(target=read, args=(pipe,), daemon=True) for pipe in pipes]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return tuple(said[pipe] if pipe else "" for pipe in (self.stdout, self.stderr))  # type: ignore[return-value]

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it may have ended a moment ago
            if not self._status.done() or self._status.exception():  # of a server that is gone nothing is known
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """A connection to the process that forks; it may be used by several threads.

    All processes of a run of the tests share one such process, which the first of them starts: it takes two seconds of
    processor time to load everything. It ends with the run, and has kill_at.c in it.
    """

    def __init__(self) -> None:
        self.address = f"imgsvc-tests-{os.environ.get(RUN) or uuid.uuid4().hex}"  # abstract (unix(7))
        self._socket = _connected(f"\0{self.address}")
        self._asking = threading.Lock()
        self._started: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._endings: dict[int, Future[int]] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What it forked goes on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._listener.join(WAIT_SECONDS)
        self._socket.close()

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        output: Path | None = None,
        log: Path | None = None,
        module: str = "imgsvc",
        settings: str = "",
        inline: bool = False,
    ) -> Forked:
        """`python -m MODULE ARGUMENTS` in `folder`, its output in files (`log` is added to) or, without one, in pipes.

        `settings` are those of kill_at.c; `inline` renders in threads, as `imgsvc.testing` does.
        """
        order = {
            "module": module,
            "arguments": list(arguments),
            "folder": str(folder),
            "environ": dict(environ),
            "settings": settings,
            "inline": inline,
        }
        stdout, to_stdout = _target(output, os.O_TRUNC)
        stderr, to_stderr = _target(log, os.O_APPEND)
        try:
            with self._asking:
                socket.send_fds(self._socket, [json.dumps(order).encode()], [to_stdout, to_stderr])
                pid = self._next_pid()
                if pid is None:
                    raise ForkServerEnded
                return Forked(pid, self._endings[pid], stdout, stderr)
        finally:
            os.close(to_stdout)
            os.close(to_stderr)

    def _next_pid(self) -> int | None:
        """Raises queue.Empty."""
        began = time.monotonic()
        while True:
            try:
                return self._started.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                if is_over(began, WAIT_SECONDS):
                    raise

    def _listen(self) -> None:
        with suppress(ConnectionResetError):
            while data := self._socket.recv(MESSAGE_BYTES):
                said = json.loads(data)
                if "pid" in said:
                    self._endings[said["pid"]] = Future()
                    self._started.put(said["pid"])
                else:
                    self._endings[said["ended"]].set_result(said["status"])
        for status in self._endings.values():  # or they would be waited for without an end
            if not status.done():
                status.set_exception(ForkServerEnded())
        self._started.put(None)


def _connected(address: str) -> socket.socket:
    """To the server of this run, which is started unless it was."""
    _start_unless_started(address, lives_with=last_process())
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    began = time.monotonic()
    while connection.connect_ex(address):  # another process has the address, and is about to listen
        assert not is_over(began, WAIT_SECONDS)
        time.sleep(0.001)
    return connection


def _start_unless_started(address: str, lives_with: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return
        listener.listen()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MALLOC_ARENA_MAX": "2",
            "LD_PRELOAD": str(library()),
        }
        descriptor = listener.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(descriptor), str(lives_with)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
        server.returncode = 0  # it outlives this process; or subprocess warns of one that was never waited for


def _target(path: Path | None, flag: int) -> tuple[IO[str] | None, int]:
    """A pipe's two ends, or a file to write to."""
    if path is not None:
        return None, os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    read, write = os.pipe()
    return os.fdopen(read), write


@cache
def shared() -> ForkServer:
    """The connection of this process of the tests, which `conftest.py` closes."""
    return ForkServer()


def close_shared() -> None:
    if shared.cache_info().currsize:
        shared().close()
        shared.cache_clear()
