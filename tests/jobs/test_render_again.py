"""Rendering images again: new and changed sizes, of many images, as a task that outlives the service."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from fixtures import make
from imgsvc.jobs import render_again
from imgsvc.jobs.table import render_tasks
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service, Starter, service
from tests.support.invariants import Places, assert_sound
from tests.support.speed import within

IMAGES, OPERATOR = "/api/v1/images", "/api/v1/operator/images"
OLD = {"thumbnail": 60, "medium": 200, "original": 4096}
NEW = {**OLD, "medium": {"width": 220, "quality": 60}, "hero": {"width": 300, "height": 100, "fit": "cover"}}


async def urls(s: Service, image_id: str) -> dict[str, str]:
    return dict((await s.http.get(f"{IMAGES}/{image_id}/all")).json()["urls"])


async def begun(s: Service, **order: Any) -> Any:
    return await s.http.post(f"{OPERATOR}/render", json=order, headers=s.operator)


async def task(s: Service) -> dict[str, Any]:
    return dict((await s.http.get(f"{OPERATOR}/task", headers=s.operator)).json())


async def ended(s: Service) -> dict[str, Any]:
    with within(WAIT_SECONDS):
        while (found := await task(s))["state"] == "running":
            await anyio.sleep(0.02)
    return found


async def settled(s: Service) -> None:
    await s.state.jobs.housekeeping.sweep()
    assert_sound(Places(s.settings.database.path, {"local": s.settings.storage.path}), "settled")


async def several(folder: Path, count: int = 3, **images: Any) -> dict[str, dict[str, str]]:
    """{image: URLs} of a service with the old sizes, which is stopped again."""
    async with service(folder, images={"sizes": OLD, **images}) as s:
        ids = [(await s.completed(make.jpeg(320, 240, seed)))["image_id"] for seed in range(count)]
        return {image_id: await urls(s, image_id) for image_id in ids}


@pytest.mark.parametrize("keep", ["none", "stripped", "as_is"])
async def test_sizes_that_were_changed(tmp_path: Path, keep: str) -> None:
    before = await several(tmp_path / "data", keep_source=keep)
    async with service(tmp_path / "data", images={"sizes": NEW}) as s:
        assert (await begun(s)).status_code == 202
        found = await ended(s)
        origin = 3 if keep == "none" else 0
        figures = {name: found[name] for name in ("state", "examined", "ordered", "rendered", "from_variant", "failed")}
        assert figures == {
            "state": "done",
            "examined": 3,
            "ordered": 3,
            "rendered": 3,
            "from_variant": origin,
            "failed": 0,
        }
        assert [one["kind"] for one in found["findings"]] == ["from_variant"] * origin
        assert found["done"] == found["total"] == 3 and found["waiting"] == 0
        for image_id, old in before.items():
            new = await urls(s, image_id)
            assert new["thumbnail"] == old["thumbnail"] and new["original"] == old["original"]
            assert new["medium"].endswith(f"{image_id}_medium_r1.webp")
            moved = await s.http.get(old["medium"])
            assert (moved.status_code, moved.headers["Location"]) == (301, new["medium"])
            for name, size in (("medium", (220, 165)), ("hero", (300, 100))):
                with Image.open(io.BytesIO((await s.http.get(new[name])).content)) as image:
                    assert image.size == size
        await settled(s)
        assert (await begun(s, variants=["hero"])).status_code == 202
        assert (await ended(s))["ordered"] == 0  # nothing is left to do


async def test_one_size_of_one_bucket_and_only_what_is_missing(tmp_path: Path) -> None:
    (image_id, *_) = await several(tmp_path / "data")
    async with service(tmp_path / "data", images={"sizes": NEW}) as s:
        for order, changed in (
            ({"bucket": "other"}, set()),
            ({"variants": ["medium"], "missing_only": True}, set()),
            ({"missing_only": True, "bucket": "photos"}, {"hero"}),
        ):
            before = await urls(s, image_id)
            await begun(s, **order)
            await ended(s)
            after = await urls(s, image_id)
            assert {name for name in after if after[name] != before.get(name)} == changed
        answer = await begun(s, variants=["huge"])
        assert (answer.status_code, answer.json()["details"][0]["type"]) == (422, "unknown_variant")
        assert (await begun(s, missing_only="no")).status_code == 422
        await settled(s)


async def test_start_goes_on_and_uploads_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_tasks, "PAGE", 2)
    monkeypatch.setattr(render_tasks, "MOST_WAITING", 2)
    before = await several(tmp_path / "data", 5)
    async with service(tmp_path / "data", images={"sizes": NEW}) as s:
        s.state.jobs.queue.hold()
        await begun(s)
        assert (await begun(s)).json()["code"] == "task_running"
        s.state.jobs.queue._stopping = False
        with s.state.jobs.deletion_hold.held():  # a backup: nothing is claimed
            assert (await task(s))["held"]
            uploaded = await s.completed(make.jpeg(90, 60))
            assert (await task(s))["rendered"] == 0
    async with service(tmp_path / "data", images={"sizes": OLD}) as s:  # what was ordered counts, not the settings now
        found = await ended(s)
        assert (found["state"], found["rendered"], found["total"]) == ("done", 5, 5)
        for image_id in before:
            assert "hero" in await urls(s, image_id)
        assert "hero" in await urls(s, uploaded["image_id"])  # of its own receipt
        await settled(s)


async def test_cancelled(tmp_path: Path) -> None:
    before = await several(tmp_path / "data")
    async with service(tmp_path / "data", images={"sizes": NEW}) as s:
        with s.state.jobs.deletion_hold.held():
            await begun(s)
            answer = await s.http.delete(f"{OPERATOR}/task", headers=s.operator)
            assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
        for image_id, old in before.items():
            assert await urls(s, image_id) == old
        await settled(s)
        await begun(s)
        assert (await ended(s))["rendered"] == 3


async def test_failed_one_is_told_and_keeps_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await several(tmp_path / "data", 2)
    put, (image_id, other) = LocalStorage.put_all, before

    async def refuse(self: LocalStorage, bucket: str, sources: Mapping[str, Path]) -> None:
        if image_id in str(sources):
            raise OSError("no")
        await put(self, bucket, sources)

    monkeypatch.setattr(LocalStorage, "put_all", refuse)
    async with service(tmp_path / "data", images={"sizes": NEW}, jobs={"retry_delay_seconds": 0}) as s:
        await begun(s)
        found = await ended(s)
        assert (found["failed"], found["rendered"]) == (1, 1)
        assert {"image_id": image_id, "kind": "failed", "reason": "The image could not be stored."} in found["findings"]
        assert await urls(s, image_id) == before[image_id]
        assert (await s.http.get(before[image_id]["medium"])).status_code == 200
        assert "hero" in await urls(s, other)
        monkeypatch.setattr(LocalStorage, "put_all", put)
        await begun(s)
        assert (await ended(s))["rendered"] == 1
        await settled(s)


async def test_focal_point_meanwhile(tmp_path: Path) -> None:
    """Whatever comes first: in the end the crop is the task's, around the new point."""
    merge = {"Content-Type": "application/merge-patch+json"}
    crops = {**OLD, "hero": {"width": 200, "height": 100, "fit": "cover"}}
    async with service(tmp_path / "data", images={"sizes": crops}) as s:
        image_id = (await s.completed(make.jpeg(320, 240)))["image_id"]
    async with service(tmp_path / "data", images={"sizes": NEW}) as s:
        s.state.jobs.queue.hold()
        await begun(s)
        with within(WAIT_SECONDS):
            while (await task(s))["ordered"] == 0 and (await task(s))["done"] == 0:
                s.state.jobs.queue._stopping = False
                with s.state.jobs.deletion_hold.held():
                    await s.state.jobs.again._tasks.advance(render_again.plan)
        body = json.dumps({"focal": {"x": 0.0, "y": 0.0}})
        answer = await s.http.patch(f"{IMAGES}/{image_id}", content=body, headers=s.bearer() | merge)
        assert answer.status_code == 200
        s.state.jobs.queue.wake()
        await ended(s)
        with within(WAIT_SECONDS):
            while await s.sql("SELECT 1 FROM renders"):
                await anyio.sleep(0.02)
        job = await s.state.jobs.table.job_of_image(image_id)
        assert job is not None and job.recipe.focal == (0.0, 0.0)
        made = job.measured["variants"]["hero"]
        assert (made["width"], made["height"]) == (300, 100)
        await settled(s)


async def test_none_was_ordered(start: Starter) -> None:
    async with start() as s:
        assert (await task(s))["state"] == "none"
        assert (await s.http.delete(f"{OPERATOR}/task", headers=s.operator)).json()["state"] == "none"
