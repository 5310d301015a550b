"""`[images] keep_source`: what is kept, who gets it, what it counts for, and that it goes with its image."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging import coded_samples
from imgsvc.imaging.stripped import check_stripped
from imgsvc.jobs.table.model import Job
from imgsvc.storage.base import StorageError
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service, Starter, service
from tests.support.backups import put_back
from tests.support.invariants import Places, assert_sound
from tests.support.maintenance import carried_out, files, found, keeping
from tests.support.other_storage import Other
from tests.support.speed import within

IMAGES, OPERATOR = "/api/v1/images", "/api/v1/operator/images"
LEAKY = make.leaky_jpeg()
STRIPPED, AS_IS = {"keep_source": "stripped"}, {"keep_source": "as_is"}


async def kept(s: Service, data: bytes = LEAKY, **more: Any) -> Job:
    """The row of a new image whose staged upload is gone."""
    ids = await s.completed(data, **more)
    with within(WAIT_SECONDS):
        while (job := await s.state.jobs.table.job(ids["job_id"])) is None or s.state.jobs.queue.active_runs:
            await anyio.sleep(0.01)
    return job


async def source(s: Service, image_id: str, user: str = "alice", **more: Any) -> Any:
    return await s.http.get(f"{IMAGES}/{image_id}/source", headers=s.bearer(user, **more))


def places(s: Service) -> Places:
    return Places(s.settings.database.path, {"local": s.settings.storage.path})


def paths(s: Service) -> list[Path]:
    return sorted((s.settings.storage.path / "photos" / "sources").glob("*"))


@pytest.mark.parametrize(("settings", "data"), [(AS_IS, LEAKY), (STRIPPED, LEAKY)], ids=["as_is", "stripped"])
async def test_what_is_kept_and_sent(start: Starter, settings: dict[str, Any], data: bytes) -> None:
    async with start(images=settings) as s:
        job = await kept(s, data)
        answer = await source(s, job.image_id)
        assert answer.status_code == 200
        assert (answer.content == data) == (settings is AS_IS)
        if settings is STRIPPED:
            check_stripped(io.BytesIO(answer.content), "image/jpeg")
            with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(answer.content)) as after:
                assert after.tobytes() == before.tobytes()
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{job.image_id}.jpeg"'
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        head = await s.http.head(f"{IMAGES}/{job.image_id}/source", headers=s.bearer())
        assert (head.headers["Content-Length"], head.content) == (str(len(answer.content)), b"")
        (path,) = paths(s)
        assert path.read_bytes() == answer.content and path.name == f"{job.image_id}.jpeg"
        other = next(one for one in s.settings.storage.path.rglob("*.webp"))
        assert path.stat().st_mode == other.stat().st_mode
        assert job.source_sha256 == hashlib.sha256(answer.content).hexdigest()
        usage = (await s.http.get("/api/v1/usage", headers=s.bearer())).json()["user"]
        assert usage["bytes"] == sum(one.stat().st_size for one in path.parents[1].rglob("*") if one.is_file())
        assert (await s.http.get("/info")).json()["processing"]["keep_source"] == settings["keep_source"]
        for address in (f"/storage/photos/sources/{path.name}", f"/storage/photos/{job.source_key}?size=medium"):
            assert (await s.http.get(address, headers=s.bearer())).status_code == 404
        assert (await source(s, job.image_id, "bob")).json()["code"] == "permission_denied"
        assert (await source(s, job.image_id, org_id="elsewhere")).json()["code"] == "image_not_found"
        assert_sound(places(s), "settled")
        deleted = await s.http.delete(f"{IMAGES}/{job.image_id}", headers=s.bearer())
        assert deleted.json()["files_removed"] == 5 and s.stored() == []
        assert (await source(s, job.image_id)).status_code == 404
        assert_sound(places(s), "settled")


async def told(s: Service) -> tuple[float, float]:
    """The metrics of kept sources."""
    text = (await s.http.get("/metrics", headers=s.operator)).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("image_sources_kept"))
    return float(lines["image_sources_kept"]), float(lines["image_sources_kept_bytes"])


async def test_what_is_kept_is_counted(start: Starter) -> None:
    async with start(images=AS_IS) as s:
        assert await told(s) == (0, 0)
        first, second = make.jpeg(80, 60, 1), make.jpeg(80, 60, 2)
        job = await kept(s, first)
        await kept(s, second)
        assert await told(s) == (2, len(first) + len(second))
        await s.http.delete(f"{IMAGES}/{job.image_id}", headers=s.bearer())
        assert await told(s) == (1, len(second))
        await s.http.post(f"{OPERATOR}/drop-sources", json={}, headers=s.operator)
        assert await told(s) == (0, 0)


async def test_nothing_is_kept_by_default(start: Starter) -> None:
    async with start() as s:
        job = await kept(s)
        assert (await source(s, job.image_id)).json()["code"] == "source_not_kept"
        assert paths(s) == [] and job.source_key is None
        s.state.jobs.queue.hold()
        waiting = (await s.upload(make.jpeg(70, 50))).json()["image_id"]
        assert (await source(s, waiting)).json()["code"] == "image_not_ready"


@pytest.mark.parametrize("settings", [AS_IS, STRIPPED], ids=["as_is", "stripped"])
async def test_same_photo_twice(start: Starter, settings: dict[str, Any]) -> None:
    """The second job takes over the source too; once that was dropped, it is made again."""
    async with start(images=settings) as s:
        first, second = await kept(s), await kept(s)
        assert (await source(s, first.image_id)).content == (await source(s, second.image_id)).content
        assert [
            row[0] for row in await s.sql("SELECT count(*) FROM image_upload_events WHERE metadata LIKE '%twin%'")
        ] == [1]
        dropped = await s.http.post(f"{OPERATOR}/drop-sources", json={"limit": 1}, headers=s.operator)
        assert dropped.json() == {"images": 1, "bytes": first.source_bytes}
        dropped = await s.http.post(f"{OPERATOR}/drop-sources", headers=s.operator, json={})
        assert dropped.json()["images"] == 1
        assert (await s.http.post(f"{OPERATOR}/drop-sources", headers=s.operator, json={})).json()["images"] == 0
        await s.state.jobs.housekeeping.sweep()
        assert paths(s) == []
        assert (await source(s, second.image_id)).json()["code"] == "source_not_kept"
        assert len(await s.variant(second.image_id, "medium")) > 100
        assert_sound(places(s), "settled")
        third = await kept(s)
        assert third.source_sha256 == first.source_sha256
        await s.state.jobs.housekeeping.sweep()
        assert_sound(places(s), "settled")


async def test_it_is_moved_verified_and_backed_up(tmp_path: Path) -> None:
    async with keeping(tmp_path, images=STRIPPED) as s:
        job = await kept(s)
        data = (await source(s, job.image_id)).content
        report = await carried_out(s, "verify", digests=True, grace_seconds=0)
        assert (report["well"], report["counts"]["files"]) == (True, 5)
        assert (await carried_out(s, "gc", dry_run=False, older_than_seconds=0))["findings"] == []
        assert (await carried_out(s, "backup", destination=str(tmp_path / "backup")))["counts"]["variants"] == 5
        assert (await carried_out(s, "backup", destination=str(tmp_path / "backup")))["counts"]["variants"] == 5
        assert (await carried_out(s, "migrate", to="other"))["state"] == "done"
        assert files(s.settings.storage.path) == set()
        assert f"photos/{job.source_key}" in files(tmp_path / "other")
        assert (await source(s, job.image_id)).content == data
        (tmp_path / "other" / "photos" / str(job.source_key)).write_bytes(b"x")
        report = await carried_out(s, "verify", digests=True, grace_seconds=0)
        assert found(report) == {("wrong_size", "other", f"photos/{job.source_key}")}
        stray = f"photos/sources/{job.job_id}.jpeg"
        (tmp_path / "other" / stray).write_bytes(b"x")
        report = await carried_out(s, "gc", dry_run=True, older_than_seconds=0)
        assert found(report) == {("orphaned", "other", stray)}
    await put_back(tmp_path / "backup", tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        assert (await source(s, job.image_id)).content == data


async def test_source_that_can_not_be_put_keeps_the_job_from_completing(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalStorage.put_all
    refused: list[str] = []

    async def refuse(self: LocalStorage, bucket: str, sources: Mapping[str, Path]) -> None:
        if len(refused) < 3 and (kept := [key for key in sources if key.startswith("sources/")]):
            refused.extend(kept)
            raise StorageError("no")
        await put(self, bucket, sources)

    monkeypatch.setattr(LocalStorage, "put_all", refuse)
    async with start(images=STRIPPED, jobs={"retry_delay_seconds": 0}) as s:
        job = await s.ended(await s.upload(LEAKY))
        assert (job["status"], job["error_code"], len(refused)) == ("failed", "storage_error", 3)
        with within(WAIT_SECONDS):
            while s.stored():
                await anyio.sleep(0.01)
        retried = await s.http.post(f"/api/v1/operator/jobs/{job['job_id']}/retry", headers=s.operator)
        assert retried.status_code == 202
        with within(WAIT_SECONDS):
            while (await s.job(job["job_id"]))["status"] != "completed":
                await anyio.sleep(0.01)
        assert (await source(s, job["image_id"])).status_code == 200


async def test_too_damaged_to_be_cleaned_is_not_kept(start: Starter) -> None:
    """A chunk without an end: it is shown, but what of it is picture can't be said for sure."""
    webp = make.encoded(make.photo(64, 48), "WEBP", lossless=True, exif=make.exif(3))
    cut = webp[: webp.index(b"EXIF") + 8 + 4]
    async with start(images=STRIPPED) as s:
        job = await kept(s, cut)
        answer = await source(s, job.image_id)
        if answer.status_code == 200:
            check_stripped(io.BytesIO(answer.content), "image/webp")
        await s.state.jobs.housekeeping.sweep()
        assert_sound(places(s), "settled")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
