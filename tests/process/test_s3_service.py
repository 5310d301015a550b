"""The whole service on S3: what clients see of it, what becomes of jobs when it fails, and both backends together."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc import testing
from imgsvc.storage.base import Storage
from imgsvc.storage.memory import MemoryStorage
from imgsvc.telemetry.storage_probe import PROBE
from tests.conftest import WAIT_SECONDS, Service
from tests.support.s3 import S3Server
from tests.support.s3_proxy import proxy
from tests.support.speed import within

SIZES = ("thumbnail", "medium", "large", "original")
On = Callable[..., AbstractAsyncContextManager[Service]]


@asynccontextmanager
async def inline(folder: Path, double: Storage | None = None, /, **sections: Any) -> AsyncIterator[Service]:
    """What the pixels are made in is not what is tested here: no worker processes."""
    settings = testing.settings_in(folder, **sections)
    async with testing.serving(settings, storage=double) as (app, http):
        del http.headers["Authorization"]
        yield Service(app, settings, http)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def on_s3(s3: S3Server, bucket: str, tmp_path: Path) -> On:
    """Start a service that stores in this test's bucket: keywords are for [s3]."""

    def starter(
        backend: str = "s3", images: dict[str, Any] | None = None, **more: Any
    ) -> AbstractAsyncContextManager[Service]:
        settings = {**s3.settings(bucket), **more}
        sections: dict[str, Any] = {
            "storage": {"backend": backend},
            "images": images or {},
            "s3": settings,
            "jobs": {"retry_delay_seconds": 0.1},
        }
        return inline(tmp_path / "data", **sections)

    return starter


@pytest.fixture
async def plain() -> AsyncIterator[httpx.AsyncClient]:
    """A client that knows nothing of us."""
    async with httpx.AsyncClient() as client:
        yield client


def keys(image_id: str, bucket: str = "photos") -> list[str]:
    return sorted(f"{bucket}/processed/{size}/{image_id}_{size}.webp" for size in SIZES)


async def completed(s: Service, job_id: str) -> dict[str, Any]:
    with within(WAIT_SECONDS):
        while (job := await s.job(job_id))["status"] != "completed":
            await anyio.sleep(0.02)
    return job


async def test_life_of_an_upload(on_s3: On, s3: S3Server, bucket: str, photo: bytes, plain: httpx.AsyncClient) -> None:
    async with on_s3() as s:
        job = await s.completed(photo, bucket="a/b")
        image = f"/api/v1/images/{job['image_id']}"
        assert s3.keys(bucket) == keys(job["image_id"], "a/b")
        assert s.staged() == s.stored() == []
        head = s3.client.head_object(Bucket=bucket, Key=keys(job["image_id"], "a/b")[0])
        assert (head["ServerSideEncryption"], head["ContentType"]) == ("AES256", "image/webp")

        result = (await s.http.get(f"/api/v1/images/jobs/{job['job_id']}/result")).json()
        urls = (await s.http.get(f"{image}/all")).json()["urls"]
        assert list(urls) == list(result["urls"]) == list(SIZES)[::-1] or urls.keys() == result["urls"].keys() == set(
            SIZES
        )
        digests = {}
        for size, url in urls.items():
            answer = await plain.get(url)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "image/webp"
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert len(answer.content) == result["metadata"]["variants"][size]["size_bytes"]
            digests[size] = hashlib.sha256(answer.content).hexdigest()
        info = (await s.http.get(image, params={"size": "large"})).json()
        batch = (await s.http.get(f"/api/v1/images/batch?image_ids={job['image_id']}&size=large")).json()
        for url in (info["url"], batch["images"][0]["url"]):
            assert url.startswith(f"{s3.url}/{bucket}/a/b/processed/large/") and "X-Amz-Expires=3600" in url
            assert hashlib.sha256((await plain.get(url)).content).hexdigest() == digests["large"]

        deleted = await s.http.delete(image, headers=s.bearer())
        assert deleted.json()["files_removed"] == 4
        assert s3.keys(bucket) == []
        assert (await plain.get(info["url"])).status_code == 404
        assert (await s.http.get(f"{image}/direct")).status_code == 404


