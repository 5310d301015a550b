"""A real `imgsvc serve` on a real S3 server, and the end of either in mid-work."""

import hashlib
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from fixtures import make
from tests.support.s3 import ACCESS_KEY, SECRET, S3Server
from tests.support.server_process import InlineServer, ServerProcess, environment_block, until

pytestmark = pytest.mark.process
SIZES = ("thumbnail", "medium", "large", "original")
QUICK = {
    "IMGSVC_JOBS_RETRY_DELAY_SECONDS": "0.3",
    "IMGSVC_S3_ATTEMPTS": "1",
    "IMGSVC_S3_READ_TIMEOUT_SECONDS": "1",
    "IMGSVC_S3_CONNECT_TIMEOUT_SECONDS": "1",
    "IMGSVC_JOBS_MAX_ATTEMPTS": "100",
}


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3Server]:
    """One that may be killed."""
    with S3Server(tmp_path / "s3") as server:
        yield server


def keys(image_ids: list[str]) -> list[str]:
    return sorted(f"b/processed/{size}/{image_id}_{size}.webp" for image_id in image_ids for size in SIZES)


def stored_whole(server: ServerProcess, image_id: str) -> bool:
    """What the store gives for every variant is what the table says it is."""
    with closing(sqlite3.connect(server.folder / "data/imgsvc.db")) as db:
        row = db.execute(
            "SELECT json_extract(processing_metadata, '$.variants') FROM processing_jobs WHERE image_id = ?", [image_id]
        ).fetchone()
    for size in SIZES:
        referred = server.http.get(f"{server.url}/api/v1/images/{image_id}/direct?size={size}")
        assert referred.status_code == 307
        content = httpx.get(referred.headers["Location"]).content
        if hashlib.sha256(content).hexdigest() not in row[0]:
            return False
    return True


def test_store_dies_and_comes_back(own_s3: S3Server, tmp_path: Path) -> None:
    bucket = own_s3.bucket()
    with InlineServer(tmp_path, **own_s3.environment(bucket), **QUICK) as server:
        photos = [make.jpeg(480, 360, seed) for seed in range(6)]
        first = server.upload(photos[0]).json()
        assert server.job_ended(first["job_id"])["status"] == "completed"
        own_s3.kill()
        receipts = [server.upload(photo).json() for photo in photos[1:]]
        until(lambda: all(server.job(one["job_id"])["attempts"] for one in receipts))
        own_s3.start()
        ends = [server.job_ended(one["job_id"]) for one in receipts]
        assert [end for end in ends if end["status"] != "completed"] == []
        image_ids = [one["image_id"] for one in (first, *receipts)]
        assert own_s3.keys(bucket) == keys(image_ids)
        assert all(stored_whole(server, image_id) for image_id in image_ids)
        assert server.stop() == 0


def test_service_dies_while_the_store_has_its_puts(own_s3: S3Server, tmp_path: Path) -> None:
    bucket = own_s3.bucket()
    server = InlineServer(tmp_path, **own_s3.environment(bucket))
    server.start()
    own_s3.signal(signal.SIGSTOP)
    receipts = [server.upload(make.jpeg(480, 360, seed)).json() for seed in range(4)]
    until(lambda: server.job(receipts[-1]["job_id"])["status"] == "processing")
    server.signal(signal.SIGKILL)
    server.ended()
    own_s3.signal(signal.SIGCONT)
    with server:
        ends = [server.job_ended(one["job_id"]) for one in receipts]
        assert {(job["status"], job["attempts"]) for job in ends} == {("completed", 0)}
        image_ids = [one["image_id"] for one in receipts]
        assert own_s3.keys(bucket) == keys(image_ids)
        assert all(stored_whole(server, image_id) for image_id in image_ids)
        until(lambda: not server.files("data/staging"))
        assert server.stop() == 0


def test_keys_from_a_profile_work_and_no_secret_is_inherited(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    environment = s3.environment(bucket)
    del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[ours]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET}\n")
    profile = {"AWS_PROFILE": "ours", "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    with InlineServer(tmp_path, **environment, **profile) as server:
        job = server.job_ended(server.upload(make.tiny()).json()["job_id"])
        assert job["status"] == "completed"
        assert server.stop() == 0
    with ServerProcess(tmp_path, **s3.environment(bucket), AWS_CONTAINER_AUTHORIZATION_TOKEN="hush-hush") as second:
        assert second.upload(make.tiny()).status_code == 202
        for pid in second.workers():
            inherited = environment_block(pid)
            assert SECRET.encode() not in inherited and b"AWS_" not in inherited and b"hush" not in inherited
        assert second.stop() == 0
    assert SECRET not in second.log.read_text()


def test_log_of_everything_holds_no_signature(s3: S3Server, tmp_path: Path) -> None:
    keys_of_a_role = {**s3.environment(s3.bucket()), "AWS_SESSION_TOKEN": "session-token-that-nobody-may-read"}
    with ServerProcess(tmp_path, **keys_of_a_role, LOG_LEVEL="DEBUG") as server:
        accepted = server.upload(make.tiny()).json()
        assert server.job_ended(accepted["job_id"])["status"] in ("completed", "failed")
        log = server.log.read_text()
    assert '"debug"' in log
    for secret in ("AWS4-HMAC", "session-token", "X-Amz-Signature", SECRET):
        assert secret not in log
