"""A Dask cluster on loopback: scheduler and workers as processes that get real signals, and a service that uses it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any

from tests.support.server_process import ROOT, ServerProcess, until
from tests.support.tls import Authority

WHY = "Dask is loaded by it, and by nothing else here"
LEAST = 19  # niceness


class Cluster:
    """What it starts ends with the context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.processes: list[subprocess.Popen[str]] = []
        self.scheduler: subprocess.Popen[str]
        self.address = ""
        self.host = "127.0.0.1"  # of the scheduler
        self._logs = 0

    def __enter__(self) -> "Cluster":
        self.start_scheduler()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def certificates(self, machine: str, authority: Authority | None = None) -> dict[str, str]:
        certfile, keyfile = (authority or self.authority).certificate(machine)
        return {
            "IMGSVC_WORKERS_CAFILE": str((authority or self.authority).ca_file),
            "IMGSVC_WORKERS_CERTFILE": str(certfile),
            "IMGSVC_WORKERS_KEYFILE": str(keyfile),
        }

    def start_scheduler(self) -> None:
        """At the port of the one before, if there was one."""
        port = self.address.rpartition(":")[2] or "0"
        command = ("scheduler", "--host", self.host, "--port", port, "--http-port", "0")
        self.scheduler = self.start(command, **self.certificates("scheduler"))
        assert self.scheduler.stdout
        for line in self.scheduler.stdout:
            if "listens on" in line:
                self.address = line.split()[-1]
                return
        raise AssertionError("the scheduler has not started")

    def start_worker(
        self, count: int = 1, memory_mb: int = 1400, inside: Sequence[str] = (), **environment: str
    ) -> "Worker":
        """`inside`: a command that runs it, in another network for one."""
        command = ("worker", "--scheduler", self.address, "--count", str(count), "--memory-mb", str(memory_mb))
        given = {**self.certificates(f"worker{len(self.processes)}"), **environment}
        return Worker(self, self.start(command, inside, **given), self.last_log)

    def start_prepared(self, count: int, seconds: float = 0, stall: str = "", rate: float = inf) -> "Worker":
        """A worker that renders each picture once, and then only sleeps and sends (`prepared_worker`)."""
        given = (str(count), str(seconds), *([stall] if stall else []), f"--rate={rate}")
        command = ("tests.support.prepared_worker", self.address, *given)
        process = self.start(command, **self.certificates(f"worker{len(self.processes)}"))
        return Worker(self, process, self.last_log)

    @property
    def last_log(self) -> Path:
        return self.folder / f"log-{self._logs}.txt"

    def start(
        self, arguments: Sequence[str], inside: Sequence[str] = (), **environment: str
    ) -> "subprocess.Popen[str]":
        self._logs += 1
        command = arguments[0] in ("worker", "scheduler")
        piped = arguments[0] == "scheduler"
        with self.last_log.open("w") as log:
            process = subprocess.Popen(
                [*inside, sys.executable, "-m", *(("imgsvc",) if command else ()), *arguments],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log if piped else subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    @contextmanager
    def service(self, folder: Path, machines: int | None = 1, **environment: str) -> "Iterator[ClusterService]":
        """A service, once so many machines are used; None: once it is connected."""
        with self.made_service(folder, **environment) as service:
            if machines is None:
                until(lambda: service.data()["cluster"]["status"] == "connected")
            else:
                until(lambda: sum(one["used"] for one in service.machines()) == machines)
            yield service

    def made_service(self, folder: Path, **environment: str) -> "ClusterService":
        folder.mkdir(exist_ok=True)
        given = {
            "IMGSVC_WORKERS_ENGINE": "dask",
            "IMGSVC_WORKERS_SCHEDULER": self.address,
            "IMGSVC_WORKERS_LOCAL_RENDERS": "0",
            "IMGSVC_WORKERS_LOCAL_PREVIEW": "false",
            **self.certificates("service"),
            **environment,
        }
        return ClusterService(folder, real=WHY, **given)


class Worker:
    """A worker's process. `log` is the file of its output."""

    def __init__(self, cluster: Cluster, process: "subprocess.Popen[str]", log: Path) -> None:
        self.cluster, self.process, self.log = cluster, process, log

    def joined(self) -> "Worker":
        until(lambda: "worker_joined" in self.log.read_text())
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def warm(self) -> list[int]:
        """The warm processes of its lanes."""
        return children(self.process.pid)

    def rendering(self) -> list[int]:
        """The processes of the pictures that it works on, in their cages."""
        return [child for warm in self.warm() for child in children(warm) if is_caged(child)]


class ClusterService(ServerProcess):
    """A service that renders on a cluster."""

    def data(self) -> dict[str, Any]:
        answer = self.http.get(f"{self.url}/dashboard/data", headers=self.operator or {})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def machines(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.data()["cluster"]["machines"]
        return found

    def events(self, text: str) -> list[dict[str, Any]]:
        """The log's lines of this event."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == text]

    def gateway(self) -> int:
        """Its process; 0 if there is none."""
        return next((pid for pid in children(self.service_pid) if "gateway" in command_line(pid)), 0)


def children(pid: int) -> list[int]:
    try:
        found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for of_thread in found for child in of_thread]


def is_caged(pid: int) -> bool:
    try:
        return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def give_way(pid: int) -> None:
    """Let a process, the first of its session, take only processor time that nothing else wants.

    Linux shares it out among sessions first (sched(7), "The autogroup feature").
    """
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), LEAST)
    with suppress(FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text(str(LEAST))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
