"""What services of this kind have been caught at, one test for each by its name."""

import io
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures import make
from imgsvc.http.wire import drain
from imgsvc.jobs.retry import Decision, Failure
from tests.conftest import Starter, service
from tests.support.server_process import ServerProcess, until
from tests.support.speed import seconds

TINY = make.tiny()
UPLOAD = "/api/v1/images/upload"
IMAGES = "/api/v1/images"


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGBA")


def alike(image: Image.Image, x: float, y: float, colour: tuple[int, ...]) -> bool:
    """Whether the pixel at the shares x and y of the sides is about `colour`."""
    found = image.getpixel((int(x * image.width), int(y * image.height)))
    assert isinstance(found, tuple)
    return all(abs(one - other) < 40 for one, other in zip(found, colour, strict=False))


async def test_path_traversal_through_the_bucket(start: Starter, tmp_path: Path) -> None:
    async with start() as s:
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        for bucket in (
            "..",
            "../..",
            "a/../../b",
            "/etc",
            "a/..",
            "..\\..",
            "%2e%2e/x",
            "a\0b",
            ".ssh",
            "a//b",
            "a/./b",
        ):
            assert (await s.upload(TINY, bucket=bucket)).status_code == 422, bucket
            headers = s.bearer() | {"Content-Type": "image/jpeg"}
            raw = await s.http.post(UPLOAD, params={"bucket": bucket}, content=TINY, headers=headers)
            assert raw.status_code == 422, bucket
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
        for path in ("..%2fimgsvc.db", "../imgsvc.db", "%2e%2e/imgsvc.db", "b/..%2f..%2fjwt_secret", "/etc/passwd"):
            assert (await s.http.get(f"http://localhost/storage/{path}")).status_code == 404, path


async def test_limit_lifted_by_a_query_parameter(start: Starter) -> None:
    photo = make.jpeg(400, 300)
    tries = ("max_size", "max_size_mb", "limit", "max_bytes", "max_pixels", "force", "skip_validation", "rate_limit")
    sections: dict[str, Any] = {"uploads": {"max_size_mb": 0.01}, "rate_limit": {"max_uploads": 1}}
    assert len(photo) > 0.01 * 2**20
    async with start(**sections) as s:
        for lifted in (dict.fromkeys(tries, value) for value in ("999999999", "true", "-1")):
            headers = s.bearer() | {"Content-Type": "image/jpeg"}
            raw = await s.http.post(UPLOAD, params=lifted | {"bucket": "b"}, content=photo, headers=headers)
            assert raw.status_code == 413
            form, files = {"bucket": "b"} | lifted, {"file": ("p.jpg", photo)}
            posted = await s.http.post(UPLOAD, params=lifted, data=form, files=files, headers=s.bearer())
            assert posted.status_code == 413
        assert (await s.upload(TINY)).status_code == 202
        headers = s.bearer() | {"Content-Type": "image/jpeg"}
        last = await s.http.post(UPLOAD, params=lifted | {"bucket": "b"}, content=TINY, headers=headers)
        assert last.status_code == 429


@pytest.mark.parametrize("chunk", [1, 1000, 100_000])
async def test_chunked_body_without_length(start: Starter, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "DRAIN_SECONDS", 0.2)  # the rest is read for so long
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        data = TINY + bytes(10 * chunk if chunk > 1 else 3000)
        while sent < 50_000_000:
            yield data[sent : sent + chunk] or bytes(chunk)
            sent += chunk

    async with start(uploads={"max_size_mb": 1 / 512}) as s:
        headers = s.bearer() | {"Content-Type": "image/jpeg"}
        began = time.monotonic()
        response = await s.http.post(f"{UPLOAD}?bucket=b", content=body(), headers=headers)
        assert time.monotonic() - began < seconds(4)
        assert (response.status_code, response.json()["code"]) == (413, "upload_too_large")
        assert "Content-Length" not in response.request.headers
        assert sent < 2_000_000  # the limit and what is drained
        assert s.staged() == []


