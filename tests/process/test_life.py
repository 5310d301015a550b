"""Starting and stopping, as an operator sees them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures import make
from imgsvc.access.tokens import Tokens
from tests.support.processes import run
from tests.support.server_process import ROOT, SECRET, InlineServer, ServerProcess, children, exit_status, until
from tests.support.speed import seconds

pytestmark = pytest.mark.process


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    return run(arguments, folder=folder, environ=environ)


def test_version_and_help(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    version = run(["--version"], folder=tmp_path, environ=environ, real="the program as it is installed")
    assert version.stdout.startswith("imgsvc 0.")
    assert "serve" in command(tmp_path).stdout


def test_help_names_the_sections_of_settings(tmp_path: Path) -> None:
    """In a terminal it is laid out by rich, for which [server] would be a style."""
    said = " ".join(command(tmp_path, "serve", "--help").stdout.replace("│", " ").split())
    assert "[server] host." in said and "[server] port." in said


def test_token_for_a_data_folder_that_no_service_has_used_says_so(tmp_path: Path) -> None:
    made = command(tmp_path, "token", "--sub", "me")
    assert made.returncode == 0 and made.stdout.count(".") == 2 and made.stdout.count("\n") == 1
    assert made.stderr == (
        f"imgsvc: no service has used the data folder {tmp_path}/data yet: the token is for one that will\n"
    )
    assert command(tmp_path, "token", "--sub", "me", JWT_SECRET_KEY=SECRET).stderr == ""
    (tmp_path / "data" / "imgsvc.db").touch()
    assert command(tmp_path, "token", "--sub", "me").stderr == ""


def test_first_start_needs_no_configuration(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "imgsvc", "serve", "--port", "0"]
    with subprocess.Popen(line, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        said = [process.stdout.readline().decode() for _ in range(3)]
        assert said[0].startswith("imgsvc listens on   http://127.0.0.1:")
        assert "/docs" in said[1]
        assert "token --sub" in said[2]
        token = command(tmp_path, "token", "--sub", "me", "--ttl", "60").stdout.strip()
        answer = httpx.post(
            f"{said[0].split()[-1]}/api/v1/images/upload?bucket=b",
            content=make.jpeg(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"},
        )
        assert answer.status_code == 202
        process.terminate()
        assert exit_status(process) == 0
    assert (tmp_path / "data" / "jwt_secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"IMGSVC_WORKERS_COUNT": "-1"},
            ["[workers] count", "IMGSVC_WORKERS_COUNT", "'-1'", "greater than or equal to 0"],
        ),
        ({"JWT_SECRET_KEY": "short"}, ["[auth] jwt_secret_key", "5 bytes", "at least 32"]),
        ({"IMGSVC_WORKERS_MEMORY_MB": "50"}, ["memory_mb", "50", "at least"]),
        ({"IMGSVC_SERVER_HOST": "203.0.113.1"}, ["203.0.113.1"]),
    ],
)
def test_bad_setting_stops_the_start_with_one_line(
    tmp_path: Path, environment: dict[str, str], words: list[str]
) -> None:
    result = command(tmp_path, "serve", "--port", "0", **environment)
    told = [line for line in result.stderr.splitlines() if line.startswith("imgsvc:")]
    assert result.returncode == 2
    assert len(told) == 1
    assert "Traceback" not in result.stderr
    assert all(word in told[0] for word in words), told


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as running:
        yield running


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, real="its end, its memory and its process group are what is tested") as running:
        yield running


def test_data_folder_is_for_one_process(tmp_path: Path) -> None:
    with InlineServer(tmp_path) as server:
        taken = {"DATABASE_PATH": str(tmp_path / "data" / "imgsvc.db"), "IMGSVC_JOBS_LOCK_WAIT_SECONDS": "0.2"}
        second = command(tmp_path, "serve", "--port", "0", **taken)
        assert second.returncode == 2
        assert f"in use by process {server.process.pid}" in second.stderr


def test_stop_gives_back_what_waits_and_the_next_start_does_it(server: ServerProcess) -> None:
    photo = make.jpeg(2000, 1500)
    jobs = [server.upload(photo).json()["job_id"] for _ in range(4)]
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < seconds(10)
    server.start()
    assert {(job["status"], job["attempts"]) for job in map(server.job_ended, jobs)} == {("completed", 0)}


def test_second_signal_ends_at_once(real_server: ServerProcess) -> None:
    jobs = [real_server.upload(make.jpeg(3000, 2000)).json()["job_id"] for _ in range(3)]
    until(lambda: any(map(children, real_server.render_workers())))  # else the stop is over before the second one
    real_server.signal(signal.SIGTERM)
    until(lambda: "stopping" in real_server.log.read_text())
    real_server.signal(signal.SIGTERM)
    assert real_server.ended() == 1
    real_server.real = ""  # only what it finds matters now
    real_server.start()
    assert {real_server.job_ended(job)["status"] for job in jobs} == {"completed"}


def test_ctrl_c_for_the_whole_group_is_a_graceful_stop(real_server: ServerProcess) -> None:
    job = real_server.upload(make.tiny()).json()["job_id"]
    os.killpg(real_server.process.pid, signal.SIGINT)
    assert real_server.ended() == 0
    real_server.real = ""
    real_server.start()
    assert (real_server.job_ended(job)["status"], real_server.job(job)["attempts"]) == ("completed", 0)


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_memory_per_upload_stays_under_one_mebibyte(real_server: ServerProcess) -> None:
    """Twenty uploads of 9 MB at once, all but their last bytes sent."""
    photo = make.jpeg(400, 300)
    photo += bytes(9_000_000 - len(photo))
    hold, sent = threading.Event(), threading.Semaphore(0)
    headers = {"Authorization": f"Bearer {Tokens(SECRET, 'HS256').issue('bob')}", "Content-Type": "image/jpeg"}

    def body() -> Iterator[bytes]:
        yield photo[:-1000]
        sent.release()
        hold.wait(seconds(60))
        yield photo[-1000:]

    answers: list[int] = []

    def upload() -> None:
        url = f"{real_server.url}/api/v1/images/upload?bucket=b"
        answers.append(httpx.post(url, content=body(), headers=headers, timeout=seconds(60)).status_code)

    assert real_server.upload(make.tiny()).status_code == 202
    idle = rss_bytes(real_server.process.pid)
    threads = [threading.Thread(target=upload) for _ in range(20)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert sent.acquire(timeout=seconds(60))
    staging = real_server.folder / "data" / "staging"
    until(lambda: sum(path.stat().st_size for path in staging.iterdir()) > 20 * 8_500_000)
    grown = (rss_bytes(real_server.process.pid) - idle) / 20
    hold.set()
    for thread in threads:
        thread.join()
    assert answers == [202] * 20
    assert grown < 1 << 20
