"""Clients that keep connections: idle, reading slowly, sending slowly. They are open until the service closes them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.clients import asking, connected
from tests.support.server_process import ServerProcess, bearer

TRICKLE_SECONDS, WRITER_USERS = 1.0, 50
BODY_BYTES = 5_000_000


@dataclass(slots=True)
class Crowd:
    """Open connections. Each second a slow one takes or sends a few bytes."""

    idle: list[socket.socket] = field(default_factory=list)
    readers: list[socket.socket] = field(default_factory=list)
    writers: list[socket.socket] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def count(self) -> int:
        return len(self.idle) + len(self.readers) + len(self.writers)

    def trickle(self) -> None:
        for one in (*self.readers, *self.writers):
            one.setblocking(False)
        while not self._over.wait(TRICKLE_SECONDS):
            for reader in self.readers:
                with suppress(OSError):
                    reader.recv(64)
            for writer in self.writers:
                with suppress(OSError):
                    writer.send(b"\0" * 16)

    def end(self) -> None:
        self._over.set()


@contextmanager
def crowd(server: ServerProcess, path: str, idle: int, readers: int, writers: int) -> Iterator[Crowd]:
    """So many of each; `path` is what the readers ask for."""
    with ExitStack() as stack:
        found = Crowd()
        found.readers += [stack.enter_context(asking(server.url, path)) for _ in range(readers)]
        found.writers += [stack.enter_context(_sending(server.url, number)) for number in range(writers)]
        found.idle += [stack.enter_context(connected(server.url)) for _ in range(idle)]
        thread = threading.Thread(target=found.trickle)
        thread.start()
        try:
            yield found
        finally:
            found.end()
            thread.join()


def _sending(url: str, number: int) -> socket.socket:
    """An upload whose headers were sent."""
    client, host = connected(url), urlsplit(url).netloc
    token = bearer(f"slow{number % WRITER_USERS}")["Authorization"]
    client.sendall(
        f"POST /api/v1/images/upload?bucket=b HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
        + b"\xff\xd8\xff\xe0\x00\x10JFIF"
    )
    return client


def sockets(pid: int) -> int:
    """That the process has open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found
