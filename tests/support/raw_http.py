"""HTTP/1.1 spoken over a plain socket: requests that no client library would send, and all that comes back."""

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.support.server_process import WAIT_SECONDS, ServerProcess, bearer

UPLOAD = "/api/v1/images/upload"


@dataclass(frozen=True, slots=True)
class Answer:
    """`statuses` are all status lines' numbers, informational ones first; header names are in lower case."""

    statuses: list[int]
    headers: dict[str, str]
    body: bytes
    closed: bool

    @property
    def status(self) -> int:
        return self.statuses[-1]

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def connected(server: ServerProcess) -> socket.socket:
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    return socket.create_connection(address, timeout=WAIT_SECONDS)


def head(target: str, *lines: str, method: str = "POST", token: bool = True, user: str = "alice") -> bytes:
    """A request's head, with a token of this user unless `token` is false."""
    signed = [f"Authorization: {bearer(user)['Authorization']}"] if token else []
    text = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *signed, *lines, "", ""])
    return text.encode("latin-1")


def exchange(server: ServerProcess, request: bytes) -> Answer:
    """Send it at once, and read one answer."""
    with connected(server) as connection:
        with suppress(ConnectionError):  # it may be answered and closed before it has all been sent
            connection.sendall(request)
        return received(connection)


def received(connection: socket.socket) -> Answer:
    """One answer, with the informational ones before it."""
    statuses: list[int] = []
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65_536)
            assert chunk, f"closed after {statuses} {data!r}"
            data += chunk
        text, _, data = data.partition(b"\r\n\r\n")
        first, *lines = text.decode("latin-1").split("\r\n")
        statuses.append(int(first.split()[1]))
        if statuses[-1] >= 200:
            break
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0")) if statuses[-1] not in (204, 304) else 0
    while len(data) < length and (chunk := connection.recv(65_536)):
        data += chunk
    return Answer(statuses, headers, data[:length], "close" in headers.get("connection", ""))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes it now."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
