"""`[server] host = "unix:…"`: for a proxy on the same machine, which nginx is here where it is installed."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from fixtures import make
from imgsvc.settings import SettingsError
from imgsvc.settings.server import Server
from tests.support.processes import Process, begin, run
from tests.support.server_process import ROOT, SECRET, bearer, exit_status, until

pytestmark = pytest.mark.process
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://unix:{socket};
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
        }}
    }}
}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path: that of a socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="unix-") as name:
        yield Path(name)


def environ(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "JWT_SECRET_KEY": SECRET,
        "IMGSVC_WORKERS_COUNT": "1",
        "IMGSVC_SERVER_HOST": f"unix:{folder}/s",
        **more,
    }


@contextmanager
def served(folder: Path, **more: str) -> Iterator[Process]:
    process = begin(["serve"], folder=folder, environ=environ(folder, **more), log=folder / "log")
    try:
        assert process.stdout
        said = process.stdout.readline()
        assert said.split()[-1] == f"unix:{folder}/s", (folder / "log").read_text()
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def over(folder: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=f"{folder}/s"), base_url="http://img.example.org")


def test_requests_commands_and_the_socket_itself(folder: Path) -> None:
    with served(folder) as process:
        found = (folder / "s").stat().st_mode
        assert stat.S_ISSOCK(found) and stat.S_IMODE(found) == 0o660
        with over(folder) as client:
            files = {"file": ("photo.jpg", make.tiny())}
            answer = client.post("/api/v1/images/upload", data={"bucket": "b"}, files=files, headers=bearer())
            assert answer.status_code == 202, answer.text
            status = answer.json()["status_url"]
            until(lambda: client.get(status).json()["status"] == "completed")
        health = run(["health"], folder=folder, environ=environ(folder))
        assert (health.returncode, health.stdout) == (0, "alive\n")
        link = run(["dashboard"], folder=folder, environ=environ(folder))
        assert link.returncode == 1 and "PUBLIC_URL" in link.stderr
        link = run(["dashboard"], folder=folder, environ=environ(folder, PUBLIC_URL="https://img.example.org"))
        assert link.stdout.startswith("https://img.example.org/dashboard#code=")
        process.send_signal(signal.SIGTERM)
        assert exit_status(process) == 0
        assert not (folder / "s").exists()


def test_the_mode_is_a_setting_and_a_dead_socket_no_hindrance(folder: Path) -> None:
    with served(folder) as process:
        process.send_signal(signal.SIGKILL)
        exit_status(process)
    assert (folder / "s").exists()
    with served(folder, IMGSVC_SERVER_UNIX_MODE="666"), over(folder) as client:
        assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o666
        assert client.get("/api/v1/health/live").status_code == 200


def test_what_is_in_the_way_is_named(folder: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(f"{folder}/s")
        other.listen()
        refused = run(["serve"], folder=folder, environ=environ(folder))
        assert refused.returncode == 2 and "another process listens there" in refused.stderr
    (folder / "s").unlink()
    (folder / "s").write_text("mine")
    refused = run(["serve"], folder=folder, environ=environ(folder))
    assert refused.returncode == 2 and "no socket" in refused.stderr
    assert (folder / "s").read_text() == "mine"
    elsewhere = run(["serve"], folder=folder, environ=environ(folder, IMGSVC_SERVER_HOST=f"unix:{folder}/none/s"))
    assert elsewhere.returncode == 2 and "No such file or directory" in elsewhere.stderr


@pytest.mark.parametrize("host", ["unix:", "unix:relative/s", "unix:/" + "x" * 107])
def test_paths_that_can_not_be_bound_are_refused(host: str) -> None:
    with pytest.raises((SettingsError, ValueError), match="absolute path of at most 107 bytes"):
        Server(host=host)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_behind_nginx(folder: Path) -> None:
    assert NGINX
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=port, socket=folder / "s"))
    folder.chmod(0o711)  # nginx' workers are another user, which the socket's mode admits
    url = f"http://127.0.0.1:{port}"
    with served(folder, IMGSVC_SERVER_UNIX_MODE="666", PUBLIC_URL=url):
        command = [NGINX, "-p", str(folder), "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with httpx.Client() as client:
                until(lambda: _answers(client, url))
                data = make.jpeg(2000, 1500)
                sent = {**bearer(), "Content-Type": "image/jpeg"}
                answer = client.post(f"{url}/api/v1/images/upload?bucket=b", content=data, headers=sent)
                assert answer.status_code == 202, answer.text
                image, status = answer.json()["image_id"], answer.headers["Location"]
                assert status.startswith(url)
                until(lambda: client.get(status).json()["status"] == "completed")
                bytes_ = client.get(f"{url}/api/v1/images/{image}/direct?size=large")
                assert (bytes_.status_code, bytes_.headers["Content-Type"]) == (200, "image/webp")
                wrong = {"Authorization": "Bearer wrong"}
                assert client.get(f"{url}/metrics", headers=wrong).status_code == 401
        finally:
            proxy.terminate()
            proxy.wait()
        refused = [line for line in (folder / "log").read_text().splitlines() if "operator_refused" in line]
        assert len(refused) == 1 and "127.0.0.1" in refused[0]  # the client, and not the socket


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/api/v1/health/live").status_code == 200
    except httpx.TransportError:
        return False
