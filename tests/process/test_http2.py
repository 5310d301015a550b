"""HTTP/2 is refused on a real server, in every way it could begin (RFC 9113 section 3): proxies speak it for us."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest
from hyperframe.frame import HeadersFrame, RstStreamFrame, SettingsFrame

from tests.support.server_process import InlineServer, ServerProcess, until
from tests.support.tls import certificate

pytestmark = pytest.mark.process
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BUNDLE = b"/docs/swagger-ui-bundle.js"  # 1.4 MB, public
INITIAL_WINDOW_SIZE, CANCEL = 4, 8
REQUESTS = 100


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder, tls = tmp_path_factory.mktemp("server"), {}
    if request.param == "tls":
        cert, key = certificate(folder)
        tls = {"IMGSVC_SERVER_CERTFILE": str(cert), "IMGSVC_SERVER_KEYFILE": str(key)}
    with InlineServer(folder, IMGSVC_SERVER_HTTP2="true", **tls) as one:
        yield one
        assert "Traceback" not in one.log.read_text()


def connected(server: ServerProcess) -> socket.socket:
    """With HTTP/2 offered by ALPN, where there is TLS."""
    host, port = server.url.partition("//")[2].split(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    if not server.url.startswith("https"):
        return plain
    context = ssl.create_default_context(cafile=str(server.folder / "cert.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    wrapped = context.wrap_socket(plain, server_hostname=host)
    assert wrapped.selected_alpn_protocol() == "http/1.1"
    return wrapped


def attack(mode: str) -> bytes:
    """What is sent on one connection: 100 streams that may send nothing, or that are reset at once."""
    encoder, settings = hpack.Encoder(), SettingsFrame(0)
    settings.settings = {INITIAL_WINDOW_SIZE: 0} if mode == "window" else {}
    sent = PREFACE + settings.serialize()
    for n in range(REQUESTS):
        asked = HeadersFrame(2 * n + 1)
        asked.flags.add("END_HEADERS")
        asked.flags.add("END_STREAM")
        asked.data = encoder.encode(
            [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"127.0.0.1"), (b":path", BUNDLE)]
        )
        sent += asked.serialize()
        if mode != "window":
            reset = RstStreamFrame(2 * n + 1)
            reset.error_code = CANCEL
            sent += reset.serialize()
    return sent


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server closes; it does at once."""
    received = b""
    while True:
        try:
            chunk = connection.recv(65_536)
        except (ConnectionError, ssl.SSLError):
            return received
        if not chunk:
            return received
        received += chunk


def requests(server: ServerProcess) -> str:
    return server.log.read_text()


@pytest.mark.parametrize("mode", ["window", "reset"])
def test_prior_knowledge_is_refused_before_any_frame_is_handled(server: ServerProcess, mode: str) -> None:
    before = requests(server).count("swagger-ui")  # asked for by other tests of the same server
    with connected(server) as connection:
        connection.sendall(attack(mode))
        answer = answered(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert requests(server).count("swagger-ui") == before


@pytest.mark.parametrize("rest", [b"", b"\xff" * 100, bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])])
def test_preface_is_never_waited_on(server: ServerProcess, rest: bytes) -> None:
    for sent in (PREFACE + rest, PREFACE[:-8] + b"XX\r\n\r\n" + rest, PREFACE[:16] + rest):
        with connected(server) as connection:
            connection.sendall(sent)
            assert b"200" not in answered(connection)


def test_upgrade_to_h2c_is_answered_as_plain_http(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(
            b"GET /api/v1/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert answered(connection).startswith(b"HTTP/1.1 200 ")


def test_large_answer_arrives_whole(server: ServerProcess) -> None:
    before = requests(server).count("swagger-ui")
    with connected(server) as client:
        client.sendall(b"GET " + BUNDLE + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        head, _, body = b"".join(iter(lambda: client.recv(1 << 20), b"")).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}\r\n".encode() in head.lower() and len(body) > 1 << 20
    until(lambda: requests(server).count("swagger-ui") > before)  # other tests count them, too


def test_setting_has_no_effect_and_says_where_http2_belongs(server: ServerProcess) -> None:
    (line,) = [line for line in server.log.read_text().splitlines() if "http2_ignored" in line]
    assert "proxy" in line


@pytest.mark.parametrize("given", [{}, {"IMGSVC_SERVER_HTTP2": "false"}])
def test_setting_that_is_off_is_no_news(tmp_path: Path, given: dict[str, str]) -> None:
    with InlineServer(tmp_path, **given) as one:
        assert one.stop() == 0
        assert "http2" not in one.log.read_text()
