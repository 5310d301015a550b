"""The folders of one case, and the processes of `imgsvc` that work in them."""

import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from imgsvc.access.tokens import Tokens
from tests.support.forking import ROOT, Forked, ForkServer
from tests.support.invariants import Places
from tests.support.preload import Call, Fault, calls, library
from tests.support.speed import is_over

SECRET = "0123456789abcdef0123456789abcdef-kill-at"
START_SECONDS = 60
STOP_SECONDS = 15  # compose's
ANSWER_SECONDS = 20
POLL_SECONDS = (0.002, 0.03)  # the first pause of a wait, and the longest
MODULE = "tests.support.two_storages"
Way = Literal["forked", "fresh"]


class Gone(Exception):
    """The process has ended, by the fault or by itself; its log says more."""


class Running:
    """A process whose ending is waited for."""

    def __init__(self, process: "subprocess.Popen[bytes] | Forked") -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, limit: float) -> int:
        """Raises TimeoutError after so many seconds."""
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def signal(self, number: int) -> None:
        self._process.send_signal(number)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


@dataclass(slots=True)
class Site:
    """`folder` holds the data folder, the storage folders and backups; it can be copied and go on elsewhere."""

    folder: Path
    forks: ForkServer
    way: Way = "forked"
    more: Mapping[str, str] = field(default_factory=dict)  # of the environment

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def backup(self) -> Path:
        return self.folder / "backup"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def trace(self) -> Path:
        return self.folder / "trace.txt"

    @property
    def kept(self) -> Path:
        """What was synced, if the case loses the rest."""
        return self.folder / "kept"

    @property
    def places(self) -> Places:
        return Places(self.data / "imgsvc.db", {"local": self.folder / "storage", "other": self.folder / "other"})

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "JWT_SECRET_KEY": SECRET,
            "DATABASE_PATH": str(self.data / "imgsvc.db"),
            "STORAGE_PATH": str(self.folder / "storage"),
            "IMGSVC_WORKERS_COUNT": "1",
            "IMGSVC_JOBS_RETRY_DELAY_SECONDS": "0.1",
            "IMGSVC_JOBS_LOCK_WAIT_SECONDS": "5",
            "IMGSVC_STORAGE_RESERVE_MB": "0",
            "RATE_LIMIT_MAX_UPLOADS": "1000000",
            **self.more,
        }

    def copy(self, to: Path) -> "Site":
        shutil.copytree(self.folder, to, symlinks=True)
        return Site(to, self.forks, self.way, self.more)

    def calls(self) -> list[Call]:
        return calls(self.trace)

    def start(self, arguments: Sequence[str], output: Path, fault: Fault | None) -> Running:
        """`imgsvc ARGUMENTS`, with a fault to come."""
        settings = ""
        if fault is not None:
            counted = [self.data, self.folder / "storage", self.folder / "other", self.backup]
            excepted = [self.folder / "storage/.health", self.folder / "other/.health", self.data / "scratch/health"]
            settings = fault.settings(counted, excepted, self.trace, self.kept if self.kept.is_dir() else None)
        if self.way == "forked":
            forked = self.forks.start(
                arguments,
                folder=self.folder,
                environ=self.environ,
                output=output,
                log=self.log,
                module=MODULE,
                settings=settings,
                inline=True,
            )
            return Running(forked)
        environ = self.environ | ({"LD_PRELOAD": str(library()), "KILL_AT": settings} if settings else {})
        with output.open("wb") as out, self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *arguments],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        return Running(process)

    def command(self, *arguments: str, fault: Fault | None = None) -> int:
        """The exit status of `imgsvc ARGUMENTS`; negative: the signal that ended it."""
        process = self.start(arguments, self.folder / "output.txt", fault)
        try:
            return process.wait(START_SECONDS)
        finally:
            process.signal(signal.SIGKILL)

    def serve(self, fault: Fault | None = None) -> "Service":
        """Raises Gone when the start comes to nothing."""
        output = self.folder / "listens.txt"
        output.unlink(missing_ok=True)
        return Service(self, self.start(["serve", "--port", "0"], output, fault), output)


class Service:
    """`imgsvc serve` in a site, and a client on it. Leaving the context kills what was not stopped."""

    def __init__(self, site: Site, process: Running, output: Path) -> None:
        self.site = site
        self.process = process
        self._port = 0
        until(lambda: self.gone or self._listens(output), START_SECONDS)
        if self.gone:
            raise Gone
        self.ask("GET", "/api/v1/health")  # whose first report ends the start: what follows has calls of its own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def _listens(self, output: Path) -> bool:
        said = output.read_text() if output.exists() else ""
        if "\n" not in said:
            return False
        self._port = int(said.split("\n")[0].rsplit(":", 1)[1])
        return True

    @property
    def gone(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> int:
        """The exit status after SIGTERM. Raises TimeoutError."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Raises Gone when the service ended meanwhile."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}), encode_chunked=_is_stream(body))
            answer = connection.getresponse()
            text = answer.read()
            kind = answer.headers.get_content_type()
            return Answer(answer.status, json.loads(text) if kind.endswith("json") else {})
        except (OSError, http.client.HTTPException, ValueError) as error:
            until(lambda: self.gone, 2, why=f"{method} {path}: {error!r}, and the service goes on")
            raise Gone from error
        finally:
            connection.close()

    def begin_upload(self, path: str, start: bytes, length: int, headers: Mapping[str, str]) -> "Half":
        """An upload of `length` bytes of which only `start` is sent. Raises Gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        try:
            headers = {**headers, "Content-Type": "image/jpeg", "Content-Length": str(length)}
            connection.request("POST", path, start, headers)
        except OSError as error:
            connection.close()
            until(lambda: self.gone, 2, why=f"POST {path}: {error!r}, and the service goes on")
            raise Gone from error
        return Half(connection)

    def raw(self, path: str) -> bytes:
        """What is answered to a GET with 200, here or at the S3 server that the answer names."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=ANSWER_SECONDS) as answer:
            data: bytes = answer.read()
            return data

    @property
    def operator(self) -> dict[str, str]:
        token = (self.site.data / "operator_token").read_text().strip()
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


class Half:
    """An upload that its client does not go on with. Closing it breaks it off."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def is_answered(self) -> bool:
        """Whether the service has refused it, or has ended."""
        return bool(select.select([self._connection.sock], [], [], 0)[0])

    def answer(self) -> Answer | None:
        """What it was refused with; None while it is received, or when the service has ended."""
        if not self.is_answered():
            return None
        try:
            answer = self._connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()))
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def close(self) -> None:
        self._connection.close()


def _is_stream(body: object) -> bool:
    return body is not None and not isinstance(body, bytes)


def bearer(user: str = "alice") -> dict[str, str]:
    return {"Authorization": f"Bearer {Tokens(SECRET, 'HS256').issue(user)}"}


def until(true: Callable[[], object], limit: float, why: str = "it did not come") -> None:
    """Raises AssertionError after so many seconds of a quiet machine."""
    began = looked = time.monotonic()
    pause, longest = POLL_SECONDS
    while not true():
        assert not is_over(began, limit), f"{why} (after {time.monotonic() - began:.1f} seconds)"
        time.sleep(max(pause, 3 * (time.monotonic() - looked)))  # looking costs as much as what is waited for
        looked = time.monotonic()
        pause = min(1.25 * pause, longest)