async def test_quota_spent_on_rejects(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 2}, uploads={"max_size_mb": 0.1}) as s:
        rejects = [
            (b"words", "b"),
            (TINY, ".."),
            (b"", "b"),
            (TINY[:200], "b"),
            (bytes(200_000), "b"),
            (make.bomb(), "b"),
        ]
        for data, bucket in rejects * 2:
            assert (await s.upload(data, bucket=bucket)).status_code in (413, 415, 422)
        accepted = [await s.upload(TINY), await s.upload(TINY)]
        assert [response.headers["X-RateLimit-Remaining"] for response in accepted] == ["1", "0"]
        assert [response.status_code for response in accepted] == [202, 202]
        assert (await s.upload(TINY)).status_code == 429


@pytest.mark.workers
async def test_orientation_lost(start: Starter) -> None:
    corners = ((0.25, 0.25), make.RED), ((0.75, 0.25), make.GREEN), ((0.25, 0.75), make.BLUE)
    async with start() as s:
        for value in range(1, 9):
            image_id = (await s.completed(make.oriented(value)))["image_id"]
            for size in ("thumbnail", "medium", "original"):
                image = opened(await s.variant(image_id, size))
                assert image.width > image.height
                assert all(alike(image, *place, colour) for place, colour in corners), (value, size)


async def test_palette_lost(start: Starter) -> None:
    async with start() as s:
        image_id = (await s.completed(make.palette_with_transparency()))["image_id"]
        for size in ("thumbnail", "original"):
            image = opened(await s.variant(image_id, size))
            assert alike(image, 0.5, 0.5, (*make.RED, 255)), size
            clear = image.getpixel((3, 3))
            assert isinstance(clear, tuple) and clear[3] == 0, size


async def test_grey_with_alpha_failing(start: Starter) -> None:
    grey = Image.new("LA", (80, 60), (200, 255))
    grey.paste((200, 0), (0, 0, 40, 60))
    async with start() as s:
        for data in (make.encoded(grey, "PNG"), make.grey_16_bit(), make.encoded(grey.convert("L"), "JPEG")):
            assert (await s.completed(data))["status"] == "completed"
        image_id = (await s.completed(make.encoded(grey, "PNG")))["image_id"]
        image = opened(await s.variant(image_id, "original"))
        assert alike(image, 0.75, 0.5, (200, 200, 200, 255))
        clear = image.getpixel((20, 30))
        assert isinstance(clear, tuple) and clear[3] == 0


async def test_result_not_persisted(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        job = await s.completed(make.jpeg(), metadata='{"album": "summer"}')
        url = f"{IMAGES}/jobs/{job['job_id']}/result"
        result, direct = (await s.http.get(url)).json(), await s.variant(job["image_id"], "large")
    async with service(tmp_path) as s:
        assert (await s.http.get(url)).json() == result
        assert result["metadata"]["album"] == "summer"
        assert await s.job(job["job_id"]) == job
        assert await s.variant(job["image_id"], "large") == direct
        assert (await s.http.get(result["urls"]["large"])).content == direct


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, IMGSVC_JOBS_RETRY_DELAY_SECONDS="0") as running:
        yield running


def is_rendering(server: ServerProcess, job_id: str) -> bool:
    return server.job(job_id)["ready"] == ["thumbnail"] and bool(server.files("data/scratch")[1:])


@pytest.mark.process
def test_job_stuck_after_a_killed_worker(server: ServerProcess) -> None:
    photo = make.photo(1000, 800).resize((2400, 1800))
    for quality in range(80, 90):  # on a busy machine the render may end between the look and the kill: take another
        job_id = server.upload(make.encoded(photo, "JPEG", quality=quality)).json()["job_id"]
        until(partial(is_rendering, server, job_id))
        for pid in server.render_workers():  # a photo that comes alone is made on two: the one may have done its part
            os.kill(pid, signal.SIGKILL)
        job = server.job_ended(job_id)
        assert job["status"] == "completed"
        if job["attempts"]:
            break
    assert job["attempts"] == 1
    server.signal(signal.SIGKILL)
    server.process.wait()


