"""A body that is not read must cost neither the next request nor the connection."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.server_process import WAIT_SECONDS, InlineServer, ServerProcess, until

pytestmark = pytest.mark.process

PIECE = bytes(64 * 1024)
PIECES = 64  # four times what is drained


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("data")) as one:
        yield one


def address(server: ServerProcess) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.mark.parametrize(
    ("method", "path"),
    [("QUERY", "/api/v1/images/upload"), ("PUT", "/"), ("POST", "/nothing"), ("GET", "/info"), ("DELETE", "/docs")],
)
def test_connection_is_good_for_the_next_request(server: ServerProcess, method: str, path: str) -> None:
    connection = http.client.HTTPConnection(*address(server), timeout=WAIT_SECONDS / 3)
    for _ in range(3):
        connection.request(method, path, headers={"Content-Length": "3000"})
        connection.send(bytes(1500))
        connection.send(bytes(1500))
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 404, 405)
        assert answer.headers["Connection"] is None
    connection.close()


def test_proxy_that_sends_as_long_as_it_can_gets_the_whole_answer(server: ServerProcess) -> None:
    """nginx does: a connection that is closed while it sends is a bad gateway to it, whatever was answered before."""
    with socket.create_connection(address(server), timeout=0.05) as client:
        client.sendall(b"POST /api/v1/images/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        with suppress(TimeoutError):  # once buffers are full, since not all is read
            while True:
                client.sendall(PIECE * 16)
        client.settimeout(WAIT_SECONDS)
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_body_that_comes_slowly_is_waited_for_two_seconds(server: ServerProcess) -> None:
    with socket.create_connection(address(server), timeout=0.1) as client:
        began, answer = time.monotonic(), b""
        client.sendall(b"POST /api/v1/images/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        while not answer:
            assert time.monotonic() - began < WAIT_SECONDS
            client.sendall(b"x")
            with suppress(TimeoutError):
                answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert 2 <= time.monotonic() - began < WAIT_SECONDS / 3


@pytest.mark.parametrize("path", ["/info", "/api/v1/images/upload"])
def test_endless_body_is_answered_and_the_connection_closed(server: ServerProcess, path: str) -> None:
    before = until(lambda: server.sockets())
    for _ in range(3):
        with socket.create_connection(address(server), timeout=WAIT_SECONDS) as client:
            length = PIECES * len(PIECE)
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
            try:
                for _ in range(PIECES - 1):
                    client.sendall(PIECE)
                answer = client.recv(65536)
            except ConnectionError:  # closed while we were sending
                answer = b""
        assert not answer or (b"HTTP/1.1 40" in answer and b"connection: close" in answer.lower())
    until(lambda: server.sockets() <= before)
