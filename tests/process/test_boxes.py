"""Machines of the ordinary sort that are not like ours: what a cluster, a share or a shell brings with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fixtures import make
from tests.support.server_process import InlineServer, ServerProcess, bearer, until

pytestmark = pytest.mark.process

# A service named imgsvc-server gives every pod of its namespace these (kubernetes.io, "Accessing the Service").
SERVICE_LINKS = {
    "IMGSVC_SERVER_SERVICE_HOST": "10.0.0.12",
    "IMGSVC_SERVER_PORT": "tcp://10.0.0.12:8000",
    "IMGSVC_SERVER_PORT_8000_TCP_ADDR": "10.0.0.12",
}


def test_service_links_of_kubernetes_are_one_warning(tmp_path: Path) -> None:
    with InlineServer(tmp_path, **SERVICE_LINKS) as server:
        said = [line for line in server.log.read_text().splitlines() if "enableServiceLinks" in line]
        assert len(said) == 1 and all(name in said[0] for name in SERVICE_LINKS)
        assert "IMGSVC_SERVER_PORT" in server.run("doctor").stdout
        token = server.run("token", "--sub", "me")
        assert (token.returncode, token.stderr) == (0, "")


def test_a_misspelt_variable_stops_the_start(tmp_path: Path) -> None:
    refused = ServerProcess(tmp_path, IMGSVC_SERVER_PROT="8000").run("serve", "--port", "0")
    assert (refused.returncode, refused.stderr) == (
        2,
        "imgsvc: IMGSVC_SERVER_PROT: there is no such setting; IMGSVC_SERVER_PORT is one\n",
    )


def test_hangup_is_a_graceful_stop(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        workers = server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGHUP)  # a terminal sends it to all
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGHUP)
        assert server.ended() == 0
        assert '"signal": "SIGHUP"' in server.log.read_text() and "worker_died" not in server.log.read_text()


def started(folder: Path, redirections: str, **environment: str) -> subprocess.Popen[bytes]:
    """By a shell, which closes the streams, as cron, an old init script or nohup may."""
    environ = {**ServerProcess(folder, **environment).environ}
    line = f"exec {sys.executable} -m imgsvc serve --port 0 {redirections}"
    return subprocess.Popen(["sh", "-c", line], cwd=folder, env=environ, start_new_session=True)


def listens(folder: Path) -> str:
    lines = (folder / "data" / "lock").read_text().split("\n") if (folder / "data" / "lock").exists() else []
    return lines[1] if len(lines) > 1 else ""


@pytest.mark.parametrize(
    "redirections",
    [">&-", pytest.param(">&- 2>&-", marks=pytest.mark.torture), "<&- >&- 2>&-", ">/dev/full", "| true"],
)
def test_output_that_is_closed_is_no_crash(tmp_path: Path, redirections: str) -> None:
    process = started(tmp_path, redirections)
    try:
        url = until(lambda: listens(tmp_path))
        with httpx.Client() as client:
            sent = {**bearer(), "Content-Type": "image/jpeg"}
            answer = client.post(f"{url}/api/v1/images/upload?bucket=b", content=make.tiny(), headers=sent)
            assert answer.status_code == 202, answer.text
            status = f"{url}{answer.json()['status_url']}"
            until(lambda: client.get(status).json()["status"] == "completed")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        status_of_exit = process.wait(30)
    assert status_of_exit == 0 or "|" in redirections  # of a pipe it is another command's


def test_nohup_is_heeded(tmp_path: Path) -> None:
    environ = {**ServerProcess(tmp_path).environ}
    line = f"trap '' HUP; exec {sys.executable} -m imgsvc serve --port 0 >&-"
    process = subprocess.Popen(["sh", "-c", line], cwd=tmp_path, env=environ, start_new_session=True)
    try:
        url = until(lambda: listens(tmp_path))
        process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{url}/api/v1/health/live").status_code == 200
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(30) == 0
