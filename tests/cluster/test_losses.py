"""What is lost on the way to a machine and back: no job is, and no attempt is counted."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from tests.support.cluster import Cluster, ClusterService, Worker, stopped
from tests.support.server_process import ROOT, bearer, until

pytestmark = pytest.mark.process


def job(server: ClusterService, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get(f"{server.url}/api/v1/images/jobs/{job_id}").json()
    return found


def completed(server: ClusterService, job_ids: list[str]) -> bool:
    """Whether all are; none may have failed."""
    found = [job(server, one) for one in job_ids]
    assert not [one for one in found if one["status"] == "failed"], found
    return all(one["status"] == "completed" for one in found)


def attempts(server: ClusterService) -> int:
    with closing(sqlite3.connect(server.places.database)) as db:
        return int(db.execute("SELECT sum(attempt_count + deaths) FROM processing_jobs").fetchone()[0] or 0)


def slow() -> bytes:
    """A photo that takes a second or more."""
    return make.jpeg(6000, 4000)


def upload(server: ClusterService, data: bytes, number: int = 1) -> list[str]:
    return [server.upload(data, user=f"user{n}").json()["job_id"] for n in range(number)]


def scratch(server: ClusterService) -> list[Path]:
    return [path for path in (server.places.database.parent / "scratch").iterdir() if path.name != "health"]


@pytest.mark.torture
def test_scheduler_is_killed_and_comes_back(own_cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
    """Local lanes go on meanwhile: previews here, and nothing else."""
    with own_cluster.service(tmp_path / "far", IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        jobs = upload(far, slow(), 4)
        until(worker.rendering)
        own_cluster.scheduler.kill()
        own_cluster.scheduler.wait()
        until(lambda: far.events("gateway_ended"))
        jobs += upload(far, make.jpeg(640, 480), 4)
        until(lambda: all(job(far, one)["ready"] for one in jobs))
        own_cluster.start_scheduler()
        until(lambda: completed(far, jobs), 90)
        assert attempts(far) == 0
        assert not far.events("worker_answer_invalid")
    assert worker.process.poll() is None


@pytest.mark.torture
def test_worker_is_killed_amid_a_picture(own_cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
    with own_cluster.service(tmp_path / "far") as far:
        jobs = upload(far, slow(), 3)
        until(worker.rendering)
        worker.signal(signal.SIGKILL)
        until(lambda: far.events("ticket_lost"), 60)
        own_cluster.start_worker(count=2).joined()
        until(lambda: completed(far, jobs), 90)
        assert attempts(far) == 0


@pytest.mark.torture
def test_picture_that_ends_its_process_counts_as_here(own_cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
    """Twice, then it has failed; the worker lives on, and so does what else it works on."""
    with own_cluster.service(tmp_path / "far", IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        (poison,) = upload(far, slow())
        for _ in range(2):
            for pid in until(worker.rendering):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not worker.rendering() or job(far, poison)["status"] == "failed")
            until(lambda: worker.rendering() or job(far, poison)["status"] == "failed")
        found = until(lambda: job(far, poison) if job(far, poison)["status"] == "failed" else None)
        assert found and (found["error_code"], worker.process.poll()) == ("worker_crashed", None)
        until(lambda: completed(far, upload(far, make.jpeg(640, 480))))


def test_deleted_image_is_no_longer_rendered(own_cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
    with own_cluster.service(tmp_path / "far", IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        receipt = far.upload(make.jpeg(7000, 7000)).json()
        busy = until(worker.rendering)
        gone = far.http.delete(f"{far.url}/api/v1/images/{receipt['image_id']}", headers=bearer())
        assert gone.status_code == 200
        until(lambda: not set(busy) & set(worker.rendering()), 1)
        until(lambda: not scratch(far))
        until(lambda: completed(far, upload(far, make.jpeg(640, 480))))


@pytest.mark.torture  # a minute: the scheduler gives a silent worker half of that
def test_machine_that_was_cut_off_meets_the_fence(own_cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
    """It stands still amid a picture, which another makes; what it puts afterwards is refused."""
    with own_cluster.service(tmp_path / "far", IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        jobs = upload(far, slow())
        until(worker.rendering)
        with stopped(worker.process.pid):
            own_cluster.start_worker().joined()
            until(lambda: completed(far, jobs), 90)  # after the scheduler's worker-ttl
        until(lambda: worker.log.read_text().count("worker_joined") == 2, 60)
        put = [line["status"] for line in far.events("request") if line["method"] == "PUT"]
        assert set(put) <= {204, 403} and 1 <= put.count(204) <= 3
        assert attempts(far) == 0
        assert not scratch(far)


@pytest.mark.torture
def test_service_that_starts_anew_takes_no_output_of_before(
    own_cluster: Cluster, worker: Worker, tmp_path: Path
) -> None:
    with own_cluster.service(tmp_path / "far", IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        jobs = upload(far, slow(), 6)
        until(worker.rendering)
        far.kill_and_start()
        until(lambda: completed(far, jobs), 90)
        assert attempts(far) == 0
        assert len({event["job_id"] for event in far.events("job_completed")}) == len(far.events("job_completed")) == 6
        until(lambda: not scratch(far))


@pytest.mark.torture
def test_worker_that_is_stopped_finishes_what_it_works_on(own_cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
    with own_cluster.service(tmp_path / "far") as far:
        jobs = upload(far, slow(), 4)
        until(worker.rendering)
        other = own_cluster.start_worker().joined()
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
        until(lambda: completed(far, jobs), 90)
        assert attempts(far) == 0
        assert len(far.events("ticket_lost")) <= 2  # those that only waited there
        assert other.process.poll() is None


def test_machine_of_another_version_is_not_used_and_named(own_cluster: Cluster, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "imgsvc", tmp_path / "older" / "imgsvc")
    recipe = tmp_path / "older" / "imgsvc" / "imaging" / "recipe.py"
    recipe.write_text(recipe.read_text() + "\n# another version\n")
    older = own_cluster.start_worker(PYTHONPATH=str(tmp_path / "older")).joined()
    with own_cluster.service(tmp_path / "far", None, IMGSVC_WORKERS_LOCAL_RENDERS="1") as far:
        (machine,) = until(far.machines)
        assert machine["used"] is False
        assert [event["name"] for event in far.events("machine_not_used")] == [machine["name"]]
        until(lambda: "another version" in far.data()["cluster"]["detail"])
        assert far.data()["cluster"]["tickets_out"] == 0
        assert older.process.poll() is None


@pytest.mark.torture
def test_no_more_is_out_than_twice_what_the_machines_can_do(
    own_cluster: Cluster, worker: Worker, tmp_path: Path
) -> None:
    with own_cluster.service(tmp_path / "far", IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        jobs = upload(far, make.jpeg(2400, 1600), 16)
        most = 0

        def all_done() -> bool:
            nonlocal most
            most = max(most, far.data()["cluster"]["tickets_out"])
            return completed(far, jobs)

        until(all_done, 90)
        assert 2 < most <= 4