async def test_direct_refers_to_the_store(on_s3: On, s3: S3Server, photo: bytes, plain: httpx.AsyncClient) -> None:
    async with on_s3(presigned_seconds=10) as s:
        job = await s.completed(photo)
        direct = f"/api/v1/images/{job['image_id']}/direct?size=large"
        referred = await s.http.get(direct)
        assert (referred.status_code, referred.content) == (307, b"")
        assert referred.headers["Cache-Control"] == "private, max-age=5"
        whole = await plain.get(referred.headers["Location"])
        part = await plain.get(referred.headers["Location"], headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole.content[10:20])
        head = await s.http.head(direct)
        assert head.status_code == 307
        assert (await plain.head(head.headers["Location"])).headers["Content-Length"] == str(len(whole.content))
        again = await s.http.get(direct)
        assert again.headers["Location"].startswith(f"{s3.url}/")

        etag = f'"{hashlib.sha256(whole.content).hexdigest()[:32]}"'
        unchanged = await s.http.get(direct, headers={"If-None-Match": etag})
        assert (unchanged.status_code, unchanged.headers["ETag"]) == (304, etag)
        assert (await s.http.get(direct, headers={"If-Match": '"other"'})).status_code == 412
        stored = f"/storage/photos/processed/large/{job['image_id']}_large.webp"
        once_local = await s.http.get(stored)  # a URL that was handed out before the image moved
        assert once_local.status_code == 307
        assert (await plain.get(once_local.headers["Location"])).content == whole.content
        assert (await s.http.get(f"{direct}x")).status_code == 404
        document = (await s.http.get("/openapi.json")).json()
        assert "307" in document["paths"]["/api/v1/images/{image_id}/direct"]["get"]["responses"]


async def test_negotiated_format_refers_to_its_own_file(on_s3: On, s3: S3Server, plain: httpx.AsyncClient) -> None:
    """With `Vary: Accept` on whatever is answered."""
    pytest.importorskip("pillow_avif")
    async with on_s3(images={"formats": ["webp", "avif"], "sizes": {"medium": 120}}) as s:
        job = await s.completed(make.jpeg(640, 480))  # of a small one AVIF is not the smaller file
        with within(WAIT_SECONDS):
            while await s.sql("SELECT 1 FROM renders"):
                await anyio.sleep(0.02)
        direct = f"/api/v1/images/{job['image_id']}/direct?format=auto&size="
        for accept, form in (("image/avif,image/webp,*/*", "avif"), ("*/*", "webp")):
            chosen = {"Accept": accept}
            for method in ("GET", "HEAD"):
                answer = await s.http.request(method, f"{direct}medium", headers=chosen)
                assert (answer.status_code, answer.headers["Vary"]) == (307, "Accept")
                assert urlsplit(answer.headers["Location"]).path.endswith(f"_medium.{form}")
            there = await plain.get((await s.http.get(f"{direct}medium", headers=chosen)).headers["Location"])
            assert (there.status_code, there.headers["Content-Type"]) == (200, f"image/{form}")
        missing = await s.http.get(f"{direct}huge")
        assert (missing.status_code, missing.headers["Vary"]) == (404, "Authorization, Accept")
        named = await s.http.get(f"{direct}medium".replace("auto", "avif"))
        assert "Accept" not in named.headers.get("Vary", "")


async def test_private_reading(
    s3: S3Server, bucket: str, tmp_path: Path, photo: bytes, plain: httpx.AsyncClient
) -> None:
    private = {"backend": "s3", "signed_urls": True, "signed_url_seconds": 40}
    async with inline(tmp_path / "data", storage=private, s3=s3.settings(bucket)) as s:
        job = await s.completed(photo)
        image = f"/api/v1/images/{job['image_id']}"
        assert (await s.http.get(image)).status_code == 401
        url = (await s.http.get(image, headers=s.bearer())).json()["url"]
        fetched = await plain.get(url)
        assert fetched.status_code == 200
        assert fetched.headers["Cache-Control"] == "private, max-age=3600"  # the object's own says public
        assert (await s.http.get(f"{image}/direct?size=large")).json()["code"] == "signature_required"
        page_url = s.state.stores.urls.of_page(job["image_id"], "large")
        left = int(parse_qs(urlsplit(page_url).query)["expires"][0]) - time.time()
        referred = await s.http.get(page_url)
        assert referred.status_code == 307
        life = int(parse_qs(urlsplit(referred.headers["Location"]).query)["X-Amz-Expires"][0])
        assert left - 20 < life < left + 1
        assert referred.headers["Cache-Control"] == f"private, max-age={life // 2}"
        for method in ("GET", "HEAD"):
            there = (await s.http.request(method, page_url)).headers["Location"]
            life = int(parse_qs(urlsplit(there).query)["X-Amz-Expires"][0])
            followed = await plain.request(method, there)
            assert (followed.status_code, followed.headers["Cache-Control"]) == (200, f"private, max-age={life}")


