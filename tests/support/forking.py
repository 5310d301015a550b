"""Processes of `imgsvc` that start in 40 ms: forked from one that has loaded everything.

A forked process runs the program's own `__main__`, with descriptors, a folder, an environment and a session of its
own. What only a start of the interpreter shows needs a real one: the block of the environment in /proc, what is
imported, variables that the interpreter or the C library reads, memory that is measured, a terminal.

`python -m tests.support.forking SOCKET` reads an order from each message at this socket, with the descriptors for
standard output and standard error, and answers {"pid"} to each, and {"ended", "status"} for each process that ended.
"""

import asyncio
import gc
import importlib
import json
import os
import pkgutil
import queue
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn, Self

from tests.support.botocore_models import share_models
from tests.support.preload import arm, library
from tests.support.speed import is_over

ROOT = Path(__file__).parent.parent.parent
WAIT_SECONDS = 30
MESSAGE_BYTES = 1 << 17
ALONE = {"__main__", "worker_process"}  # modules that run something as they are imported
WITH_DASK = {f"imgsvc.jobs.cluster.{name}" for name in ("dask_client", "dask_setup", "scheduler", "worker")}


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
    """The process that forks. One for each process of the tests; it may be asked from several threads.

    `preload`: with kill_at.c in it.
    """

    def __init__(self, *, preload: bool = False) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MALLOC_ARENA_MAX": "2",
            **({"LD_PRELOAD": str(library())} if preload else {}),
        }
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forking", str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
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
        """End it; what it forked goes on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._process.wait(WAIT_SECONDS)
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


def _target(path: Path | None, flag: int) -> tuple[IO[str] | None, int]:
    """A pipe's two ends, or a file to write to."""
    if path is not None:
        return None, os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    read, write = os.pipe()
    return os.fdopen(read), write


@cache
def shared() -> ForkServer:
    """The one of this process of the tests, which `conftest.py` closes."""
    return ForkServer()


def close_shared() -> None:
    if shared.cache_info().currsize:
        shared().close()
        shared.cache_clear()


def main(descriptor: int) -> None:
    _load()
    orders = socket.socket(fileno=descriptor)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this process
    poller = select.poll()
    for waited in (orders.fileno(), read):
        poller.register(waited, select.POLLIN)
    while True:
        ready = {found for found, _ in poller.poll()}
        if read in ready:
            os.read(read, 4096)
            _tell_ended(orders)
        if orders.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, 2)
            if not data:
                return
            _fork(orders, json.loads(data), descriptors)


def _say(to: socket.socket, **message: Any) -> None:
    to.send(json.dumps(message).encode())


def _tell_ended(to: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(to, ended=pid, status=os.waitstatus_to_exitcode(status))


def _load() -> None:
    """All that is loaded or built when it is first used, so that no forked process has to."""
    import imgsvc
    from tests.support import two_storages  # noqa: F401

    for module in pkgutil.walk_packages(imgsvc.__path__, "imgsvc."):
        if module.name.rpartition(".")[2] not in ALONE and module.name not in WITH_DASK:
            importlib.import_module(module.name)
    _build_commands()
    share_models()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        asyncio.run(_warm_up())
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(WAIT_SECONDS)  # those of the loop that is over: a fork takes none of them along
    deadline = time.monotonic() + WAIT_SECONDS
    while len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208, a thread that was joined is still leaving
        assert time.monotonic() < deadline, f"a fork would leave threads behind: {threading.enumerate()}"
        time.sleep(0.001)
    gc.collect()
    gc.freeze()


def _build_commands() -> None:
    """Typer reads the signatures of all commands at each call, which takes as long as a start of the service."""
    import typer.main

    from imgsvc.cli.main import app

    def prepare(command: Any) -> None:
        command.get_help_option(typer.Context(command))
        for parameter in command.params:
            parameter.get_runtime_param()
        for other in getattr(command, "commands", {}).values():
            prepare(other)

    built = typer.main.get_command(app)
    prepare(built)
    setattr(typer.main, "get_command", lambda _: built)  # noqa: B010


async def _warm_up() -> None:
    from imgsvc import testing

    async with testing.client() as client:
        accepted = await client.upload(testing.picture(40, 30))
        await client.ready(accepted.json()["job_id"])


def _fork(orders: socket.socket, order: dict[str, Any], descriptors: Sequence[int]) -> None:
    pid = os.fork()
    if pid:
        _say(orders, pid=pid)
        for descriptor in descriptors:
            os.close(descriptor)
        return
    try:
        _become(order, descriptors)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        _end(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    except BaseException:
        traceback.print_exc()
        _end(1)
    _end(0)


def _end(status: int) -> NoReturn:
    """As the interpreter would, but for the handlers of what was loaded before the fork."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _become(order: dict[str, Any], descriptors: Sequence[int]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup(1)
    os.setsid()
    for target, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, target)
    os.closerange(3, max(int(name) for name in os.listdir("/proc/self/fd")) + 1)  # noqa: PTH208
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["folder"])
    if os.environ.get("PYTHONWARNINGS") == "default":
        warnings.simplefilter("default")
    if order["settings"]:
        arm(order["settings"])
    sys.argv = [order["module"], *order["arguments"]]
    if order["inline"]:
        _render_in_threads()
    if order["settings"]:
        _pause_briefly()
    sys.modules.pop(order["module"], None)  # one of ours that was loaded before runs again
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def _render_in_threads() -> None:
    from imgsvc.service import assembly, lanes
    from imgsvc.testing import InlineLane

    gc.set_threshold(50_000)  # it lives for seconds
    names = ("preview",) if os.environ.get("IMGSVC_WORKERS_LOCAL_RENDERS") == "0" else ("preview", "render")
    inline = tuple(map(InlineLane, names))

    def opened(settings: Any, metrics: Any, _: Any, receiving: Any) -> Any:
        return lanes.worker_lanes(settings, metrics, inline, receiving)

    setattr(assembly, "worker_lanes", opened)  # noqa: B010


def _pause_briefly() -> None:
    """The service pauses a second after each refusal of the database, and a full disk brings six."""
    from imgsvc.jobs import queue, retry_timer, settlement

    settlement.RECORD_AGAIN_SECONDS = queue.LOOK_AGAIN_SECONDS = retry_timer.AGAIN_SECONDS = 0.02


if __name__ == "__main__":
    main(int(sys.argv[1]))
