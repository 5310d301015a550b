"""AVIF beside WebP as rows of `renders`: the upload is kept for them, an hour at most, and other uploads go first."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc.imaging.header import Header
from imgsvc.imaging.limits import affordable, avif_bytes, render_bytes
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.jobs.table.further_table import FurtherTable
from imgsvc.jobs.table.model import as_text, now
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service, Starter, service, with_workers
from tests.support.invariants import Places, assert_sound
from tests.support.speed import within

PHOTO = make.jpeg(200, 150)
IMAGES = {"sizes": {"small": 50, "large": 300}, "formats": ["webp", "avif"]}


async def over(s: Service) -> list[tuple[Any, ...]]:
    """(error code, attempts) of the rows that have failed, once no other is left."""
    with within(WAIT_SECONDS):
        while await s.sql("SELECT 1 FROM renders WHERE state <> 'failed'") or s.state.jobs.queue.active_runs:
            await anyio.sleep(0.02)
    return list(await s.sql("SELECT error_code, attempts FROM renders"))


async def made(s: Service) -> dict[str, Any]:
    """{variant: measurements} of all files of the one image."""
    ((measured,),) = await s.sql("SELECT processing_metadata FROM processing_jobs")
    found: dict[str, Any] = json.loads(measured)["variants"]
    return found


def staged(s: Service) -> list[Path]:
    return list((s.settings.data / "staging").iterdir())


def sound(s: Service) -> None:
    assert_sound(Places(s.settings.database.path, {"local": s.settings.storage.path}), "settled")


async def nothing(table: FurtherTable, free_bytes: int, *, nothing_running: bool) -> None:
    del table, free_bytes, nothing_running


@asynccontextmanager
async def paused(folder: Path) -> AsyncIterator[Service]:
    """A service that makes nothing of completed images."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FurtherTable, "claim", nothing)
        async with service(folder, images=IMAGES) as s:
            yield s


@pytest.fixture
async def waiting(tmp_path: Path) -> Path:
    """A folder in which an image is completed and its AVIFs wait."""
    async with paused(tmp_path / "data") as s:
        await s.completed(PHOTO)
        await s.state.jobs.housekeeping.sweep()
        assert len(staged(s)) == 1
    return tmp_path / "data"


async def test_made_at_the_next_start(waiting: Path) -> None:
    async with service(waiting, images=IMAGES) as s:
        assert await over(s) == []
        assert sorted(await made(s)) == ["large", "large.avif", "small", "small.avif"]
        assert "rendered_from" not in (await made(s))["small.avif"]
        assert staged(s) == []
        sound(s)


async def test_upload_is_kept_for_an_hour(waiting: Path) -> None:
    """After that the largest variant has to do, and the row says so."""
    async with paused(waiting) as s:
        await s.sql(f"UPDATE processing_jobs SET completed_at = '{as_text(now() - timedelta(minutes=61))}'")
        await s.state.jobs.housekeeping.sweep()
        assert staged(s) == []
    async with service(waiting, images=IMAGES) as s:
        assert await over(s) == []
        assert (await made(s))["small.avif"]["rendered_from"] == "large"
        assert staged(s) == []
        sound(s)


async def test_lost_upload_is_replaced_by_the_largest_variant(waiting: Path) -> None:
    for path in (waiting / "staging").iterdir():
        path.unlink()
    async with service(waiting, images=IMAGES) as s:
        assert await over(s) == []
        assert {(await made(s))[name]["rendered_from"] for name in ("small.avif", "large.avif")} == {"large"}
        await s.state.jobs.housekeeping.sweep()
        sound(s)


async def test_deletion_ends_it(waiting: Path) -> None:
    async with paused(waiting) as s:
        ((image_id,),) = await s.sql("SELECT image_id FROM processing_jobs")
        assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
        await s.state.jobs.housekeeping.sweep()
        assert (staged(s), s.stored(), await s.sql("SELECT * FROM renders")) == ([], [], [])
        sound(s)


async def test_storage_that_refuses_three_times(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    put = LocalStorage.put_all
    refused: list[str] = []

    async def refuse(storage: LocalStorage, bucket: str, sources: Mapping[str, Path]) -> None:
        await put(storage, bucket, sources)
        if any(key.endswith(".avif") for key in sources):
            refused.extend(sources)
            raise OSError(5, "refused")

    monkeypatch.setattr(LocalStorage, "put_all", refuse)
    async with start(images=IMAGES, jobs={"retry_delay_seconds": 0.01}) as s:
        ids = await s.completed(PHOTO)
        assert await over(s) == [("storage_error", 3)]
        assert len(refused) == 6
        await s.state.jobs.housekeeping.sweep()
        assert len(s.stored()) == 2 and staged(s) == []
        job = await s.job(ids["job_id"])
        assert (job["status"], job["error"], job["attempts"]) == ("completed", None, 0)
        sound(s)


async def test_is_preempted_by_an_upload(tmp_path: Path) -> None:
    """One lane makes an AVIF that takes half a minute: the next photo does not wait for it."""
    slow = {"sizes": {"small": 50, "large": 1400}, "formats": ["webp", "avif"], "avif_effort": 10}
    async with with_workers(tmp_path / "data", images=slow, workers={"count": 1, "grace_seconds": 0}) as s:
        await s.completed(make.jpeg(1400, 1000))
        with within(WAIT_SECONDS):
            while await s.sql("SELECT state FROM renders") != [("running",)]:
                await anyio.sleep(0.02)
        await s.completed(make.jpeg(1400, 1000, seed=2))
        kinds = [kind for (kind,) in await s.sql("SELECT event_type FROM image_upload_events ORDER BY id")]
        assert "render_requeued" in kinds[: kinds.index("completed", kinds.index("render_requeued"))]
        assert "rendered_again" not in kinds
        assert set(await s.sql("SELECT attempts, deaths FROM renders")) == {(0, 0)}


def test_what_the_memory_does_not_suffice_for_is_left_out() -> None:
    header, small = Header("JPEG", 4000, 3000, 3), Variant("small", 100, 85, 4)
    large = Variant("large", 4000, 85, 4)
    both = (small.also_in("avif", 60, 2), large.also_in("avif", 60, 2))
    recipe = Recipe((small, large), 10**9, 1, further=both)
    needs = render_bytes(header, recipe)
    assert affordable(header, recipe, needs, needs + avif_bytes(12_000_000)) == recipe
    left = affordable(header, recipe, needs, needs + avif_bytes(12_000_000) - 1)
    assert [variant.name for variant in left.further] == ["small.avif"]
    assert Recipe.from_json(left.to_json()) == left


async def test_start_names_what_is_left_out(start: Starter) -> None:
    with capture_logs() as said:
        async with start(images={"formats": ["webp", "avif"]}, workers={"memory_mb": 700, "count": 1}):
            pass
    (entry,) = [one for one in said if one["event"] == "formats_left_out"]
    assert entry["variants"] == ["original.avif"] and entry["log_level"] == "warning"
