"""A service that renders on a cluster, as its clients see it: as one that renders on its own machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from tests.support.cluster import WHY, Cluster, ClusterService
from tests.support.server_process import ServerProcess, until
from tests.support.tls import Authority

pytestmark = pytest.mark.process
OURS = {"job_id", "image_id", "status_url", "created_at", "started_at", "completed_at", "urls", "url"}


def pictures() -> dict[str, bytes]:
    """Every kind that is rendered in its own way, and files that fail."""
    return {
        "photo": make.jpeg(1600, 1200),
        "turned": make.encoded(make.quadrants(300, 200), "JPEG", exif=make.exif()),
        "png": make.encoded(make.photo(320, 240), "PNG"),
        "few colours": make.encoded(make.quadrants(320, 200), "PNG"),
        "webp": make.encoded(make.photo(320, 240), "WEBP"),
        "one pixel": make.encoded(make.photo(1, 1), "PNG"),
        "cut off": make.jpeg(1600, 1200)[:-9000],
        "broken": make.encoded(make.photo(640, 480), "PNG")[:-2000],
    }


def outcome(server: ServerProcess, data: bytes) -> dict[str, Any]:
    """What a client can see of an upload, without ids and times, and the bytes of each variant."""
    receipt = server.upload(data).json()
    job = until(lambda: ended(server, receipt["job_id"]), 60)
    assert job
    seen: dict[str, Any] = {"status": {name: value for name, value in job.items() if name not in OURS}}
    result = server.http.get(f"{server.url}/api/v1/images/jobs/{receipt['job_id']}/result").json()
    seen["result"] = {name: value for name, value in result.items() if name not in OURS | {"trace_id"}}
    for name in job["ready"]:
        got = server.http.get(f"{server.url}/api/v1/images/{receipt['image_id']}/direct?size={name}")
        seen[name] = (got.content, got.headers["ETag"])
    shown = server.http.get(f"{server.url}/api/v1/operator/jobs/{receipt['job_id']}", headers=server.operator or {})
    seen["events"] = [event["event"] for event in shown.json()["events"]]
    return seen


def ended(server: ServerProcess, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = server.http.get(f"{server.url}/api/v1/images/jobs/{job_id}").json()
    return job if job["status"] in ("completed", "failed") else None


def test_every_upload_ends_as_on_one_machine_byte_for_byte(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    with (
        ServerProcess(tmp_path / "local", real=WHY) as local,
        cluster.service(tmp_path / "far") as far,
    ):
        for name, data in pictures().items():
            assert outcome(far, data) == outcome(local, data), name
        log = far.log.read_text()
        assert '"path": "/render/…"' in json.dumps(json.loads(far_request(far)), ensure_ascii=False)
        assert "/api/v1/render/" not in log


def far_request(far: ClusterService) -> str:
    lines = far.log.read_text().splitlines()
    return next(line for line in lines if '"PUT"' in line and "request" in line)


def health_of(far: ClusterService) -> str:
    health = far.http.get(f"{far.url}/api/v1/health", headers=far.operator or {}).json()
    return str(health["checks"]["cluster"]["status"])


def test_what_the_operator_sees(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.service(tmp_path / "far") as far:
        assert outcome(far, make.jpeg(640, 480))["status"]["status"] == "completed"
        until(lambda: far.data()["cluster"]["received_bytes"] > 0)  # the data may be a second old
        shown = far.data()["cluster"]
        assert (shown["status"], shown["insecure"], shown["tickets_out"]) == ("connected", False, 0)
        assert shown["gateway_cage"].startswith("Landlock") and shown["sent_bytes"] > 0
        (machine,) = shown["machines"]
        assert (machine["threads"], machine["used"]) == (2, True) and "Landlock" in machine["cage"]
        until(lambda: health_of(far) == "healthy")
        metrics = far.http.get(f"{far.url}/metrics", headers=far.operator or {}).text
        for line in ('cluster_machines{state="used"} 1.0', 'cluster_tickets_total{end="answered"} 2.0'):
            assert line in metrics, metrics


def test_gateway_can_do_nothing_but_speak_with_the_scheduler(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.service(tmp_path / "far") as far:
        gateway = far.gateway()
        environment = Path(f"/proc/{gateway}/environ").read_bytes()
        assert b"JWT_SECRET_KEY" not in environment and b"IMGSVC_" not in environment
        links = [path.readlink() for path in Path(f"/proc/{gateway}/fd").iterdir()]
        assert not [link for link in links if str(link).startswith(str(tmp_path))]
        status = Path(f"/proc/{gateway}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status


@pytest.mark.parametrize("wrong", ["another authority", "tcp"])
def test_who_has_no_certificate_of_the_authority_is_refused(cluster: Cluster, tmp_path: Path, wrong: str) -> None:
    given = {
        "another authority": {**cluster.certificates("x", Authority(tmp_path, "other"))},
        "tcp": {"IMGSVC_WORKERS_SCHEDULER": cluster.address.replace("tls:", "tcp:"), "IMGSVC_WORKERS_INSECURE": "true"},
    }[wrong]
    with cluster.made_service(tmp_path / "far", **{"IMGSVC_WORKERS_LOCAL_PREVIEW": "true", **given}) as far:
        until(lambda: far.events("gateway_ended"))
        assert far.data()["cluster"]["status"] != "connected"
        assert far.machines() == []
        until(lambda: health_of(far) == "degraded")


def command(folder: Path, name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    return subprocess.run(
        [sys.executable, "-m", "imgsvc", name], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("name", "words"), [("worker", "--scheduler"), ("scheduler", "ca_file, certfile and keyfile")])
def test_commands_say_what_they_need(tmp_path: Path, name: str, words: str) -> None:
    ran = command(tmp_path, name, {})
    assert ran.returncode == 2 and words in ran.stderr, ran.stderr
