"""Requests that a proxy may read differently, that lie about their size or host, or that come when files run out."""

import errno
import re
import socket
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.settings.server import Log
from imgsvc.telemetry import logs
from tests.conftest import Starter
from tests.support.server_process import InlineServer, ServerProcess, until

LIVE = "/api/v1/health/live"
ASKED = f"GET {LIVE} HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("server"), LOG_JSON="false", IMGSVC_SERVER_MAX_HEADER_KB="16") as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def answered(server: ServerProcess, request: str) -> bytes:
    """All that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(request.encode())
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return received


@pytest.mark.process
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (f"{ASKED}X-Large: {'x' * 40_000}\r\n\r\n", 431),  # in one segment
        (f"{ASKED}" + "X-Many: x\r\n" * 2000 + "\r\n", 431),
        (f"{ASKED}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (f"{ASKED}Transfer-Encoding: chunked\r\nX: y\r\nCONTENT-LENGTH : 3\r\n\r\n0\r\n\r\n", 400),
        (f"{ASKED}X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (f"GET {LIVE} HTTP/1.1\nHost: localhost\n\n", 400),
        (f"GET {LIVE} HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (f"GET {LIVE} HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
        (f"GET {LIVE} HTTP/1.1\r\nHost: 127.0.0.1:evil\r\nConnection: close\r\n\r\n", 400),
        (f"GET {LIVE} HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n", 200),
        (f"GET {LIVE} HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n", 200),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        ("CONNECT  HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)
def test_head(server: ServerProcess, request_: str, status: int) -> None:
    assert answered(server, request_).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.process
def test_escapes_of_a_client_do_not_reach_a_terminal(server: ServerProcess) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    server.http.get(f"{server.url}/api/v1/operator/jobs/%1b%5B2J%1b%5B31m", headers=wrong)
    until(lambda: "operator_refused" in server.log.read_text())
    assert "\x1b[2J" not in server.log.read_text()


def test_text_of_an_error_is_escaped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    logs._traceback(stream, (ValueError, ValueError("\x1b[2J"), None))
    assert "\x1b" not in stream.getvalue() and "\\x1b[2J" in stream.getvalue()
    assert logs._printable(None, "", {"event": "a\x9bb", "path": "ä/b"}) == {"event": "a\\x9bb", "path": "ä/b"}
    assert Log().json_lines == "auto"
    monkeypatch.undo()


@pytest.mark.process
def test_socket_of_a_client_that_has_left_is_closed_at_once(server: ServerProcess) -> None:
    """And not only when the keep-alive time is over: a service that is out of files would be so until then."""

    before, port = server.sockets(), int(server.url.rpartition(":")[2])
    clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(20)]
    for client in clients:
        client.sendall(f"{ASKED}\r\n".encode())
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert server.sockets() >= before + 20
    for client in clients:
        client.close()
    until(lambda: server.sockets() <= before, 10)


async def test_second_address_of_the_same_bytes(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(make.jpeg())
        url = (await s.http.get(f"/api/v1/images/{job['image_id']}")).json()["url"]
        assert (await s.http.get(url)).status_code == 200
        for path in (f"{url}%0a", "/info%0a", f"{LIVE}%0A"):
            answer = await s.http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


async def test_out_of_files_is_overloaded(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as s:

        def none_left(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", none_left)
            refused = await s.upload(make.jpeg())
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"]
        assert (await s.upload(make.jpeg())).status_code == 202


async def test_two_origins_are_no_proof(start: Starter) -> None:
    async with start() as s:
        cookie = (await s.http.post("/api/v1/operator/login", headers=s.operator)).headers.get("set-cookie", "")
        session = re.sub(";.*", "", cookie)
        one = [("Origin", "http://localhost"), ("X-Requested-With", "x"), ("Cookie", session)]
        path = "/api/v1/operator/logout"
        refused = await s.http.post(path, headers=[*one, ("Origin", "https://evil.example")])
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