async def test_what_is_told_of_it(on_s3: On, s3: S3Server, bucket: str) -> None:
    async with on_s3() as s:
        assert (await s.http.get("/info")).json()["storage"] == {"backend": "s3", "region": "us-east-1"}
        assert (await s.http.get("/")).json()["storage_backend"] == "s3"
        shown = await s.http.get("/dashboard/data", headers=s.operator)
        place = {"bucket": bucket, "region": "us-east-1", "endpoint": s3.url}
        none = {"set_aside": {"files": 0, "bytes": 0}, "total_images": 0}
        assert shown.json()["storage"] == {"backend": "s3", "local": None, "s3": place, **none}
        assert shown.json()["configuration"]["s3"]["secret_access_key"] == "configured"
        assert shown.json()["configuration"]["s3"]["session_token"] == "(empty)"
        assert s3.settings(bucket)["secret_access_key"] not in shown.text
        page = await s.http.get("/dashboard", headers=s.operator)
        address = urlsplit(s3.url)
        policy = page.headers["Content-Security-Policy"]
        assert f"img-src 'self' blob: data: {address.scheme}://{address.netloc};" in policy
        metrics = (await s.http.get("/metrics", headers=s.operator)).text
        assert 'storage_operations_total{backend="s3",operation="put",status="ok"}' in metrics


async def test_health_proves_it_once_and_then_reads(on_s3: On, s3: S3Server, bucket: str, tmp_path: Path) -> None:
    async with on_s3() as s:
        check = s.state.telemetry.health.checks()["storage"]
        assert (check.status, check.detail) == ("healthy", "written, read and removed")
        await s.state.telemetry.health.measure()
        assert s.state.telemetry.health.checks()["storage"].detail == "read"
        listed = s3.client.list_objects_v2(Bucket=bucket)["Contents"]
        instance = (tmp_path / "data/instance").read_text().strip()
        assert [one["Key"] for one in listed] == [f".health/{instance}/probe"]
        s3.client.delete_object(Bucket=bucket, Key=listed[0]["Key"])
        await s.state.telemetry.health.measure()
        assert s.state.telemetry.health.checks()["storage"].detail == "written, read and removed"
        s3.client.put_object(Bucket=bucket, Key=listed[0]["Key"], Body=PROBE[::-1])
        await s.state.telemetry.health.measure()
        assert s.state.telemetry.health.checks()["storage"].detail == "The bytes read differ from those written."
        await s.state.telemetry.health.measure()
        assert s.state.telemetry.health.status() == "healthy"


async def test_health_follows_the_store(on_s3: On, s3: S3Server) -> None:
    async with proxy(s3.port) as faulty, on_s3(endpoint_url=faulty.url) as s:
        faulty.fail("503", 100)
        await s.state.telemetry.health.measure()
        health = await s.http.get("/api/v1/health")
        assert health.status_code == 503
        storage = health.json()["checks"]["storage"]
        assert storage["detail"] == "The object storage answered with the status 503."
        faulty.fail("503", 0)
        await s.state.telemetry.health.measure()
        storage = (await s.http.get("/api/v1/health")).json()["checks"]["storage"]
        assert (storage["status"], storage["detail"]) == ("healthy", "written, read and removed")


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        ({"bucket": "not-there"}, "The bucket does not exist."),
        ({"endpoint_url": "http://127.0.0.1:9"}, "The object storage can't be reached, or broke the connection."),
    ],
)
async def test_wrong_settings_are_an_unhealthy_service(on_s3: On, wrong: dict[str, str], detail: str) -> None:
    async with on_s3(**wrong) as s:
        health = await s.http.get("/api/v1/health")
        assert health.status_code == 503
        storage = health.json()["checks"]["storage"]
        assert (storage["status"], storage["detail"]) == ("unhealthy", detail)


async def test_uploads_are_taken_with_a_wrong_key_and_stored_with_the_right_one(
    on_s3: On, s3: S3Server, bucket: str, photo: bytes
) -> None:
    with capture_logs() as logged:
        async with on_s3(secret_access_key="hush-hush") as s:
            health = (await s.http.get("/api/v1/health")).json()["checks"]["storage"]
            assert health["detail"] == "The object storage refuses the signature: the secret access key is wrong."
            job = await s.ended(await s.upload(photo))
            assert (job["status"], job["error_code"], job["attempts"]) == ("failed", "storage_error", 3)
            assert job["retryable"]
    assert "hush" not in f"{logged} {health}"
    async with on_s3() as s:
        retried = await s.http.post(f"/api/v1/operator/jobs/{job['job_id']}/retry", headers=s.operator)
        assert retried.status_code == 202, retried.text
        assert (await completed(s, job["job_id"]))["error"] is None
        assert s3.keys(bucket) == keys(job["image_id"])