async def test_animations_keep_moving_in_what_is_kept(start: Starter, form: str) -> None:
    data = make.animation(form, 3)
    async with start(images=STRIPPED) as s:
        job = await kept(s, data)
        assert job.source_key == f"sources/{job.image_id}.{form.lower()}"
        answer = await source(s, job.image_id)
        check_stripped(io.BytesIO(answer.content), f"image/{form.lower()}")
        with Image.open(io.BytesIO(answer.content)) as after:
            assert getattr(after, "n_frames", 1) == 3


@pytest.mark.workers
async def test_worker_cleans_it_in_its_cage(start: Starter) -> None:
    photos = [(LEAKY, "image/jpeg"), (make.oriented(6, "WEBP"), "image/webp"), (make.animation("GIF"), "image/gif")]
    photos += [(coded_samples.HEIF, "image/heic"), (coded_samples.AVIF, "image/avif")]
    async with start(images=STRIPPED) as s:
        types = (await s.http.get("/info")).json()["processing"]["allowed_mime_types"]
        for data, mime in photos:
            if mime in types:  # of the last two, only where their packages are
                job = await kept(s, data)
                answer = await source(s, job.image_id)
                assert answer.headers["Content-Type"] == mime
                check_stripped(io.BytesIO(answer.content), mime)


async def test_older_service_s_rows_have_none(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        job = await kept(s)
    async with service(tmp_path / "data", images=AS_IS) as s:
        assert (await source(s, job.image_id)).json()["code"] == "source_not_kept"
        assert (await kept(s)).source_sha256  # it has no twin: that has no source
        assert_sound(places(s), "settled")


async def test_store_is_never_asked_for_a_url(tmp_path: Path) -> None:
    async with keeping(tmp_path, others=[Other(tmp_path / "other")], images=AS_IS) as s:
        job = await kept(s)
        assert job.kept_source is not None and job.source_key not in job.names
