"""The process behind `forking`: it loads everything once and forks for each order.

`python -m tests.support.fork_server SOCKET PID` listens at this socket until the process PID has ended. It reads an
order from each message of a client, with the descriptors for standard output and standard error, and answers {"pid"}
to each, and {"ended", "status"} for each process that ended.
"""

import asyncio
import gc
import importlib
import importlib.metadata
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

from tests.support.botocore_models import share_models
from tests.support.certificates import share_certificates
from tests.support.forking import MESSAGE_BYTES, WAIT_SECONDS
from tests.support.preload import arm

ALONE = {"__main__", "worker_process"}  # modules that run something as they are imported
WITH_DASK = {f"imgsvc.jobs.cluster.{name}" for name in ("dask_client", "dask_setup", "scheduler", "worker")}


def main(descriptor: int, lives_with: int) -> None:
    _load()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this process
    Clients(socket.socket(fileno=descriptor)).serve_until_the_end_of(lives_with)


class Clients:
    """The processes of the tests that are connected, and whose order each running process was."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._orders: dict[int, socket.socket] = {}  # {descriptor: a client}
        self._owners: dict[int, socket.socket] = {}  # {pid: its client}
        self._poller = select.poll()

    def serve_until_the_end_of(self, pid: int) -> None:
        child_ended, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        over = os.pidfd_open(pid)
        for waited in (over, child_ended, self._listener.fileno()):
            self._poller.register(waited, select.POLLIN)
        while over not in (ready := {found for found, _ in self._poller.poll()}):
            if child_ended in ready:
                os.read(child_ended, 4096)
                self._tell_ended()
            if self._listener.fileno() in ready:
                self._accept()
            for client in [self._orders[one] for one in ready if one in self._orders]:
                self._obey(client)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._orders[client.fileno()] = client
        self._poller.register(client.fileno(), select.POLLIN)

    def _obey(self, client: socket.socket) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(client, MESSAGE_BYTES, 2)
        except ConnectionResetError:
            data, descriptors = b"", []
        if not data:
            self._poller.unregister(client.fileno())
            del self._orders[client.fileno()]
            client.close()
            return
        pid = _fork(json.loads(data), descriptors)
        self._owners[pid] = client
        _say(client, pid=pid)
        for descriptor in descriptors:
            os.close(descriptor)

    def _tell_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            _say(self._owners.pop(pid), ended=pid, status=os.waitstatus_to_exitcode(status))


def _say(to: socket.socket, **message: Any) -> None:
    with suppress(OSError):  # it has gone: what it started goes on
        to.send(json.dumps(message).encode())


def _load() -> None:
    """All that is loaded or built when it is first used, so that no forked process has to."""
    import httpx

    import imgsvc
    from imgsvc.settings import all_settings
    from imgsvc.storage import thread_visit
    from tests.support import two_storages  # noqa: F401

    for module in pkgutil.walk_packages(imgsvc.__path__, "imgsvc."):
        if module.name.rpartition(".")[2] not in ALONE and module.name not in WITH_DASK:
            importlib.import_module(module.name)
    _build_commands()
    _build_models()
    all_settings()
    importlib.metadata.version("hypercorn")  # what it finds on its path is kept
    share_models()
    share_certificates()
    httpx.Client().close()
    usual, thread_visit.IDLE_SECONDS = thread_visit.IDLE_SECONDS, 0.01  # or its threads would be waited for ten seconds
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        asyncio.run(_warm_up())
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(WAIT_SECONDS)  # those of the loop that is over: a fork takes none of them along
    thread_visit.IDLE_SECONDS = usual
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


def _build_models() -> None:
    """Those of pydantic that are built at their first use."""
    from pydantic import BaseModel

    waiting: list[type[BaseModel]] = [BaseModel]
    while waiting:
        waiting += (model := waiting.pop()).__subclasses__()
        if model.__module__.startswith("imgsvc."):
            model.model_rebuild()


async def _warm_up() -> None:
    from imgsvc import testing

    async with testing.client() as client:
        accepted = await client.upload(testing.picture(40, 30))
        await client.ready(accepted.json()["job_id"])


def _fork(order: dict[str, Any], descriptors: Sequence[int]) -> int:
    """The PID of the process that does it."""
    pid = os.fork()
    if pid == 0:
        _run(order, descriptors)
    return pid


def _run(order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
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
    queue.START_AGAIN_SECONDS = 0.02


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
