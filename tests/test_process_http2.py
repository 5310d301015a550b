"""HTTP/2 on a real server, from the first byte (RFC 9113 section 3.3): what befalls one stream befalls no other."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from fixtures import make
from imgsvc.access.tokens import Tokens
from tests.server_process import SECRET, ServerProcess

pytestmark = pytest.mark.process
UPLOAD = "/api/v1/images/upload?bucket=b"
PHOTO = make.jpeg(1200, 900)


class Client:
    """One connection; answers are collected as they come."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        host, port = self.host.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=15)
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding=False))
        self.connection.initiate_connection()
        self.statuses: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self._send()

    def ask(self, method: str, path: str, *, body: bool = False, **headers: str) -> int:
        stream = self.connection.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), (":scheme", "http"), (":authority", self.host)]
        fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.connection.send_headers(stream, fields, end_stream=not body)
        self._send()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """As flow control allows; a reset by the server ends the sending."""
        sent = 0
        while sent < len(data) and stream not in self.reset:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if not room:
                self.read()
                continue
            self.connection.send_data(stream, data[sent : sent + room])
            sent += room
            self._send()
        if end and stream not in self.reset:
            with suppress(ProtocolError):  # reset meanwhile
                self.connection.end_stream(stream)
            self._send()

    def read(self) -> None:
        data = self.socket.recv(65_536)
        assert data, "the server closed the connection"
        for event in self.connection.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.reset[event.stream_id] = int(event.error_code)
        self._send()

    def status(self, stream: int) -> int:
        """Of the whole answer."""
        while stream not in self.ended:
            self.read()
        return self.statuses[stream]

    def _send(self) -> None:
        self.socket.sendall(self.connection.data_to_send())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as one:
        yield one


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    one = Client(server.url)
    yield one
    one.socket.close()


def bearer(token: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {token or Tokens(SECRET, 'HS256').issue('alice')}", "content_type": "image/jpeg"}


def broken(server: ServerProcess) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if "Traceback" in line or "KeyError" in line]


@pytest.mark.parametrize("size", [500_000, 1_500_000, 6_000_000])
def test_refused_upload_ends_no_other_stream(server: ServerProcess, client: Client, size: int) -> None:
    good = client.ask("POST", UPLOAD, body=True, **bearer())
    client.send(good, PHOTO[:1000], end=False)
    bad = client.ask("POST", UPLOAD, body=True, **bearer("x"))
    client.send(bad, b"x" * size)
    assert client.status(bad) == 401
    assert b"token_invalid" in client.bodies[bad]
    client.send(good, PHOTO[1000:])
    assert client.status(good) == 202
    assert client.status(client.ask("GET", "/info")) == 200
    assert client.reset.get(bad, 0) == 0  # NO_ERROR
    assert broken(server) == []


def test_too_large_upload_is_told_so(server: ServerProcess, client: Client) -> None:
    stream = client.ask("POST", UPLOAD, body=True, **bearer())
    client.send(stream, PHOTO + bytes(14_000_000))
    assert client.status(stream) == 413
    assert client.status(client.ask("GET", "/info")) == 200
    assert broken(server) == []


def test_body_that_nobody_wants_ends_nothing(server: ServerProcess, client: Client) -> None:
    stream = client.ask("GET", "/api/v1/health/live", body=True)
    client.send(stream, bytes(3_000_000))
    assert client.status(stream) == 200
    assert client.status(client.ask("GET", "/info")) == 200
    assert broken(server) == []
