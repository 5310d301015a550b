"""Bodies that are refused before they are read: what the client is answered, and when."""

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures import make
from tests.support.raw_http import UPLOAD, Answer, connected, exchange, head, is_closed, received
from tests.support.server_process import InlineServer, ServerProcess
from tests.support.speed import is_over, seconds
from tests.support.tls import certificate

pytestmark = pytest.mark.process

RAW, TINY = f"{UPLOAD}?bucket=b", make.tiny()
EXPECT, JPEG = "Expect: 100-continue", "Content-Type: image/jpeg"
HUNDRED_MB = 100 * 1024 * 1024
PIECE = bytes(64 * 1024)
SPENT = "bob"  # whose quota is used


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("server")
    with InlineServer(folder, RATE_LIMIT_MAX_UPLOADS="1") as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def refused_at_once(server: ServerProcess, request: bytes) -> Answer:
    """The answer to a head whose body is held back, after which the connection ends."""
    with connected(server) as connection:
        connection.sendall(request)
        began = time.monotonic()
        answer = received(connection)
        assert time.monotonic() - began < seconds(1)
        assert len(answer.statuses) == 1, "a 100 came first"
        assert answer.closed and is_closed(connection)
        return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (head(RAW, EXPECT, JPEG, "Content-Length: 1000", token=False), 401),
        (head(RAW, EXPECT, JPEG, "Transfer-Encoding: chunked", token=False), 401),
        (head(RAW, "expect: 100-Continue", JPEG, f"Content-Length: {HUNDRED_MB}"), 413),
        (head(UPLOAD, EXPECT, JPEG, "Content-Length: 1000"), 422),
        (head(f"{UPLOAD}?bucket=..", EXPECT, JPEG, "Content-Length: 1000"), 422),
        (head(RAW, EXPECT, JPEG, "X-Metadata: no", "Content-Length: 1000"), 422),
        (head(RAW, EXPECT, "Content-Type: text/plain", "Content-Length: 1000"), 422),
        (head(RAW, EXPECT, "Content-Type: multipart/form-data", "Content-Length: 1000"), 422),
        (head(RAW, EXPECT, JPEG, "Content-Encoding: gzip", "Content-Length: 1000"), 415),
        (head("/nothing", EXPECT, "Content-Length: 1000"), 404),
        (head("/info", EXPECT, "Content-Length: 1000"), 405),
        (head("/info", EXPECT, "Content-Length: 1000", method="GET"), 200),
    ],
)
def test_refusal_comes_instead_of_the_permission(server: ServerProcess, request_: bytes, status: int) -> None:
    assert refused_at_once(server, request_).status == status


@pytest.fixture(scope="module")
def quota_used(server: ServerProcess) -> None:
    """The only upload of this user and hour is taken, by a client that gets the permission and then sends the body."""
    with connected(server) as connection:
        connection.sendall(head(RAW, EXPECT, JPEG, f"Content-Length: {len(TINY)}", user=SPENT))
        interim = connection.recv(65_536)
        assert interim.startswith(b"HTTP/1.1 100 Continue\r\n") and interim.endswith(b"\r\n\r\n")
        connection.sendall(TINY)
        answer = received(connection)
        assert (answer.statuses, answer.closed) == ([202], False)


@pytest.mark.usefixtures("quota_used")
def test_permission_is_refused_where_the_quota_is_used(server: ServerProcess) -> None:
    """It has been given once, for the first upload (see the fixture)."""
    form = "Content-Type: multipart/form-data; boundary=edge"
    for kind in (JPEG, form):
        assert refused_at_once(server, head(RAW, EXPECT, kind, "Content-Length: 10", user=SPENT)).status == 429


def test_body_that_does_not_wait_for_the_permission(server: ServerProcess) -> None:
    answer = exchange(server, head(RAW, EXPECT, "Content-Type: text/plain", "Content-Length: 4", token=False) + b"word")
    assert answer.statuses == [401]


def sent_regardless(connection: socket.socket, chunked: bool) -> int:
    """Bytes of a body of 100 MB that the client could send, reading nothing meanwhile."""
    sent = 0
    with suppress(ConnectionError):
        for _ in range(HUNDRED_MB // len(PIECE)):
            connection.sendall(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
            sent += len(PIECE)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
    return sent


@pytest.mark.usefixtures("quota_used")
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("token", "expected"), [(False, (401, 401)), (True, (413, 429))])
def test_answer_to_100_mb_can_be_read(
    server: ServerProcess, chunked: bool, token: bool, expected: tuple[int, ...]
) -> None:
    """By a client that first sends all, as many libraries do: nothing is reset under it."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {HUNDRED_MB}"
    with connected(server) as connection:
        connection.sendall(head(RAW, JPEG, length, token=token, user=SPENT))
        assert sent_regardless(connection, chunked) == HUNDRED_MB
        answer = received(connection)
        assert (answer.status, answer.closed) == (expected[chunked], True)
        assert is_closed(connection)


def test_answer_to_100_mb_can_be_read_over_tls(tmp_path: Path) -> None:
    """TLS can't end one side alone."""
    cert, key = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=cert)
    files = {"IMGSVC_SERVER_CERTFILE": str(cert), "IMGSVC_SERVER_KEYFILE": str(key)}
    with InlineServer(tmp_path, **files) as server:
        for chunked in (False, True):
            length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {HUNDRED_MB}"
            with trusting.wrap_socket(connected(server), server_hostname="127.0.0.1") as connection:
                connection.sendall(head(RAW, JPEG, length, token=False))
                assert sent_regardless(connection, chunked) == HUNDRED_MB
                answer = received(connection)
                assert (answer.status, answer.closed) == (401, True)
        assert server.stop() == 0


def test_client_that_never_ends_is_left_after_a_while(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(head(RAW, JPEG, "Transfer-Encoding: chunked", token=False))
        began, left = time.monotonic(), select.poll()
        left.register(connection, 0)  # the end of both sides, which is always told
        with suppress(ConnectionError):
            while not left.poll(5) and not is_over(began, 20):
                connection.sendall(b"10000\r\n" + PIECE + b"\r\n")
        assert left.poll(0)
        assert time.monotonic() - began < seconds(10)
