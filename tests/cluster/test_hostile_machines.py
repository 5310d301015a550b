"""A machine of the cluster that attacks the service: it can spoil the picture that it was given, and nothing else."""

import json
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fixtures import make
from tests.support.cluster import Cluster, ClusterService
from tests.support.server_process import bearer, until

pytestmark = pytest.mark.process


def attacked_by(cluster: Cluster, kind: str, given: str) -> Path:
    """A hostile machine joins; returns its log."""
    arguments = ("tests.support.hostile_worker", cluster.address, kind, given)
    cluster.start(arguments, **cluster.certificates("hostile"))
    return cluster.last_log


@pytest.mark.parametrize(
    "kind", ["exception", "event", *(pytest.param(one, marks=pytest.mark.torture) for one in ("result", "type"))]
)
def test_what_a_machine_sends_runs_in_the_gateway_at_most_and_reaches_nothing(
    own_cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    """The table of what the payload tried, as it came out of the gateway."""
    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        own_cluster.service(tmp_path / "far", None, IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far,
    ):
        theirs = far.upload(make.jpeg(320, 240), user="bob").json()["job_id"]
        until(lambda: far.job(theirs)["ready"])
        waiting = far.upload(make.jpeg(640, 480)).json()["job_id"]
        data = far.places.database.parent
        paths = {
            "another's finished picture": tmp_path / "far" / "storage" / far.files("storage")[0],
            "database": data / "imgsvc.db",
            "operator's token": data / "operator_token",
            "another's upload": data / "staging" / waiting,
            "key of the gateway": own_cluster.folder / "cluster-service.key",
            "passwords": Path("/etc/passwd"),
        }
        assert all(path.exists() for path in paths.values())
        named = {name: str(path) for name, path in paths.items()}
        victims = {"paths": named, "left": str(tmp_path / "left"), "port": elsewhere.getsockname()[1]}
        log = attacked_by(own_cluster, kind, json.dumps(victims))
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
        attacked_by(own_cluster, "nonsense", "{}")
        job = until(
            lambda: (
                (one := far.http.get(f"{far.url}/api/v1/images/jobs/{job_id}").json())["status"] == "failed" and one
            ),
            60,
        )
        assert job["error_code"] == "worker_crashed"
        assert [line["reason"] for line in far.events("worker_answer_invalid")] == ["ValidationError"] * 2


def test_address_of_a_real_run_opens_that_run_alone_and_ends_with_it(own_cluster: Cluster, tmp_path: Path) -> None:
    """Everything that a taken-over machine may try with a ticket that it was given, until its image is deleted."""
    with own_cluster.service(tmp_path / "far", None, IMGSVC_WORKERS_LOCAL_PREVIEW="true") as far:
        receipt = far.upload(make.jpeg(640, 480)).json()
        until(lambda: far.job(receipt["job_id"])["ready"])
        previews = far.files("storage")
        log, http = attacked_by(own_cluster, "hold", "{}"), far.http
        found = until(lambda: re.search(r"ticket (\S+)", log.read_text()))
        assert found
        address, largest = found[1], 1 << 16
        assert http.get(f"{address}/source").content == make.jpeg(640, 480)
        token = address.rpartition("/")[2]
        other = address.replace(token, f"{token[:-6]}{'A' * 6}")
        tried = {
            "another signature": http.put(f"{other}/large", content=b"x").status_code,
            "a variant that is there": http.put(f"{address}/thumbnail", content=b"x").status_code,
            "a variant of no recipe": http.put(f"{address}/huge", content=b"x").status_code,
            "a path": http.put(f"{address}/..%2f..%2fjwt_secret", content=b"x").status_code,
            "a longer body": http.put(f"{address}/large", content=bytes(4 << 20)).status_code,
            "the storage": http.post(f"{address}/large?bytes=1").status_code,
            "another method": http.delete(f"{address}/large").status_code,
        }
        assert all(400 <= status < 500 for status in tried.values()), tried
        assert http.put(f"{address}/medium", content=b"no picture").status_code == 204
        assert http.put(f"{address}/medium", content=b"another one").status_code == 409
        with ExitStack() as stack:
            stalled = [stack.enter_context(half_sent(address, "large", largest)) for _ in range(10)]
            ends = [one for one in stalled if select.select([one], [], [], 5)[0]]
            assert len(ends) == 9 and {one.recv(12) for one in ends} == {b"HTTP/1.1 409"}
            assert sum(path.stat().st_size for path in scratch_of(far)) < 2 * largest
            gone = http.delete(f"{far.url}/api/v1/images/{receipt['image_id']}", headers=bearer())
            assert gone.status_code == 200
            (last,) = set(stalled) - set(ends)
            assert last.recv(12) in (b"HTTP/1.1 403", b"")
        assert http.put(f"{address}/large", content=b"late").status_code == 403
        assert http.get(f"{address}/source").status_code == 403
        until(lambda: not scratch_of(far))
        assert previews and far.files("storage") == []


def scratch_of(far: ClusterService) -> list[Path]:
    root = far.places.database.parent / "scratch"
    return [path for path in root.rglob("*") if path.is_file() and "health" not in path.parts]


@contextmanager
def half_sent(address: str, variant: str, length: int) -> Iterator[socket.socket]:
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port), 20) as one:
        head = f"PUT {where.path}/{variant} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        one.sendall(head.encode() + bytes(1000))
        yield one
