"""Images that expire: every read is a 404 from that moment, nothing outlasts it, and row and files go soon after."""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.jobs.clocks import Clocks, Reading
from imgsvc.jobs.table.model import as_text, now
from imgsvc.jobs.table.writer import Change
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.speed import within

IMAGES = "/api/v1/images"
TINY = make.tiny()
IMMUTABLE, CHECKED_HOURLY = "public, max-age=31536000, immutable", "public, max-age=3600"
SIZES = ("thumbnail", "medium", "large", "original")


async def set_expiry(s: Service, image_id: str, moment: datetime) -> None:
    """As a PATCH does, by the writer: what is in the memory of reads is forgotten by its trigger."""

    async def change(db: Any) -> None:
        await db.execute("UPDATE processing_jobs SET expires_at = ? WHERE image_id = ?", [as_text(moment), image_id])

    write: Change[None] = change
    await s.state.jobs.table._write(write)


async def listed(s: Service) -> dict[str, Any]:
    (one,) = (await s.http.get(IMAGES, headers=s.bearer())).json()["images"]
    found: dict[str, Any] = one
    return found


async def reads(s: Service, job: dict[str, Any], urls: dict[str, str]) -> dict[str, httpx.Response]:
    image, bearer = f"{IMAGES}/{job['image_id']}", s.bearer()
    found = {"stored": await s.http.get(urls["medium"]), "listed direct": await s.http.get(urls["direct"])}
    for path in ("", "/all"):
        found[f"image{path}"] = await s.http.get(f"{image}{path}", headers=bearer)
    for path in ("", "/result"):
        found[f"job{path}"] = await s.http.get(f"{IMAGES}/jobs/{job['job_id']}{path}", headers=bearer)
    found["operator"] = await s.http.get(f"/api/v1/operator/images/{job['image_id']}", headers=s.operator)
    return found


@pytest.mark.parametrize("private", [False, True])
async def test_every_read_is_a_404_from_that_moment(start: Starter, private: bool) -> None:
    async with start(storage={"signed_urls": private}) as s:
        job = await s.completed(TINY, expires_in="3600")
        urls = (await s.http.get(f"{IMAGES}/{job['image_id']}/all", headers=s.bearer())).json()["urls"]
        urls["direct"] = (await listed(s))["urls"]["medium"]
        for name, response in (await reads(s, job, urls)).items():  # and from now on from memory
            assert response.status_code == 200, name
        row = f"UPDATE processing_jobs SET expires_at = '{as_text(now())}' WHERE image_id = '{job['image_id']}'"
        table = s.state.jobs.table
        with within(WAIT_SECONDS):  # what follows a job changes its row once more, and the memory forgets it
            while not all(kept := [table.memory.get("image", job["image_id"]), table.memory.get("job", job["job_id"])]):
                await reads(s, job, urls)
        for one in kept:
            vars(one)["expires_at"] = as_text(now())  # the time has come, and the row is in memory
        for name, response in (await reads(s, job, urls)).items():
            assert response.status_code == 404, name
            assert response.json()["code"] in ("image_not_found", "job_not_found")
        await s.sql(row)
        for name, response in (await reads(s, job, urls)).items():
            assert response.status_code == 404, name
        assert (await s.http.get(IMAGES, headers=s.bearer())).json() == {"images": [], "next": None}
        batch = await s.http.get(f"{IMAGES}/batch?image_ids={job['image_id']}", headers=s.bearer())
        assert batch.json()["missing"] == [job["image_id"]]
        assert (await s.http.delete(f"{IMAGES}/{job['image_id']}", headers=s.bearer())).status_code == 404


async def test_row_and_files_go(start: Starter) -> None:
    async with start() as s:
        job, other = await s.completed(TINY, expires_in="3600"), await s.completed(TINY)
        await s.state.jobs.expiry.sweep()
        assert len(s.stored()) == 8
        await set_expiry(s, job["image_id"], now() - timedelta(seconds=1))
        await s.state.jobs.expiry.sweep()
        assert all(other["image_id"] in name for name in s.stored()) and len(s.stored()) == 4
        events = await s.sql("SELECT event_type FROM image_upload_events WHERE job_id = ? ORDER BY id", job["job_id"])
        assert events[-1] == ("expired",)
        (row,) = await s.sql("SELECT user_id, deleted_at FROM processing_jobs WHERE job_id = ?", job["job_id"])
        assert row[0] is None and row[1] is not None
        assert await s.sql("SELECT images FROM usage WHERE user_id = 'alice'") == [(1,)]
        metrics = (await s.http.get("/metrics", headers=s.operator)).text
        assert "images_expired_total 1.0" in metrics and "time_based_removals_held 0.0" in metrics


