"""Promise 2: whatever happens to a worker, only its own job suffers."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import make
from tests.support.server_process import SECRET, ServerProcess, environment_block, is_running, until
from tests.support.speed import seconds

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def slow_photo() -> bytes:
    """38 MP: its render takes about two seconds, so that it is seen on a busy machine too."""
    return make.encoded(make.photo(1500, 1000).resize((7500, 5000)), "JPEG", quality=80)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, IMGSVC_JOBS_RETRY_DELAY_SECONDS="0") as running:
        yield running


def rendering(server: ServerProcess, slow_photo: bytes) -> tuple[str, int]:
    """A job that is being rendered, and the worker that does it."""
    job_id = server.upload(slow_photo).json()["job_id"]
    until(lambda: being_encoded(server, job_id))
    return job_id, server.render_worker()


def being_encoded(server: ServerProcess, job_id: str) -> set[Path]:
    """The largest variants that are written: their tasks are really under way then, one for each run."""
    found = (server.folder / "data" / "scratch").glob(f"{job_id}.*/original.webp")
    return {path for path in found if path.stat().st_size}


def test_killed_worker_costs_an_attempt_and_nothing_else(server: ServerProcess, slow_photo: bytes) -> None:
    job_id, worker = rendering(server, slow_photo)
    os.kill(worker, signal.SIGKILL)
    other = server.upload(make.tiny()).json()["job_id"]
    job = server.job_ended(job_id)
    assert (job["status"], job["attempts"]) == ("completed", 1)
    assert (server.job_ended(other)["status"], server.job(other)["attempts"]) == ("completed", 0)


def test_second_death_fails_the_job_and_removes_what_it_put(server: ServerProcess, slow_photo: bytes) -> None:
    job_id, worker = rendering(server, slow_photo)
    first = being_encoded(server, job_id)
    os.kill(worker, signal.SIGKILL)
    until(lambda: being_encoded(server, job_id) - first)
    os.kill(server.render_worker(), signal.SIGKILL)
    job = server.job_ended(job_id)
    assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "worker_crashed", False)
    assert "died" in job["error"]
    until(lambda: server.files("storage") == [])
    assert server.job_ended(server.upload(make.tiny()).json()["job_id"])["status"] == "completed"


def test_hung_worker_is_killed_at_its_time_limit(tmp_path: Path, slow_photo: bytes) -> None:
    limit = seconds(4)  # the second run must end within it
    limits = {
        "IMGSVC_WORKERS_TIME_LIMIT_SECONDS": f"{limit:.0f}",
        "IMGSVC_WORKERS_TIME_LIMIT_SECONDS_PER_MEGAPIXEL": "0",
    }
    with ServerProcess(tmp_path, IMGSVC_JOBS_RETRY_DELAY_SECONDS="0", **limits) as server:
        job_id, worker = rendering(server, slow_photo)
        os.kill(worker, signal.SIGSTOP)
        until(lambda: not is_running(worker), limit + 30)
        job = server.job_ended(job_id)
        assert (job["status"], job["attempts"]) == ("completed", 1)


def test_worker_killed_while_idle_costs_nothing(server: ServerProcess) -> None:
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
        until(lambda worker=worker: not is_running(worker))  # type: ignore[misc]
    job = server.job_ended(server.upload(make.tiny()).json()["job_id"])
    assert (job["status"], job["attempts"]) == ("completed", 0)


def test_workers_hold_no_secret_and_die_with_the_service(server: ServerProcess) -> None:
    workers = server.workers()
    assert len(workers) == 2
    for worker in workers:
        assert SECRET.encode() not in environment_block(worker)
        assert Path(f"/proc/{worker}/oom_score_adj").read_text().strip() == "1000"
    server.signal(signal.SIGKILL)
    until(lambda: not any(map(is_running, workers)))
