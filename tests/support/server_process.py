"""`imgsvc serve` as a process, in a process group of its own, that gets real signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from imgsvc.access.operator_auth import login_code
from imgsvc.access.tokens import Tokens
from tests.support.invariants import Places, faults
from tests.support.processes import Process, begin, run
from tests.support.running_invariants import Watched, faults_of_running
from tests.support.speed import is_over

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef-process-tests"
WAIT_SECONDS = 30


def until(found: Callable[[], T], limit: float = WAIT_SECONDS) -> T:
    """What `found` returns as soon as that is true; an AssertionError after so many seconds of a quiet machine."""
    began = time.monotonic()
    while not (value := found()):
        assert not is_over(began, limit), f"nothing after {time.monotonic() - began:.1f} seconds"
        time.sleep(0.02)
    return value


def exit_status(process: "Process | subprocess.Popen[bytes]") -> int:
    """Once it has ended; an AssertionError after half a minute of a quiet machine. Negative: the signal."""
    until(lambda: process.poll() is not None)
    return process.wait()


def bearer(user: str = "alice") -> dict[str, str]:
    return {"Authorization": f"Bearer {Tokens(SECRET, 'HS256').issue(user)}"}


class ServerProcess:
    """`real`: why a process that is forked from one that has loaded everything would not do."""

    command: Sequence[str] = (sys.executable,)
    module = "imgsvc"
    inline = False
    process: Process

    def __init__(self, folder: Path, *, real: str = "", **environment: str) -> None:
        self.folder = folder
        self.real = real
        self.log = folder / "log.txt"
        self.environ: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "default",
            "MALLOC_ARENA_MAX": "2",  # as ./run, the container and the systemd unit set it
            "JWT_SECRET_KEY": SECRET,
            "DATABASE_PATH": str(folder / "data" / "imgsvc.db"),
            "STORAGE_PATH": str(folder / "storage"),
            "IMGSVC_WORKERS_COUNT": "1",
            "RATE_LIMIT_MAX_UPLOADS": "1000000",
            **{name: value for name, value in os.environ.items() if name == "IMGSVC_SERVER_CACHE_MB"},
            **environment,
        }
        self.http = httpx.Client(timeout=WAIT_SECONDS)
        self._unchecked = ""
        self._idle_files = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it, and look whether the invariants hold: of the service if it still runs, then of what it leaves."""
        self.http.close()
        check = kind is None and not self._unchecked
        found: list[str] = []
        try:
            if check and self.process.poll() is None:
                found += self._faults_of_running()
        finally:
            self.process.kill()
            status = self.process.wait()
            assert self.process.stdout
            self.process.stdout.close()
        if check:
            found += faults(self.places, "stopped" if status == 0 else "killed")
        assert not found, "\n".join(["Invariants do not hold:", *found])

    def _faults_of_running(self) -> list[str]:
        try:
            return faults_of_running(self.watched)
        except OSError as error:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
                return []  # it was just ending
            return [f"The service does not answer: {error}."]

    def leave_unchecked(self, reason: str) -> None:
        """The test breaks on purpose what the invariants are about, and says how."""
        assert len(reason) > 10
        self._unchecked = reason

    @property
    def places(self) -> Places:
        """Where it keeps its files; those in S3 are not looked at."""
        storages = {"local": Path(self.environ["STORAGE_PATH"]), "other": self.folder / "other"}
        return Places(Path(self.environ["DATABASE_PATH"]), storages)

    @property
    def service_pid(self) -> int:
        return self.process.pid

    @property
    def watched(self) -> Watched:
        return Watched(self.url, self.operator, self.service_pid, self.places.database, self._idle_files)

    @property
    def operator(self) -> dict[str, str] | None:
        """Headers of the operator; None where the token is the test's own."""
        token = Path(self.environ["DATABASE_PATH"]).with_name("operator_token")
        hosts = self.environ.get("IMGSVC_SERVER_ALLOWED_HOSTS", "").split(",")
        host = {"Host": hosts[0]} if hosts[0] else {}
        return {"Authorization": f"Bearer {token.read_text().strip()}", **host} if token.exists() else None

    def start(self, port: int = 0) -> Self:
        """0: any free port."""
        self.process = begin(
            ["serve", "--port", str(port)],
            folder=self.folder,
            environ=self.environ,
            module=self.module,
            log=self.log,
            real=self.real,
            inline=self.inline,
            interpreter=self.command,
        )
        assert self.process.stdout
        first = self.process.stdout.readline()
        assert "listens on" in first, self.log.read_text()[-2000:]
        self.url = first.split()[-1]
        with suppress(httpx.HTTPError, httpx.InvalidURL):  # the report waits for the workers
            httpx.get(f"{self.url}/api/v1/health", timeout=WAIT_SECONDS, verify=False)  # its certificate is ours
        self._idle_files = self.watched.open_files
        return self

    def run(self, *arguments: str, real: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """A command with the server's own settings, and these."""
        environ = {**self.environ, **environment}
        return run(arguments, folder=self.folder, environ=environ, module=self.module, real=real)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit status, once it has ended."""
        status = exit_status(self.process)
        assert self.process.stdout
        self.process.stdout.close()
        return status

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill_and_start(self) -> None:
        """SIGKILL, and a start with the same folder and port."""
        port = int(self.url.rpartition(":")[2])
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self.start(port)

    def sockets(self) -> int:
        """How many sockets it has open."""
        found = 0
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                found += str(entry.readlink()).startswith("socket:")
            except FileNotFoundError:
                continue
        return found

    def workers(self) -> list[int]:
        return children(self.service_pid)

    def worker_processes(self) -> list[int]:
        """The workers, and the process of each picture that they have under way."""
        return [pid for worker in self.workers() for pid in (worker, *children(worker))]

    def render_workers(self) -> list[int]:
        own = os.getpriority(os.PRIO_PROCESS, self.process.pid)  # not 0 where the tests themselves are run by `nice`
        return [pid for pid in self.workers() if os.getpriority(os.PRIO_PROCESS, pid) > own]

    def render_worker(self) -> int:
        return self.render_workers()[0]

    def upload(self, data: bytes, user: str = "alice") -> httpx.Response:
        form, files = {"bucket": "b"}, {"file": ("photo.jpg", data)}
        return self.http.post(f"{self.url}/api/v1/images/upload", data=form, files=files, headers=bearer(user))

    def login_code(self, token: str) -> str:
        """A one-use code for the operator's page."""
        return login_code(token, (self.folder / "data" / "lock").read_text().split("\n")[2])

    def job(self, job_id: str, **headers: str) -> dict[str, Any]:
        body: dict[str, Any] = self.http.get(f"{self.url}/api/v1/images/jobs/{job_id}", headers=headers).json()
        return body

    def job_ended(self, job_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id, Prefer="wait=1")  # answered as soon as it has ended
            return job if job["status"] in ("completed", "failed") else None

        found = until(look)
        assert found
        return found

    def files(self, folder: str) -> list[str]:
        root = self.folder / folder
        found = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        return sorted(name for name in found if not name.startswith((".health/", ".instance")))


class InlineServer(ServerProcess):
    """It renders in threads, for tests that have nothing to do with workers.

    A start and a stop take it 75 ms of processor time; with two worker processes, which are not forked, 570 ms.
    """

    inline = True


def children(pid: int) -> list[int]:
    """The processes that any thread of this one started."""
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for of_thread in found for child in of_thread]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def environment_block(pid: int) -> bytes:
    """The environment that the kernel shows; nothing where a process is not dumpable (prctl(2)) and we are not root."""
    with suppress(PermissionError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""