async def test_upload_that_expires_while_its_job_runs(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted = (await s.upload(TINY, expires_in="60")).json()
        await set_expiry(s, accepted["image_id"], now() - timedelta(seconds=1))
        assert (await s.http.get(accepted["status_url"])).status_code == 404
        await s.state.jobs.expiry.sweep()
        assert s.staged() == [] and s.stored() == []


async def test_nothing_outlasts_it(start: Starter) -> None:
    async with start(storage={"signed_urls": True}) as s:
        moment = (datetime.now(UTC) + timedelta(seconds=90)).replace(microsecond=0)
        job = await s.completed(TINY, expires_at=moment.isoformat())
        body = await listed(s)
        assert body["expires_at"] == as_text(moment)
        urls = (await s.http.get(f"{IMAGES}/{job['image_id']}/all", headers=s.bearer())).json()["urls"]
        for url in (*urls.values(), *body["urls"].values()):
            assert int(parse_qs(urlsplit(url).query)["expires"][0]) == int(moment.timestamp())
            response = await s.http.get(url)
            age = re.fullmatch(r"private, max-age=(\d+)", response.headers["Cache-Control"])
            assert age and time.time() + int(age[1]) <= moment.timestamp() + 1


async def test_public_bytes_are_not_immutable(start: Starter) -> None:
    async with start() as s:
        forever, job = await s.completed(TINY), await s.completed(TINY, expires_in="600")
        for image_id, expected in ((forever["image_id"], None), (job["image_id"], 600)):
            urls = (await s.http.get(f"{IMAGES}/{image_id}/all")).json()["urls"]
            for url in (urls["medium"], f"{IMAGES}/{image_id}/direct"):
                response = await s.http.get(url)
                again = await s.http.get(url, headers={"If-None-Match": response.headers["ETag"]})
                assert again.status_code == 304
                for answer in (response, again):
                    caching = answer.headers["Cache-Control"]
                    if expected is None:
                        assert caching == (IMMUTABLE if url == urls["medium"] else CHECKED_HOURLY)
                    else:
                        age = re.fullmatch(r"public, max-age=(\d+)", caching)
                        assert age and expected - 60 < int(age[1]) <= expected


async def test_fields(start: Starter) -> None:
    tomorrow = as_text(now() + timedelta(days=1))
    async with start() as s:
        raw = s.bearer() | {"Content-Type": "image/jpeg"}
        for query in ({"expires_in": "60"}, {"expires_at": tomorrow}, {"expires_at": tomorrow.replace("+", " ")}):
            url = f"{IMAGES}/upload"
            response = await s.http.post(url, params={"bucket": "b", **query}, content=TINY, headers=raw)
            assert response.status_code == 202, response.text
        assert (await s.upload(TINY, expires_in="315360000")).status_code == 202
        for fields in (
            {"expires_in": "59"},
            {"expires_in": "315360001"},
            {"expires_in": "x"},
            {"expires_in": "60.0"},
            {"expires_at": as_text(now() - timedelta(seconds=1))},
            {"expires_at": "2200-01-01T00:00:00Z"},
            {"expires_at": "2026-02-30T00:00:00Z"},
            {"expires_at": "tomorrow"},
            {"expires_at": tomorrow[:19]},
            {"expires_in": "60", "expires_at": tomorrow},
        ):
            for refused in (
                await s.upload(TINY, **fields),
                await s.http.post(f"{IMAGES}/upload", params={"bucket": "b", **fields}, content=TINY, headers=raw),
            ):
                assert (refused.status_code, refused.json()["code"]) == (422, "validation_error"), fields
                assert refused.json()["details"][0]["loc"][1].startswith("expires_")
        assert await s.sql("SELECT count(*) FROM processing_jobs WHERE expires_at IS NULL") == [(0,)]
        assert (await s.upload(TINY, expires_in="", expires_at="")).status_code == 202  # inputs that were left empty


async def test_nothing_is_removed_while_the_clocks_disagree(start: Starter) -> None:
    """Reads follow the wall clock, health and metric say so, and after an hour the removals go on."""
    async with start() as s:
        job = await s.completed(TINY, expires_in="3600")
        clocks, real = s.state.jobs.clocks, Reading.now()
        clocks._read = lambda: Reading(real.wall + 7200, real.boot + 60, real.boot_id)
        await set_expiry(s, job["image_id"], now() - timedelta(seconds=1))
        await s.sql("UPDATE image_upload_events SET created_at = '2020-01-01T00:00:00.000000+00:00'")
        events = await s.sql("SELECT count(*) FROM image_upload_events")
        await s.state.jobs.expiry.sweep()
        await s.state.jobs.housekeeping.sweep()
        assert len(s.stored()) == 4 and await s.sql("SELECT count(*) FROM image_upload_events") == events
        assert (await s.http.get(f"{IMAGES}/{job['image_id']}")).status_code == 404
        await s.state.telemetry.health.measure()
        health = (await s.http.get("/api/v1/health")).json()
        assert health["status"] == "degraded" and "60 more minutes" in health["checks"]["clocks"]["detail"]
        assert "time_based_removals_held 1.0" in (await s.http.get("/metrics", headers=s.operator)).text
        await s.state.jobs.clock_keeper.store()
        assert await s.sql("SELECT clock_doubted FROM service_instance") == [(1,)]
    async with start() as s:
        assert not s.state.jobs.clocks.agree
        clocks = s.state.jobs.clocks
        clocks._read = lambda: Reading(time.time() + 3601, Reading.now().boot + 3601, real.boot_id)
        assert clocks.agree
        await s.state.jobs.expiry.sweep()
        assert s.stored() == []


async def test_clocks_are_stored(start: Starter) -> None:
    async with start() as s:
        with anyio.fail_after(10):
            while (await s.sql("SELECT clock_wall FROM service_instance"))[0][0] is None:
                await anyio.sleep(0.02)
        ((wall, boot, boot_id, doubted),) = await s.sql(
            "SELECT clock_wall, clock_boot, clock_boot_id, clock_doubted FROM service_instance"
        )
        current = Reading.now()
        assert abs(wall - current.wall) < 60 and abs(boot - current.boot) < 60
        assert (boot_id, doubted) == (current.boot_id, 0)
        assert isinstance(s.state.jobs.clocks, Clocks)