async def test_throttling_delays_a_job_and_costs_it_nothing(
    on_s3: On, s3: S3Server, bucket: str, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsvc.storage.s3_client.FIRST_PAUSE_SECONDS", 0.01)
    async with proxy(s3.port) as faulty, on_s3(endpoint_url=faulty.url, attempts=10) as s:
        faulty.fail("503", 5)
        job = await s.completed(photo)
        assert job["attempts"] == 0
        assert s3.keys(bucket) == keys(job["image_id"])


class Together(MemoryStorage):
    """Takes a variant only when all that the render makes are on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.coming, self.all_here = 0, anyio.Event()

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if bucket != ".health" and "thumbnail" not in key:
            self.coming += 1
            if self.coming == 3:
                self.all_here.set()
            await self.all_here.wait()
        await super().put(bucket, key, source)


async def test_variants_are_put_at_the_same_time(tmp_path: Path, photo: bytes) -> None:
    async with inline(tmp_path / "data", Together()) as s:
        await s.completed(photo)


async def test_each_image_stays_where_it_is(on_s3: On, s3: S3Server, bucket: str, photo: bytes) -> None:
    async with on_s3("local") as s:
        old = await s.completed(photo)
        s.state.jobs.queue.hold()
        waiting = (await s.upload(photo)).json()
    async with on_s3() as s:
        new = await s.completed(photo)
        await completed(s, waiting["job_id"])
        assert s3.keys(bucket) == keys(new["image_id"])
        assert sorted(s.stored()) == sorted([*keys(old["image_id"]), *keys(waiting["image_id"])])
        assert len(await s.variant(old["image_id"], "large")) > 50
        ids = f"{old['image_id']},{new['image_id']}"
        urls = [one["url"] for one in (await s.http.get(f"/api/v1/images/batch?image_ids={ids}")).json()["images"]]
        assert urls[0].startswith("/storage/") and urls[1].startswith(s3.url)
        assert (await s.http.get(urls[0])).status_code == 200
    async with on_s3("local") as s:
        assert (await s.http.get(f"/api/v1/images/{new['image_id']}/direct")).status_code == 307
        for image_id in (old["image_id"], new["image_id"]):
            deleted = await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
            assert deleted.json()["files_removed"] == 4
        assert s3.keys(bucket) == []


async def test_backend_that_is_not_configured_any_more(
    on_s3: On, s3: S3Server, bucket: str, photo: bytes, tmp_path: Path
) -> None:
    async with on_s3() as s:
        lost, deleted = await s.completed(photo), await s.completed(photo)
    with capture_logs() as logged:
        async with inline(tmp_path / "data") as s:
            here = await s.completed(photo)
            image = f"/api/v1/images/{lost['image_id']}"
            result = f"/api/v1/images/jobs/{lost['job_id']}/result"
            for path in (image, f"{image}/all", f"{image}/direct", result):
                answer = await s.http.get(path)
                assert (answer.status_code, answer.json()["code"]) == (503, "storage_not_configured")
            assert (await s.job(lost["job_id"]))["status"] == "completed"
            ids = f"{lost['image_id']},{here['image_id']}"
            batch = (await s.http.get(f"/api/v1/images/batch?image_ids={ids}")).json()
            assert (batch["found"], batch["missing"]) == (1, [lost["image_id"]])
            gone = await s.http.delete(f"/api/v1/images/{deleted['image_id']}", headers=s.bearer())
            assert (gone.status_code, gone.json()["files_removed"]) == (200, 0)
            await s.state.jobs.housekeeping.sweep()
    assert {"storage_not_configured", "withdraw_failed"} <= {line["event"] for line in logged}
    assert "housekeeping_failed" not in {line["event"] for line in logged}
    assert s3.keys(bucket) == sorted(keys(lost["image_id"]) + keys(deleted["image_id"]))
    async with on_s3() as s:
        await s.state.jobs.housekeeping.sweep()
        assert s3.keys(bucket) == keys(lost["image_id"])


async def test_deletion_that_the_store_misses_is_done_later(on_s3: On, s3: S3Server, bucket: str, photo: bytes) -> None:
    async with proxy(s3.port) as faulty, on_s3(endpoint_url=faulty.url, attempts=1) as s:
        job = await s.completed(photo)
        faulty.fail("reset", 100)
        deleted = await s.http.delete(f"/api/v1/images/{job['image_id']}", headers=s.bearer())
        assert (deleted.status_code, deleted.json()["files_removed"]) == (200, 0)
        faulty.fail("reset", 0)
        await s.state.jobs.housekeeping.sweep()
        assert s3.keys(bucket) == []
