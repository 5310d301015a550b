"""Load for the benchmark of reads: a closed loop by wrk, or by this module where wrk is missing, and an open loop."""

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

COMPLETED = re.compile(r"(\d+) requests in ")
ERRORS = re.compile(r"Non-2xx or 3xx responses: \d+|Socket errors:.*")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
READ_BYTES = 1 << 18
WITHOUT_WRK = "wrk is not installed: the load comes from a loop in Python, which takes more of the machine itself."


@dataclass(frozen=True, slots=True)
class Read:
    """A request without a body."""

    name: str
    target: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)

    def sent(self, host: str) -> bytes:
        """The request as HTTP/1.1."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def completed(url: str, read: Read, connections: int, seconds: int) -> int:
    """The number of answers to as many clients, each of which asks again as soon as it is answered."""
    if shutil.which("wrk") and read.method != "HEAD":  # wrk waits for the body that a HEAD has not
        return _by_wrk(url, read, connections, seconds)
    return asyncio.run(_by_loop(url, read, connections, seconds))


def _by_wrk(url: str, read: Read, connections: int, seconds: int) -> int:
    headers = [part for name, value in read.headers.items() for part in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *headers, url + read.target]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = COMPLETED.search(told)
    assert found and not ERRORS.search(told), told
    return int(found[1])


async def _by_loop(url: str, read: Read, connections: int, seconds: int) -> int:
    until = time.monotonic() + seconds

    async def client() -> int:
        answered = 0
        async with asyncio.timeout(seconds + 30):
            connection = await Connection.opened(url)
            while time.monotonic() < until:
                try:
                    await connection.ask(read)
                except asyncio.IncompleteReadError as error:
                    if error.partial:
                        raise
                    connection.close()  # a server ends a connection after some number of requests
                    connection = await Connection.opened(url)
                    continue
                answered += 1
        connection.close()
        return answered

    return sum(await asyncio.gather(*(client() for _ in range(connections))))


async def open_loop(url: str, reads: list[Read], per_second: float, seconds: float) -> list[float]:
    """The milliseconds until each answer, counted from when its request was due: a late answer delays no request."""
    idle: list[Connection] = []
    answers: list[asyncio.Task[float]] = []

    async def one(due: float, read: Read) -> float:
        connection = idle.pop() if idle else await Connection.opened(url)
        try:
            await connection.ask(read)
        except asyncio.IncompleteReadError:  # a server ends a connection after some number of requests
            connection.close()
            connection = await Connection.opened(url)
            await connection.ask(read)
        idle.append(connection)
        return 1000 * (time.monotonic() - due)

    with at_once():
        began = time.monotonic()
        for n in range(int(per_second * seconds)):  # each task when it is due: to make all takes 20 ms
            due = began + n / per_second
            await asyncio.sleep(due - time.monotonic())
            answers.append(asyncio.create_task(one(due, reads[n % len(reads)])))
        found = await asyncio.gather(*answers)
    for connection in idle:
        connection.close()
    return found


@contextmanager
def at_once() -> Iterator[None]:
    """Let this thread run as soon as it can, where root asks: its own waiting is not the server's."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


class Connection:
    """A client's connection, which knows the size of an answer from its Content-Length."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self._reader, self._writer = host, reader, writer

    @classmethod
    async def opened(cls, url: str) -> "Connection":
        address = urlsplit(url)
        assert address.hostname
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=READ_BYTES)
        return cls(address.netloc, reader, writer)

    async def ask(self, read: Read) -> tuple[bytes, bytes]:
        """The head and the body of the answer, which is neither of 4xx nor of 5xx."""
        self._writer.write(read.sent(self._host))
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head[9:10] in b"23", head
        length = LENGTH.search(head)
        without_body = read.method == "HEAD" or head[9:12] == b"304"
        return head, b"" if without_body or not length else await self._reader.readexactly(int(length[1]))

    def close(self) -> None:
        self._writer.close()
