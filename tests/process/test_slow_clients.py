"""Clients that ask and do not read: they cost little memory, are given up in time, and keep no stop waiting."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures import make
from tests.support.clients import asking, connected, unread
from tests.support.server_process import InlineServer, ServerProcess, until
from tests.support.speed import seconds
from tests.support.tls import certificate

pytestmark = pytest.mark.process
CLIENTS, WARMING = 400, 20
BUNDLE = "/docs/swagger-ui-bundle.js"  # 1.4 MB, one copy of which is kept
QUICK = {"OPERATOR_PUBLIC": "true", "IMGSVC_SERVER_ANSWER_IDLE_SECONDS": "1"}
IN_PROGRESS = "http_requests_in_progress"


def resident_bytes(server: ServerProcess) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, **QUICK) as running:
        yield running


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, real="its memory is measured", **QUICK) as running:
        yield running


def in_progress(server: ServerProcess) -> float:
    lines = server.http.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(IN_PROGRESS))


def test_unread_answers_hold_little_and_end_in_time(real_server: ServerProcess) -> None:
    job = real_server.job_ended(real_server.upload(make.noise(1000, 800)).json()["job_id"])
    variant = f"/api/v1/images/{job['image_id']}/direct?size=original"
    whole = {path: len(real_server.http.get(f"{real_server.url}{path}").content) for path in (BUNDLE, variant)}
    assert min(whole.values()) > 400_000
    for path in (BUNDLE, variant):
        with unread(real_server.url, path, WARMING):  # what is made once, at a first use
            until(lambda: in_progress(real_server) > WARMING)
        until(lambda: in_progress(real_server) == 1)
        idle = resident_bytes(real_server)
        with unread(real_server.url, path, CLIENTS) as clients:
            until(lambda: sum(one.recv(1) == b"H" for one in clients) == CLIENTS)
            assert resident_bytes(real_server) < 1.2 * idle
            until(lambda: in_progress(real_server) == 1, 60)  # given up, though they are still there
            assert resident_bytes(real_server) < 1.2 * idle


def test_client_that_reads_slowly_and_steadily_gets_its_answer(tmp_path: Path) -> None:
    """A piece now and then, faster than the least rate: for longer than a client may take nothing."""
    with InlineServer(tmp_path, **QUICK) as server, asking(server.url, BUNDLE) as client:
        began, received = time.monotonic(), 0
        while time.monotonic() - began < 3:
            received += len(client.recv(8192))
            client.settimeout(10)
            time.sleep(0.1)
        while received < 1_300_000:
            chunk = client.recv(1 << 20)
            assert chunk
            received += len(chunk)


def test_client_that_waits_for_news_is_not_late(server: ServerProcess) -> None:
    """It has nothing to take: the deadline is for bytes that wait."""
    worker = server.render_worker()
    os.kill(worker, signal.SIGSTOP)
    job = server.upload(make.tiny()).json()["job_id"]
    url, began = f"{server.url}/api/v1/images/jobs/{job}", time.monotonic()
    assert server.http.get(url, headers={"Prefer": "wait=3"}).status_code == 200
    assert time.monotonic() - began > 2.5
    os.kill(worker, signal.SIGCONT)


def test_stop_waits_for_no_client(server: ServerProcess) -> None:
    """By default 4 s for requests, 5 s for lanes and 2 s for the rest: under the 15 s of compose.yaml."""
    done = server.job_ended(server.upload(make.noise(1000, 800)).json()["job_id"])
    variant = f"/api/v1/images/{done['image_id']}/direct?size=original"
    with unread(server.url, variant, CLIENTS // 2), unread(server.url, BUNDLE, CLIENTS // 2):
        until(lambda: server.sockets() > CLIENTS)
        jobs = [server.upload(make.jpeg(2000, 1500)).json()["job_id"] for _ in range(3)]
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < seconds(11)
        assert "Traceback" not in server.log.read_text()
        server.start()
        assert time.monotonic() - began < seconds(15)
        ended = [server.job_ended(job) for job in jobs]
        assert {(job["status"], job["attempts"]) for job in ended} == {("completed", 0)}


def test_unread_answers_over_tls_hold_little_and_keep_no_stop_waiting(tmp_path: Path) -> None:
    """Beside the same connections idle; what each takes as long as it is open is bounded, too."""
    cert, key = certificate(tmp_path)
    tls = {
        "OPERATOR_PUBLIC": "true",
        "IMGSVC_SERVER_CERTFILE": str(cert),
        "IMGSVC_SERVER_KEYFILE": str(key),
        "IMGSVC_SERVER_KEEP_ALIVE_SECONDS": "600",  # longer than connecting takes
    }
    with ServerProcess(tmp_path, real="its memory is measured", **tls) as server, ExitStack() as stack:
        with unread(server.url, BUNDLE, WARMING) as warming:  # what is made once, at a first use
            assert all(client.recv(1) == b"H" for client in warming)
        alone = resident_bytes(server)
        clients = [stack.enter_context(connected(server.url)) for _ in range(CLIENTS)]
        idle = resident_bytes(server)
        for client in clients[WARMING:]:  # some stay idle until the service stops
            client.sendall(f"GET {BUNDLE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert all(client.recv(1) == b"H" for client in clients[WARMING:])
        print(f"{CLIENTS} connections over TLS: idle {idle / alone:.2f}, unread {resident_bytes(server) / alone:.2f} ×")
        assert resident_bytes(server) < 1.2 * idle
        assert resident_bytes(server) < 1.2 * alone
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < seconds(11)
        assert "Traceback" not in server.log.read_text()


def test_bodies_over_tls_leave_little_behind(tmp_path: Path) -> None:
    """Anybody may send one, and keep the connection: with buffers that stayed as large as it, 0.6 MB for each."""
    cert, key = certificate(tmp_path)
    tls = {"IMGSVC_SERVER_CERTFILE": str(cert), "IMGSVC_SERVER_KEYFILE": str(key)}
    body = bytes(700_000)
    head = f"POST /api/v1/images/upload?bucket=b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with ServerProcess(tmp_path, real="its memory is measured", **tls) as server, ExitStack() as stack:

        def refused() -> socket.socket:
            client = stack.enter_context(connected(server.url))
            client.sendall(head.encode() + body)
            assert client.recv(12) == b"HTTP/1.1 401"
            return client

        for _ in range(WARMING):
            refused()
        before = resident_bytes(server)
        clients = [refused() for _ in range(CLIENTS // 4)]
        assert resident_bytes(server) - before < len(clients) * 150_000
