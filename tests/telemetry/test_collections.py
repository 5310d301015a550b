"""Many at once: all of one image, a batch of images, and the figures of the whole service."""

import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc import __version__
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.speed import within

TINY = make.tiny()
BROKEN = TINY[: len(TINY) // 2]
IMAGES = "/api/v1/images"
SIZES = ["original", "large", "medium", "thumbnail"]
STATUSES = {"pending", "processing", "retrying", "completed", "failed"}


async def batch(s: Service, *image_ids: str, **params: str) -> dict[str, Any]:
    response = await s.http.get(f"{IMAGES}/batch", params={"image_ids": ",".join(image_ids), **params})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert body["requested"] == len(image_ids)
    assert body["found"] == len(body["images"]) == len(image_ids) - len(body["missing"])
    return body


def found(body: dict[str, Any]) -> list[str]:
    return [image["image_id"] for image in body["images"]]


async def failed_job(s: Service, **more: Any) -> dict[str, Any]:
    job = await s.ended(await s.upload(BROKEN, **more))
    assert job["status"] == "failed"
    return job


async def delete(s: Service, image_id: str) -> None:
    assert (await s.http.delete(f"{IMAGES}/{image_id}", headers=s.bearer())).status_code == 200


async def json_of(s: Service, path: str, **params: Any) -> dict[str, Any]:
    response = await s.http.get(path, params=params)
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "private, no-store"
    body: dict[str, Any] = response.json()
    return body


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    body: dict[str, Any] = response.json()
    return body


async def test_all(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo, bucket="a/b", metadata='{"title": "x", "uploader_id": "me", "variants": 1}')
        image_id, path = job["image_id"], f"{IMAGES}/{job['image_id']}/all"
        body = await json_of(s, path)
        assert body["image_id"] == image_id
        assert list(body["urls"]) == SIZES
        assert body["urls"] == {size: f"/storage/a/b/processed/{size}/{image_id}_{size}.webp" for size in SIZES}
        for size, url in body["urls"].items():
            stored = await s.http.get(url)
            assert stored.status_code == 200
            assert body["metadata"]["variants"][size]["size_bytes"] == len(stored.content)
        result = await json_of(s, f"{IMAGES}/jobs/{job['job_id']}/result")
        assert body["metadata"] == result["metadata"]
        assert (body["metadata"]["title"], body["metadata"]["content_length"]) == ("x", len(photo))
        mine = (await s.http.get(path, headers=s.bearer())).json()
        assert not {"uploader_id", "org_id", "original_filename"} & mine["metadata"].keys()
        assert (await json_of(s, f"{IMAGES}/{image_id.upper()}/all")) == body
        failed = await failed_job(s)
        for wrong in (failed["image_id"], str(uuid.uuid4()), "x", job["job_id"]):
            refused(await s.http.get(f"{IMAGES}/{wrong}/all"), 404, "image_not_found")


async def test_all_before_it_is_ready(start: Starter) -> None:
    large = make.jpeg(2400, 1600, quality=70)
    async with start() as s:
        image_id = (await s.upload(large)).json()["image_id"]
        seen = set()
        with within(WAIT_SECONDS):
            while (response := await s.http.get(f"{IMAGES}/{image_id}/all")).status_code != 200:
                refused(response, 404, "image_not_ready")
                assert int(response.headers["Retry-After"]) > 0
                seen.add((await s.http.get(f"{IMAGES}/{image_id}?size=thumbnail")).status_code)
                await anyio.sleep(0.01)
        assert 200 in seen
        assert list(response.json()["urls"]) == SIZES


async def test_batch(start: Starter) -> None:
    async with start() as s:
        ids = [(await s.completed(TINY, bucket=f"b{n}"))["image_id"] for n in range(3)]
        body = await batch(s, *reversed(ids))
        assert (found(body), body["missing"]) == (ids[::-1], [])
        info = await json_of(s, f"{IMAGES}/{ids[0]}", size="large")
        (image,) = (await batch(s, ids[0], size="large"))["images"]
        expected = {name: info[name] for name in ("image_id", "url", "size")}
        expected |= {name: info["metadata"][name] for name in ("dominant_color", "thumbhash")}
        assert image == expected and len(image["thumbhash"]) >= 24

        failed = (await failed_job(s))["image_id"]
        gone = (await s.completed(TINY))["image_id"]
        await delete(s, gone)
        s.state.jobs.queue.hold()
        pending = (await s.upload(TINY)).json()["image_id"]
        unknown = str(uuid.uuid4())
        wrong = [unknown, "../etc", gone, "x", failed, pending, "'--"]
        mixed = [ids[2], wrong[0], wrong[1], ids[0], *wrong[2:], ids[1]]
        body = await batch(s, *mixed)
        assert (found(body), body["missing"]) == ([ids[2], ids[0], ids[1]], wrong)
        body = await batch(s, ids[0], unknown, ids[0].upper(), unknown)
        assert (found(body), body["missing"]) == ([ids[0], ids[0]], [unknown, unknown])
        assert (await batch(s, *ids, size="nosuch"))["missing"] == ids

        assert found(await batch(s, *(ids[0] for _ in range(50)))) == [ids[0]] * 50
        params = {"image_ids": ",".join([ids[0]] * 51)}
        body = refused(await s.http.get(f"{IMAGES}/batch", params=params), 400, "too_many_images")
        assert (body["limit"], body["measured"]) == (50, 51)
        body = (await s.http.get(f"{IMAGES}/batch?image_ids=%20{ids[0]}%20,,{ids[1]},")).json()
        assert (body["requested"], body["found"]) == (2, 2)


@pytest.mark.parametrize(
    ("query", "name"),
    [("", "image_ids"), ("image_ids=", "image_ids"), ("image_ids=,%20,", "image_ids"), ("image_ids=x&size=..", "size")],
)
async def test_batch_that_asks_for_nothing(start: Starter, query: str, name: str) -> None:
    async with start() as s:
        body = refused(await s.http.get(f"{IMAGES}/batch?{query}"), 422, "validation_error")
        assert [detail["loc"] for detail in body["details"]] == [["query", name]]


async def test_batch_takes_a_preview_that_is_ready(start: Starter) -> None:
    async with start() as s:
        image_id = (await s.upload(make.jpeg(2400, 1600, quality=70))).json()["image_id"]
        with within(WAIT_SECONDS):
            while not found(body := await batch(s, image_id, size="thumbnail")):
                await anyio.sleep(0.01)
        assert body["images"][0]["dominant_color"].startswith("#")
        assert (await batch(s, image_id))["missing"] == [image_id]


def counts(stats: dict[str, Any]) -> dict[str, int]:
    """Statuses that any job has."""
    assert stats["status_breakdown"].keys() == STATUSES
    return {status: count for status, count in stats["status_breakdown"].items() if count}


async def test_stats(start: Starter, photo: bytes) -> None:
    async with start() as s:
        empty = await json_of(s, "/api/v1/health/stats")
        assert counts(empty) == {}
        assert empty["performance_24h"] == {"completed_24h": 0, "avg_processing_time_seconds": None}
        assert empty["workers"] == empty["celery"] == {"active_workers": 2, "active_tasks": 0}
        jobs = [await s.completed(photo), await s.completed(TINY), await s.completed(TINY)]
        failures = [await failed_job(s), await failed_job(s)]
        now = await json_of(s, "/api/v1/health/stats")
        assert counts(now) == {"completed": 3, "failed": 2}
        assert now["storage"] == {"total_images": 3, "total_jobs": 5}
        spent = [
            (datetime.fromisoformat(job["completed_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()
            for job in jobs
        ]
        average = now["performance_24h"]["avg_processing_time_seconds"]
        assert average == pytest.approx(sum(spent) / 3, abs=0.02)
        assert now["performance_24h"]["completed_24h"] == 3
        assert abs((datetime.fromisoformat(now["timestamp"]) - datetime.now(UTC)).total_seconds()) < 5
        await delete(s, jobs[0]["image_id"])
        await delete(s, failures[0]["image_id"])
        s.state.jobs.queue.hold()
        accepted = [(await s.upload(TINY)).json()["image_id"] for _ in range(3)]
        await delete(s, accepted[0])
        now = await json_of(s, "/api/v1/health/stats")
        assert counts(now) == {"pending": 2, "completed": 2, "failed": 1}
        assert now["storage"] == {"total_images": 2, "total_jobs": 5}
    async with start() as s:
        later = await json_of(s, "/api/v1/health/stats")  # the two that waited are already running, or have ended
        images = later["storage"]["total_images"]
        assert counts(later)["completed"] == images
        assert images in {2, 3, 4}
        assert later["storage"]["total_jobs"] == 5
        assert later["performance_24h"]["completed_24h"] == images + 1  # one that completed has been deleted
    async with start() as s:
        with within(WAIT_SECONDS):
            while counts(await json_of(s, "/api/v1/health/stats")) != {"completed": 4, "failed": 1}:
                await anyio.sleep(0.02)


async def test_stats_while_it_works(start: Starter) -> None:
    async with start() as s:
        answer = await s.upload(make.jpeg(2400, 1600, quality=70))
        seen = set()
        with within(WAIT_SECONDS):
            while not (stats := await json_of(s, "/api/v1/health/stats"))["storage"]["total_images"]:
                seen.add(stats["workers"]["active_tasks"])
                assert stats["storage"]["total_jobs"] == sum(stats["status_breakdown"].values()) == 1
                await anyio.sleep(0.01)
        assert 1 in seen
        assert (await s.ended(answer))["status"] == "completed"
        assert counts(stats) == {"completed": 1}


async def test_failed(start: Starter) -> None:
    path = "/api/v1/health/failed"
    async with start() as s:
        assert await json_of(s, path) == {"failed_jobs": [], "total": 0}
        await s.completed(TINY)
        secret = json.dumps({"title": "secret-title"})
        jobs = [await failed_job(s, user="secret-user", bucket="secret-bucket", metadata=secret) for _ in range(3)]
        mine = await failed_job(s)
        await delete(s, mine["image_id"])
        response = await s.http.get(path)
        body = response.json()
        assert body["total"] == 3
        first = body["failed_jobs"][-1]
        assert first.keys() == {"error", "error_code", "attempts", "created_at", "failed_at"}
        for name in ("error", "error_code", "attempts", "created_at"):
            assert first[name] == jobs[0][name]
        assert datetime.fromisoformat(first["failed_at"]) > datetime.fromisoformat(first["created_at"])
        for secret in ("secret", "photo.jpg", "default-org", str(s.settings.data), *(job["image_id"] for job in jobs)):
            assert secret not in response.text
        for job in jobs:  # a job id leads to the image once the operator has tried it again
            assert job["job_id"] not in response.text
        to_operator = (await s.http.get(path, headers=s.operator)).json()["failed_jobs"]
        for name in ("job_id", "image_id"):
            assert [one[name] for one in to_operator] == [job[name] for job in reversed(jobs)]
        assert (await s.http.get(path, headers=s.bearer())).json() == body
        for limit, shown in ((1, 1), (2, 2), (200, 3)):
            limited = await json_of(s, path, limit=limit)
            assert (limited["failed_jobs"], limited["total"]) == (body["failed_jobs"][:shown], 3)
        for wrong in ("0", "201", "-1", "x", "", "1.5", "1e2", "٣", "9" * 5000, " 5"):
            problem = refused(await s.http.get(path, params={"limit": wrong}), 422, "validation_error")
            assert [detail["loc"] for detail in problem["details"]] == [["query", "limit"]]


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/html, */*", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/html;q=0.3, application/json;q=0.8", False),
        ("text/html;q=0.1, */*", False),
        ("text/html;q=0", False),
        ("text/html;q=much", False),
        ("text/html; q=0.9, application/json;q=0.5", True),
    ],
)
async def test_root_is_a_page_for_browsers(start: Starter, accept: str, page: bool) -> None:
    async with start(service={"name": "<mine>"}) as s:
        found = await s.http.get("/", headers={"Accept": accept})
        assert (found.status_code, found.headers["Vary"]) == (200, "Accept")
        if not page:
            assert found.json()["service"] == "<mine>" and "no-store" in found.headers["Cache-Control"]
            return
        assert found.headers["Content-Type"].startswith("text/html") and "<h1>&lt;mine&gt;</h1>" in found.text
        policy = found.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "<script" not in found.text
        links = re.findall(r'href="\./([^"]+)"', found.text[found.text.index("<main") : found.text.index("</main>")])
        assert links == ["docs", "dashboard", "api/v1/health", "errors", "info"]
        for link in links:
            assert (await s.http.get(link, follow_redirects=True)).status_code in (200, 401), link


async def test_root_and_info(start: Starter) -> None:
    sizes = {"thumbnail": 100, "medium": 300}
    limit = {"max_uploads": 5, "window_minutes": 10}
    images = {"sizes": sizes, "webp_quality": 70, "max_pixels": 1_000_000}
    async with start(rate_limit=limit, images=images, uploads={"max_size_mb": 2.5}) as s:
        root = await json_of(s, "/")
        assert root.keys() >= {"service", "version", "description", "documentation"}
        expected = {"health_check": "/api/v1/health", "dashboard": "/dashboard", "storage_backend": "local"}
        assert {**root, **expected, "documentation": "/docs", "version": __version__} == root
        assert await json_of(s, "/info") == {
            "service": {"name": root["service"], "version": __version__},
            "storage": {"backend": "local", "region": None},
            "processing": {
                "image_sizes": sizes,
                "variants": {
                    name: {"width": side, "height": side, "fit": "inside", "format": "webp", "quality": 70, "effort": 4}
                    | {"animated": side > min(sizes.values())}
                    for name, side in sizes.items()
                },
                "webp_quality": 70,
                "keep_source": "none",
                "allowed_mime_types": ["image/jpeg", "image/png", "image/webp", "image/gif"],
            },
            "limits": {"max_upload_size_mb": 2.5, "rate_limit_per_hour": 30, "max_pixels": 1_000_000},
        }
    async with start(service={"public_url": "https://cdn.example.org/img", "name": "mine"}) as s:
        root = await json_of(s, "/")
        assert root["service"] == "mine"
        assert root["health_check"] == "https://cdn.example.org/img/api/v1/health"
        assert root["dashboard"] == "https://cdn.example.org/img/dashboard"