async def test_completed_image_turned_failed_by_a_second_run(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        job = await s.completed(TINY)
        before = await s.variant(job["image_id"], "medium")
        row = await s.state.jobs.table.job(job["job_id"])
        assert row
        broke = Failure("timeout", "It took too long.")
        for late in (row, replace(row, run=row.run - 1), replace(row, status="processing", run=row.run + 1)):
            for decision in (Decision("fail", retryable=True), Decision("retry", 0)):
                assert not await s.state.jobs.table.unsuccessful(late, broke, decision)
            assert not await s.state.jobs.table.complete(late, {}, {})
            assert not await s.state.jobs.table.requeue(late)
        assert await s.job(job["job_id"]) == job
        assert (await s.http.get("/api/v1/health/stats")).json()["status_breakdown"]["completed"] == 1
    async with service(tmp_path) as s:
        assert await s.job(job["job_id"]) == job
        assert await s.variant(job["image_id"], "medium") == before


async def test_deleted_image_still_served(start: Starter) -> None:
    async with start() as s:
        job, bearer = await s.completed(TINY), s.bearer()
        path, job_path = f"{IMAGES}/{job['image_id']}", f"{IMAGES}/jobs/{job['job_id']}"
        urls = (await s.http.get(f"{job_path}/result")).json()["urls"]
        tag = (await s.http.get(f"{path}/direct")).headers["ETag"]
        addresses = [path, f"{path}/all", f"{path}/direct", *urls.values(), job_path, f"{job_path}/result"]
        assert [(await s.http.get(address)).status_code for address in addresses] == [200] * len(addresses)
        assert (await s.http.delete(path, headers=bearer)).json()["files_removed"] == 4
        for headers in ({}, {"If-None-Match": tag}, {"Range": "bytes=0-1"}, bearer):
            assert {(await s.http.get(address, headers=headers)).status_code for address in addresses} == {404}
        assert (await s.http.get(f"{IMAGES}/batch?image_ids={job['image_id']}")).json()["found"] == 0
        assert (await s.http.delete(path, headers=bearer)).status_code == 404
        assert [name for name in s.stored() if not name.startswith(".health")] == s.staged() == []


async def test_staging_readable_from_outside(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        receipt = (await s.upload(TINY)).json()
        name = receipt["job_id"]
        assert s.staged() == [name]
        paths = (
            "staging/{}",
            "../staging/{}",
            "..%2fstaging%2f{}",
            "photos/{}",
            "{}",
            "photos/staging/{}",
            ".partial/{}",
        )
        for path in paths:
            for root in ("storage/", "staging/", "data/", ""):
                assert (await s.http.get(f"http://localhost/{root}{path.format(name)}")).status_code == 404, path
        assert (await s.http.get(f"{IMAGES}/{receipt['image_id']}/direct")).status_code == 404
        folder = s.settings.data / "staging"
        assert not folder.is_relative_to(s.settings.storage.path)
        assert folder.stat().st_mode & 0o077 == (folder / name).stat().st_mode & 0o077 == 0


async def test_headers_lost_on_errors(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 1}) as s:
        job = await s.completed(TINY)
        limited = await s.upload(TINY)
        assert limited.status_code == 429 and 0 < int(limited.headers["Retry-After"]) <= 3600
        assert (limited.headers["X-RateLimit-Limit"], limited.headers["X-RateLimit-Remaining"]) == ("1", "0")
        assert limited.headers["X-RateLimit-Reset"]
        refused = await s.http.post(UPLOAD, headers={"Authorization": "Bearer x"})
        assert refused.status_code == 401 and 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
        wrong = await s.http.put(f"{IMAGES}/{job['image_id']}")
        assert (wrong.status_code, set(wrong.headers["Allow"].split(", "))) == (405, {"GET", "HEAD", "PATCH", "DELETE"})
        direct = f"{IMAGES}/{job['image_id']}/direct"
        size = len((await s.http.get(direct)).content)
        outside = await s.http.get(direct, headers={"Range": f"bytes={size}-"})
        assert (outside.status_code, outside.headers["Content-Range"]) == (416, f"bytes */{size}")
        s.state.jobs.queue.hold()
        waiting = (await s.upload(TINY, user="bob")).json()["image_id"]
        not_ready = await s.http.get(f"{IMAGES}/{waiting}")
        assert not_ready.status_code == 404 and int(not_ready.headers["Retry-After"]) > 0
        for response in (limited, refused, wrong, outside, not_ready):
            assert response.headers["X-Trace-ID"] == response.json()["trace_id"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
