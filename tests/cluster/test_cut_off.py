"""Machines, schedulers and networks that go away at a given moment, and clocks that are wrong."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from fixtures import make
from tests.cluster.test_losses import attempts, completed, job, scratch, slow, upload
from tests.support.cluster import Cluster, ClusterService, Worker
from tests.support.other_network import other_network, possible
from tests.support.s3 import S3Server
from tests.support.server_process import until
from tests.support.wall_clock import WallClock

pytestmark = [pytest.mark.process, pytest.mark.torture]
HERE = {"IMGSVC_WORKERS_LOCAL_RENDERS": "1", "IMGSVC_WORKERS_LOCAL_PREVIEW": "true"}
EACH = {"IMGSVC_IMAGES_REUSE": "false"}  # of the same photos each is rendered


def small() -> bytes:
    return make.jpeg(640, 480)


def statuses(far: ClusterService, method: str) -> list[int]:
    return [line["status"] for line in far.events("request") if line["method"] == method]


@pytest.mark.parametrize("stall", ["half", "after"])
def test_worker_is_killed_amid_a_variant_and_after_its_last(own_cluster: Cluster, tmp_path: Path, stall: str) -> None:
    """`half`: three quarters are received and dropped. `after`: all arrive, but the answer is lost."""
    with own_cluster.service(tmp_path / "far", None, **EACH, IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        dying = own_cluster.start_prepared(1, stall=stall).joined()
        first = upload(far, small())
        until(lambda: completed(far, first))  # now it has rendered one, and so knows the variants
        jobs = upload(far, small(), 2)
        until(lambda: "stands still" in dying.log.read_text())
        dying.signal(signal.SIGKILL)
        until(lambda: far.events("ticket_lost"), 60)
        until(lambda: not scratch(far))
        own_cluster.start_worker().joined()
        until(lambda: completed(far, jobs), 90)
        assert attempts(far) == 0
        completions = [event["job_id"] for event in far.events("job_completed")]
        assert len(completions) == len(set(completions)) == 3


def test_worker_that_is_killed_after_its_answer_has_done_its_ticket(own_cluster: Cluster, tmp_path: Path) -> None:
    """The answer comes with the last variants; the cluster's own report of the end never does."""
    with own_cluster.service(tmp_path / "far", None, **EACH, IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        dying = own_cluster.start_prepared(1, stall="answered").joined()
        first = upload(far, small())
        until(lambda: completed(far, first))
        jobs = upload(far, small())
        until(lambda: "stands still" in dying.log.read_text())
        until(lambda: completed(far, jobs))
        dying.signal(signal.SIGKILL)
        until(lambda: not far.machines())
        assert not far.events("ticket_lost") and attempts(far) == 0
        assert far.data()["cluster"]["tickets_out"] == 0


@pytest.mark.parametrize("away", [5, 60, None])
def test_scheduler_is_away_under_load(own_cluster: Cluster, worker: Worker, tmp_path: Path, away: int | None) -> None:
    """Without it the lane of this machine goes on; and nothing is lost, whether it ever comes back."""
    with own_cluster.service(tmp_path / "far", 1, **EACH, **HERE) as far:
        jobs = upload(far, make.jpeg(2400, 1600), 10)
        until(worker.rendering)
        own_cluster.scheduler.kill()
        own_cluster.scheduler.wait()
        began = time.monotonic()
        until(lambda: far.events("gateway_ended"))
        jobs += upload(far, small(), 10)
        if away is not None:
            until(lambda: time.monotonic() - began > away, away + 5)
            own_cluster.start_scheduler()
            until(lambda: far.data()["cluster"]["status"] == "connected", 90)
            until(lambda: sum(one["used"] for one in far.machines()) == 1, 90)
            jobs += upload(far, small(), 4)
        until(lambda: completed(far, jobs), 240)
        assert attempts(far) == 0
        completions = [event["job_id"] for event in far.events("job_completed")]
        assert len(completions) == len(set(completions)) == len(jobs)


def test_jobs_wait_for_a_scheduler_where_nothing_is_rendered_here(
    own_cluster: Cluster, worker: Worker, tmp_path: Path
) -> None:
    with own_cluster.service(tmp_path / "far", 1, **EACH) as far:
        own_cluster.scheduler.kill()
        own_cluster.scheduler.wait()
        until(lambda: far.events("gateway_ended"))
        jobs = upload(far, small(), 3)
        until(lambda: len(far.events("scheduler_unreachable")) > 0)
        assert {job(far, one)["status"] for one in jobs} == {"pending"}
        own_cluster.start_scheduler()
        until(lambda: completed(far, jobs), 120)
        assert attempts(far) == 0
    assert worker.process.poll() is None


@pytest.mark.skipif(not possible(), reason="needs a network namespace, and iptables in it")
def test_machine_whose_packets_are_dropped_meets_the_fence(own_cluster: Cluster, tmp_path: Path) -> None:
    """In the middle of a picture, which another machine then makes: no message reports that the first one has gone."""
    with other_network() as network:
        own_cluster.scheduler.kill()
        own_cluster.scheduler.wait()
        own_cluster.host, own_cluster.address = network.here, ""
        own_cluster.start_scheduler()
        far_away = own_cluster.start_worker(inside=network.inside).joined()
        environment = {**EACH, "IMGSVC_SERVER_HOST": network.here, "IMGSVC_WORKERS_LOCAL_PREVIEW": "true"}
        with own_cluster.service(tmp_path / "far", None, **environment) as far:
            until(lambda: sum(one["used"] for one in far.machines()) == 1)
            jobs = upload(far, slow())
            until(far_away.rendering)
            with network.cut_off():
                own_cluster.start_worker().joined()
                until(lambda: completed(far, jobs), 120)  # after the scheduler's worker-ttl
            until(lambda: far_away.log.read_text().count("worker_joined") == 2, 120)
            put = statuses(far, "PUT")
            assert set(put) <= {204, 403} and 1 <= put.count(204) <= 3
            assert attempts(far) == 0
            assert not scratch(far)


def test_clocks_that_are_five_minutes_wrong_change_nothing(own_cluster: Cluster, s3: S3Server, tmp_path: Path) -> None:
    """Those of two workers, one fast and one slow; addresses of the service and of the storage are signed."""
    for offset in (300, -300):
        clock = WallClock(tmp_path / f"clock{offset}", offset)
        own_cluster.start_worker(1, 700, **clock.environ).joined()
    bucket = s3.bucket()
    with own_cluster.service(tmp_path / "far", 2, **EACH, **s3.environment(bucket)) as far:
        jobs = upload(far, make.jpeg(1600, 1200), 8)
        until(lambda: completed(far, jobs), 90)
        assert not far.events("ticket_lost") and not far.events("render_refused")
        assert statuses(far, "PUT") == []
    environ = {"PATH": "/usr/bin:/bin", **clock.environ}
    wrong = subprocess.run(["sh", "-c", "date +%s; date +%s"], env=environ, capture_output=True, check=True)
    assert all(abs(int(seconds) - time.time() + 300) < 5 for seconds in wrong.stdout.split())
