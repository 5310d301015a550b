"""A service that renders on a cluster, as its clients see it: as one that renders on its own machine."""

import hashlib
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import coded, make, profiles
from tests.support.cluster import WHY, Cluster, ClusterService
from tests.support.server_process import ServerProcess, bearer, until
from tests.support.tls import Authority

pytestmark = pytest.mark.process
CROPS = {
    "thumbnail": {"width": 40, "height": 40, "fit": "cover"},
    "hero": {"width": 200, "height": 50, "fit": "cover"},
    "original": 500,
}
OURS = {"job_id", "image_id", "status_url", "created_at", "started_at", "completed_at", "urls", "url"}


def pictures() -> dict[str, bytes]:
    """Every kind that is rendered in its own way, and files that fail."""
    return {
        "photo": make.jpeg(1600, 1200),
        "turned": make.encoded(make.quadrants(300, 200), "JPEG", exif=make.exif()),
        **{f"turned {value}": make.oriented(value) for value in (3, 6, 7)},
        "png": make.encoded(make.photo(320, 240), "PNG"),
        "few colours": make.encoded(make.quadrants(320, 200), "PNG"),
        "webp": make.encoded(make.photo(320, 240), "WEBP"),
        "one pixel": make.encoded(make.photo(1, 1), "PNG"),
        "cut off": make.jpeg(1600, 1200)[:-9000],
        "colours of a display": make.jpeg(320, 240, icc_profile=profiles.display_p3()),
        "for printing": make.encoded(make.photo(320, 240).convert("CMYK"), "JPEG", icc_profile=profiles.cmyk()),
        "16 bits": make.grey_16_bit(),
        "with holes": make.palette_with_transparency(),
        "moving": make.animation("GIF"),
        "interlaced": make.interlaced(320, 200),
        **coded.samples(),
        "no picture": b"%PDF-1.4\n",
        "broken": make.encoded(make.photo(640, 480), "PNG")[:-2000],
    }


def outcome(server: ServerProcess, data: bytes) -> dict[str, Any]:
    """What a client can see of an upload, without ids and times, and the bytes of each variant."""
    answer = server.upload(data)
    if answer.status_code != 202:
        return {"status": answer.status_code, "code": answer.json()["code"]}
    receipt = answer.json()
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


def test_what_is_made_of_a_completed_image_later_is_made_there_too(cluster: Cluster, tmp_path: Path) -> None:
    """AVIF beside WebP, then crops around another point: byte for byte, and by a machine, since none is made here."""
    more = {"IMAGE_SIZES": json.dumps(CROPS), "IMGSVC_IMAGES_FORMATS": "webp,avif"}
    (tmp_path / "local").mkdir()
    with (
        ServerProcess(tmp_path / "local", real=WHY, **more) as local,
        cluster.service(tmp_path / "far", 1, **more) as far,
    ):
        assert made_later(far) == made_later(local)
        assert stored_in_both_formats(far) == stored_in_both_formats(local)
        answered = [line for line in far.events("request") if line["method"] == "PUT"]
        assert len(answered) >= 1 + 1 + 1 + 1  # the preview, the others together, AVIF, and the two crops once more


def made_later(server: ServerProcess) -> dict[str, bytes]:
    """All bytes of an image once its crops around another point are made."""
    receipt = server.upload(make.jpeg(640, 480)).json()
    until(lambda: ended(server, receipt["job_id"]), 60)
    address = f"{server.url}/api/v1/images/{receipt['image_id']}"
    before = urls(server, address)
    headers = {**bearer(), "Content-Type": "application/merge-patch+json"}
    assert server.http.patch(address, content='{"focal": {"x": 0, "y": 0.5}}', headers=headers).status_code == 200
    until(lambda: len(set(urls(server, address).values()) - set(before.values())) == 2, 60)
    return {name: server.http.get(f"{server.url}{url}").content for name, url in urls(server, address).items()}


def stored_in_both_formats(server: ServerProcess) -> list[str]:
    """Digests of what was made around the new point: of the crops in WebP, and of all variants in AVIF."""

    def digests() -> list[str]:
        names = [name for name in server.files("storage") if "_r1." in name]
        if sorted(Path(name).suffix for name in names) != [".avif"] * len(CROPS) + [".webp"] * 2:
            return []
        return sorted(hashlib.sha256((server.folder / "storage" / name).read_bytes()).hexdigest() for name in names)

    return until(digests, 90) or []


def urls(server: ServerProcess, address: str) -> dict[str, str]:
    found: dict[str, str] = server.http.get(f"{address}/all").json()["urls"]
    return found


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


def test_machine_without_a_certificate_of_the_authority_joins_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Neither by TLS without a certificate, nor with one of another authority, nor in plain."""
    port = int(cluster.address.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(cluster.authority.ca_file))
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        bare = context.wrap_socket(plain)
        with bare, pytest.raises((ssl.SSLError, ConnectionError)):  # TLS 1.3 tells it at the first read
            bare.recv(1)
    foreign = cluster.start_worker(1, 700, **cluster.certificates("foreign", Authority(tmp_path, "foreign")))
    unsafe = dict.fromkeys(cluster.certificates("plain"), "") | {"IMGSVC_WORKERS_INSECURE": "true"}
    in_plain = cluster.start(
        ("worker", "--scheduler", cluster.address.replace("tls:", "tcp:"), "--count", "1", "--memory-mb", "700"),
        **unsafe,
    )
    log = cluster.last_log
    for text in (foreign.log, log):
        until(lambda: "scheduler_unreachable" in text.read_text(), 60)  # noqa: B023
        assert "worker_joined" not in text.read_text()
    for process in (foreign.process, in_plain):
        process.kill()


def command(folder: Path, name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    return subprocess.run(
        [sys.executable, "-m", "imgsvc", name], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("name", "words"), [("worker", "--scheduler"), ("scheduler", "ca_file, certfile and keyfile")])
def test_commands_say_what_they_need(tmp_path: Path, name: str, words: str) -> None:
    ran = command(tmp_path, name, {})
    assert ran.returncode == 2 and words in ran.stderr, ran.stderr
