"""Who is answered, and whose word counts: hosts, proxies and other origins."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from tests.conftest import Service, Starter
from tests.support.server_process import InlineServer, ServerProcess
from tests.support.speed import seconds

LIVE = "/api/v1/health/live"
OWN, OTHER = "https://app.example", "https://evil.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


async def answered(s: Service, host: str) -> bool:
    response = await s.http.get(LIVE, headers={"Host": host})
    if response.status_code == 200:
        return True
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] in ("host_not_allowed", "bad_request")
    assert response.json()["trace_id"] == response.headers["X-Trace-ID"]
    return False


LOOPBACK = ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
REBOUND = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "",
    "10.0.0.1",
    "::1",
]


@pytest.mark.parametrize(
    ("sections", "allowed", "refused"),
    [
        ({}, LOOPBACK, REBOUND),
        ({"server": {"host": "::1"}}, LOOPBACK, REBOUND[:-1]),
        (
            {"service": {"public_url": "https://Img.example/pics"}},
            [*LOOPBACK, "img.example", "img.example:443"],
            REBOUND,
        ),
        ({"service": {"public_url": "http://[2001:db8::1]:80"}}, ["[2001:db8::1]", "[2001:db8::1]:80"], REBOUND),
        (
            {"server": {"allowed_hosts": ["a.example", "B.example"]}},
            ["a.example:1", "b.EXAMPLE"],
            [*REBOUND, "localhost"],
        ),
        ({"server": {"allowed_hosts": "*"}}, ["anything.example", "", "localhost"], []),
        ({"server": {"host": "0.0.0.0"}}, ["anything.example", "10.0.0.1:8000", "localhost"], []),
        ({"server": {"host": "0.0.0.0", "allowed_hosts": ["a.example"]}}, ["a.example"], REBOUND),
    ],
)
async def test_hosts(start: Starter, sections: dict[str, Any], allowed: list[str], refused: list[str]) -> None:
    async with start(**sections) as s:
        assert [host for host in allowed if not await answered(s, host)] == []
        assert [host for host in refused if await answered(s, host)] == []


async def seen(request: Request) -> Response:
    return JSONResponse([request.client.host if request.client else None, request.url.scheme, request.url.hostname])


async def told(s: Service, address: str, *headers: tuple[str, str]) -> list[str]:
    """[client, scheme, host] as a handler sees them, for a request from `address`."""
    s.app.router.routes.append(Route("/seen", seen))
    transport = httpx.ASGITransport(app=s.app, client=(address, 1))
    with capture_logs() as logs:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            response = await http.get("/seen", headers=[*headers])
    if response.status_code == 400:
        return [str(response.json()["code"])]
    found: list[str] = response.json()
    assert [entry["client"] for entry in logs if entry["event"] == "request"] == found[:1]
    return found


FORWARDED = (("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "a.example"))
PLAIN, BEHIND = "localhost", ["203.0.113.7", "https", "a.example"]


@pytest.mark.parametrize(
    ("proxies", "address", "expected"),
    [
        ([], "127.0.0.1", ["127.0.0.1", "http", PLAIN]),
        ([], "10.0.0.1", ["10.0.0.1", "http", PLAIN]),
        (["10.0.0.0/8"], "11.0.0.1", ["11.0.0.1", "http", PLAIN]),
        (["10.0.0.0/8"], "10.0.0.1", BEHIND),
        (["192.0.2.1/32", "10.0.0.0/8"], "10.255.0.1", BEHIND),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", BEHIND),  # as a socket for both families reports it
        (["fd00::/8"], "fd00::1", BEHIND),
        (["fd00::/8"], "fe80::1", ["fe80::1", "http", PLAIN]),
        (["0.0.0.0/0"], "testclient", ["testclient", "http", PLAIN]),
    ],
)
async def test_who_may_speak_for_a_client(
    start: Starter, proxies: list[str], address: str, expected: list[str]
) -> None:
    server = {"trusted_proxies": proxies, "allowed_hosts": ["localhost", "a.example"]}
    async with start(server=server) as s:
        assert await told(s, address, *FORWARDED) == expected


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([("X-Forwarded-For", "6.6.6.6, 203.0.113.7")], "203.0.113.7"),
        ([("X-Forwarded-For", "6.6.6.6, 203.0.113.7, 10.0.0.2, 10.9.9.9")], "203.0.113.7"),
        ([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.7")], "203.0.113.7"),
        ([("X-Forwarded-For", "10.0.0.2, 203.0.113.7")], "203.0.113.7"),
        ([("X-Forwarded-For", "2001:db8::7")], "2001:db8::7"),
        ([("X-Forwarded-For", "203.0.113.7, nonsense")], "10.0.0.1"),
        ([("X-Forwarded-For", "<script>")], "10.0.0.1"),
        ([("X-Forwarded-For", " , ,")], "10.0.0.1"),
        ([("X-Forwarded-For", "10.0.0.3")], "10.0.0.1"),
        ([("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")], "10.0.0.1"),
    ],
)
async def test_spoofed_addresses_are_not_believed(start: Starter, headers: list[tuple[str, str]], client: str) -> None:
    async with start(server={"trusted_proxies": "10.0.0.0/8"}) as s:
        assert (await told(s, "10.0.0.1", *headers))[0] == client


async def test_forwarded_host_is_checked_too(start: Starter) -> None:
    async with start(server={"trusted_proxies": ["10.0.0.0/8"]}) as s:
        assert await told(s, "10.0.0.1", ("X-Forwarded-Host", "evil.example")) == ["host_not_allowed"]
        assert await told(s, "10.0.0.1", ("X-Forwarded-Proto", "javascript")) == ["10.0.0.1", "http", PLAIN]


def cors(response: httpx.Response) -> dict[str, str]:
    prefix = "access-control-"
    return {name.removeprefix(prefix): value for name, value in response.headers.items() if name.startswith(prefix)}


async def test_other_origins_get_nothing(start: Starter) -> None:
    for origins in ([], [OWN]):
        async with start(server={"cors_origins": origins}) as s:
            for origin in (OTHER, "null", f"{OWN}.evil.example", OWN.replace("https", "http"), OWN.upper()):
                response = await s.http.get(LIVE, headers={"Origin": origin})
                assert (response.status_code, cors(response)) == (200, {}), origin
                assert ("Origin" in response.headers.get("Vary", "")) == bool(origins)
                preflight = await s.http.options(LIVE, headers={"Origin": origin} | PREFLIGHT)
                assert (preflight.status_code, cors(preflight)) == (405, {}), origin
                assert preflight.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("origins", [[OWN], ["https://b.example", OWN], ["*"]])
async def test_configured_origin(start: Starter, origins: list[str]) -> None:
    async with start(server={"cors_origins": origins}) as s:
        preflight = await s.http.options("/api/v1/images/upload", headers={"Origin": OWN} | PREFLIGHT)
        assert preflight.is_success
        assert preflight.headers["X-Trace-ID"]
        granted = cors(preflight)
        expected = "*" if origins == ["*"] else OWN
        assert granted["allow-origin"] == expected
        assert "allow-credentials" not in granted
        assert {"POST", "DELETE"} <= set(granted["allow-methods"].split(", "))
        assert {"authorization", "idempotency-key", "x-metadata"} <= set(granted["allow-headers"].lower().split(", "))
        answer = await s.http.get(LIVE, headers={"Origin": OWN})
        assert cors(answer)["allow-origin"] == expected
        assert "allow-credentials" not in cors(answer)
        exposed = set(cors(answer)["expose-headers"].split(", "))
        assert {"Location", "Retry-After", "ETag", "X-Trace-ID", "X-RateLimit-Remaining"} <= exposed
        if origins != ["*"]:
            assert "Origin" in answer.headers["Vary"]


async def crash(_: Request) -> Response:
    raise RuntimeError


async def test_errors_can_be_read_across_origins(start: Starter) -> None:
    async with start(server={"cors_origins": [OWN]}) as s:
        s.app.router.routes.append(Route("/crash", crash))
        origin = {"Origin": OWN}
        errors = [
            await s.http.get("/crash", headers=origin),
            await s.http.get("/nothing", headers=origin),
            await s.http.put(LIVE, headers=origin),
            await s.http.post("/api/v1/images/upload", headers=origin),
            await s.http.post("/api/v1/images/upload", headers=s.bearer() | origin),
            await s.http.get(LIVE, headers=origin | {"Host": "evil.example"}),
        ]
        assert [response.status_code for response in errors] == [500, 404, 405, 401, 422, 400]
        for response in errors:
            assert cors(response).get("allow-origin") == OWN, response.status_code
            assert response.headers["X-Trace-ID"]
            assert response.headers["Content-Type"] == "application/problem+json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with InlineServer(folder, IMGSVC_SERVER_KEEP_ALIVE_SECONDS="1", IMGSVC_SERVER_MAX_HEADER_KB="8") as running:
        yield running
        assert running.http.get(f"{running.url}{LIVE}").status_code == 200
        assert "Traceback" not in running.log.read_text()


def connected(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10)


def everything(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def asked(server: ServerProcess, *lines: str) -> bytes:
    with connected(server) as connection:
        connection.sendall("\r\n".join([*lines, "Host: localhost", "Connection: close", "", ""]).encode())
        return everything(connection)


@pytest.mark.process
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_h2c_upgrade_is_ignored(server: ServerProcess, method: str) -> None:
    """A proxy that checks paths would pass on whatever comes through the tunnel."""
    with connected(server) as connection:
        upgrade = f"{method} {LIVE} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
        connection.sendall(f"{upgrade}Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".encode())
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 200" if method == "GET" else b"HTTP/1.1 405")
    assert b"101 " not in answer.split(b"\r\n")[0] and b"upgrade: h2c" not in answer.lower()


@pytest.mark.process
def test_headers_that_are_too_large(server: ServerProcess) -> None:
    assert asked(server, f"GET {LIVE} HTTP/1.1", f"X-Large: {'x' * 7000}").startswith(b"HTTP/1.1 200")
    for start in (f"GET {LIVE} HTTP/1.1\r\nX-Large: ", "GET /", f"GET {LIVE} HTTP/1.1\r\n" + "X-Many: x\r\n" * 1000):
        with connected(server) as connection:
            connection.sendall(start.encode() + b"x" * 9000)
            assert everything(connection).startswith(b"HTTP/1.1 431")


@pytest.mark.process
@pytest.mark.parametrize("after_a_request", [False, True])
def test_headers_that_do_not_come_are_not_waited_for(server: ServerProcess, after_a_request: bool) -> None:
    """Nor do single bytes keep the connection."""
    whole = f"GET {LIVE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with connected(server) as silent, connected(server) as slow:
        for connection in (silent, slow):
            if after_a_request:
                connection.sendall(whole)
                answer = b""
                while not answer.endswith(b"}"):
                    answer += connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200")
            connection.sendall(whole[:20])
        began = time.monotonic()
        slow.settimeout(0.2)
        while time.monotonic() - began < 8:
            try:
                slow.sendall(b"x")
                if not slow.recv(100):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 0.5 < time.monotonic() - began < seconds(5)
        assert everything(silent) == b""
        assert time.monotonic() - began < seconds(5)


@pytest.mark.process
def test_requests_that_are_malformed(server: ServerProcess) -> None:
    for lines in (["nonsense"], [f"GET {LIVE} HTTP/1.1", "no colon"], [f"GET {LIVE} HTTP/1.1", "Content-Length: x"]):
        assert asked(server, *lines).startswith(b"HTTP/1.1 400"), lines
    two_lengths = [f"POST {LIVE} HTTP/1.1", "Content-Length: 3", "Transfer-Encoding: chunked"]
    assert asked(server, *two_lengths)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 405")


def spoken(server: ServerProcess, request: str) -> str:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (chunk := connection.recv(65536)):
            answer += chunk
    return answer.decode("latin-1")


def test_upgrade_to_websocket_is_answered_as_plain_http(tmp_path: Path) -> None:
    upgrade = (
        "GET /api/v1/health/live HTTP/1.1\nHost: {}\nUpgrade: websocket\nConnection: Upgrade\n"
        "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"
    )
    with InlineServer(tmp_path) as server:
        assert spoken(server, upgrade.format("localhost")).startswith("HTTP/1.1 200")
        refused = spoken(server, upgrade.format("evil.example"))
        assert refused.startswith("HTTP/1.1 400")
        assert "x-trace-id" in refused.lower()


def test_absolute_target_names_host_and_path(tmp_path: Path) -> None:
    with InlineServer(tmp_path) as server:
        target = "GET http://{}/info HTTP/1.1\nHost: {}\nConnection: close\n\n"
        assert spoken(server, target.format("localhost", "evil.example")).startswith("HTTP/1.1 200")
        assert spoken(server, target.format("evil.example", "localhost")).startswith("HTTP/1.1 400")
