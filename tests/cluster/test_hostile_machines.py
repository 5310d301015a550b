"""A machine of the cluster that attacks the service: it can spoil the picture that it was given, and nothing else."""

import json
import socket
from pathlib import Path

import pytest

from fixtures import make
from tests.support.cluster import Cluster
from tests.support.server_process import until

pytestmark = pytest.mark.process


@pytest.mark.parametrize("kind", ["exception", "result"])
def test_what_a_machine_sends_runs_in_the_gateway_at_most_and_reaches_nothing(
    own_cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    """The table of what the payload tried, as it came out of the gateway."""
    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        own_cluster.service(tmp_path / "far", None, IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far,
    ):
        waiting = far.upload(make.jpeg(640, 480)).json()["job_id"]
        data = far.places.database.parent
        paths = {
            "database": data / "imgsvc.db",
            "operator's token": data / "operator_token",
            "another's upload": data / "staging" / waiting,
            "key of the gateway": own_cluster.folder / "cluster-service.key",
            "passwords": Path("/etc/passwd"),
        }
        assert all(path.exists() for path in paths.values())
        victims = {
            "paths": {name: str(path) for name, path in paths.items()},
            "left": str(tmp_path / "left"),
            "port": elsewhere.getsockname()[1],
        }
        certificates = own_cluster.certificates("hostile")
        arguments = ("tests.support.hostile_worker", own_cluster.address, kind, json.dumps(victims))
        own_cluster.start(arguments, **certificates)
        log = own_cluster.last_log
        until(lambda: "worker_joined" in log.read_text())
        until(lambda: [one for one in far.events("gateway_ended") if one["reason"] == "all tried"], 60)
        said = [one["reason"] for one in far.events("scheduler_unreachable")]
        table = dict(one.removeprefix("tried: ").split("=") for one in said if one.startswith("tried: "))
        assert table.pop("listen") in ("EACCES", "EPERM")
        assert table.pop("start a program", "EPERM") == "EPERM"
        assert set(table.values()) <= {"EACCES", "EPERM"}, table
        assert len(table) >= 8
        assert not (tmp_path / "left").exists()
        job = far.http.get(f"{far.url}/api/v1/images/jobs/{waiting}").json()
        assert job["status"] in ("processing", "pending") and job["attempts"] == 0
        assert far.process.poll() is None


def test_machine_that_answers_nonsense_costs_its_own_pictures_only(own_cluster: Cluster, tmp_path: Path) -> None:
    with own_cluster.service(tmp_path / "far", None, IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        job_id = far.upload(make.jpeg(640, 480)).json()["job_id"]
        arguments = ("tests.support.hostile_worker", own_cluster.address, "nonsense", "{}")
        own_cluster.start(arguments, **own_cluster.certificates("hostile"))
        job = until(
            lambda: (
                (one := far.http.get(f"{far.url}/api/v1/images/jobs/{job_id}").json())["status"] == "failed" and one
            ),
            60,
        )
        assert job["error_code"] == "worker_crashed"
        assert [line["reason"] for line in far.events("worker_answer_invalid")] == ["ValidationError"] * 2
