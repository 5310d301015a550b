"""Processes of `imgsvc` that start in 40 ms: forked from one that has loaded everything, with `kill_at.c` in it.

The forked process runs the program's own command line and closes no corner of it but one: unless it is asked for
worker processes, it renders in threads, as `imgsvc.testing` does.

`python -m tests.support.forking` reads one JSON object a line from standard input, and writes {"pid"} for each and
{"ended", "status"} for each process that has ended.
"""

import asyncio
import ctypes
import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn, Self

from tests.support.preload import library

ROOT = Path(__file__).parent.parent.parent
WAIT_SECONDS = 30


class Forked:
    """A process that was forked. Its exit status is known once it has ended; negative: the signal that ended it."""

    def __init__(self, pid: int, status: "Future[int]") -> None:
        self.pid = pid
        self._status = status

    def poll(self) -> int | None:
        return self._status.result() if self._status.done() else None

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Raises TimeoutError."""
        return self._status.result(seconds)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it may have ended a moment ago
            if self.poll() is None:
                os.kill(self.pid, number)


class ForkServer:
    """The process that forks. One for each process of the tests; it may be asked from several threads."""

    def __init__(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(library()),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._asking = threading.Lock()
        self._started: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._endings: dict[int, Future[int]] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(WAIT_SECONDS)
        self._listener.join(WAIT_SECONDS)
        self._process.stdout.close()

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        output: Path,
        log: Path,
        settings: str = "",
        processes: bool = False,
    ) -> Forked:
        """`imgsvc ARGUMENTS` in `folder`; `settings` are those of kill_at.c."""
        order = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environ": dict(environ),
            "output": str(output),
            "log": str(log),
            "settings": settings,
            "processes": processes,
        }
        assert self._process.stdin
        with self._asking:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            pid = self._started.get(timeout=WAIT_SECONDS)
            return Forked(pid, self._endings[pid])

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            said = json.loads(line)
            if "pid" in said:
                self._endings[said["pid"]] = Future()
                self._started.put(said["pid"])
            else:
                self._endings[said["ended"]].set_result(said["status"])


def main() -> None:
    _load()
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this process
    poller, waiting = select_poll(0, read), b""
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if read in ready:
            os.read(read, 4096)
            _tell_ended()
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                _fork(json.loads(line))


def select_poll(*descriptors: int) -> Any:
    import select

    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return poller


def _say(**message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _tell_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(ended=pid, status=os.waitstatus_to_exitcode(status))


def _load() -> None:
    """All that is loaded or built when it is first used, so that no forked process has to."""
    import typer.main

    from imgsvc import cli, server  # noqa: F401
    from imgsvc.commands import storage, upkeep_alone  # noqa: F401
    from imgsvc.upkeep import restore  # noqa: F401
    from tests import two_storages  # noqa: F401

    setattr(cli, "app", typer.main.get_command(cli.app))  # noqa: B010
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        asyncio.run(_warm_up())
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(WAIT_SECONDS)  # those of the loop that is over: a fork takes none of them along
    gc.collect()
    gc.freeze()


async def _warm_up() -> None:
    from imgsvc import testing

    async with testing.client() as client:
        accepted = await client.upload(testing.picture(40, 30))
        await client.ready(accepted.json()["job_id"])


def _fork(order: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        _say(pid=pid)
        return
    try:
        _become(order)
    except SystemExit as ended:
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


def _become(order: dict[str, Any]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
    os.setsid()
    _redirect("/dev/null", os.O_RDONLY, 0)
    _redirect(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 1)
    _redirect(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 2)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["folder"])
    sys.argv = ["imgsvc", *order["arguments"]]
    from tests import two_storages

    if not order["processes"]:
        _render_in_threads()
    if order["settings"]:
        ctypes.CDLL(str(library())).kill_at_arm(order["settings"].encode())
    two_storages.main()


def _redirect(path: str, flags: int, target: int) -> None:
    descriptor = os.open(path, flags, 0o600)
    os.dup2(descriptor, target)
    os.close(descriptor)


def _render_in_threads() -> None:
    from imgsvc.testing import InlineLane
    from tests import two_storages

    two_storages.lanes = (InlineLane("preview"), InlineLane("render"))


if __name__ == "__main__":
    main()
