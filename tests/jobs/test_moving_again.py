"""Animations that are made again: from the kept source, or a variant that moves; else they stay, and it is said."""

import io
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from fixtures import make
from imgsvc.jobs.failures import NOTHING_MOVES
from tests.conftest import WAIT_SECONDS, Service, service
from tests.http.test_animations import MOVING
from tests.jobs.test_render_again import IMAGES, begun, ended, settled, urls
from tests.support.speed import within

HERO = {"width": 20, "height": 40, "fit": "cover"}
Sizes = dict[str, Any]


async def frames(s: Service, image_id: str) -> dict[str, tuple[tuple[int, int], int]]:
    """{variant: (size, frames)} of the bytes that are served."""
    found = {}
    for name, url in (await urls(s, image_id)).items():
        with Image.open(io.BytesIO((await s.http.get(url)).content)) as image:
            found[name] = image.size, getattr(image, "n_frames", 1)
    return found


async def uploaded(folder: Path, sizes: Sizes, data: bytes = MOVING, **images: Any) -> str:
    async with service(folder, images={"sizes": sizes, **images}) as s:
        image_id: str = (await s.completed(data))["image_id"]
        return image_id


async def reported(s: Service) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    assert (await begun(s)).status_code == 202
    task = await ended(s)
    return task, [(one["kind"], one["reason"]) for one in task["findings"]]


@pytest.mark.parametrize("keep", ["none", "stripped", "as_is"])
async def test_new_size_of_an_animation_moves(tmp_path: Path, keep: str) -> None:
    image_id = await uploaded(tmp_path / "data", {"a": 60, "b": 10}, keep_source=keep)
    async with service(tmp_path / "data", images={"sizes": {"a": 60, "c": 30, "hero": HERO, "b": 10}}) as s:
        task, findings = await reported(s)
        assert (task["rendered"], task["failed"], task["from_variant"]) == (1, 0, int(keep == "none"))
        assert findings == ([("from_variant", "a")] if keep == "none" else [])
        found = await frames(s, image_id)
        assert {name: count for name, (_, count) in found.items()} == {"a": 2, "poster": 1, "c": 2, "hero": 2, "b": 1}
        assert found["c"][0] == (30, 23) and found["hero"][0] == (20, 40)
        await settled(s)
        assert (await reported(s))[0]["ordered"] == 0


async def test_what_could_only_be_made_from_a_still_is_reported(tmp_path: Path) -> None:
    sizes = {"a": {"width": 60, "animated": False}, "b": {"width": 40, "animated": True}, "c": 10}
    image_id = await uploaded(tmp_path / "data", sizes)
    new = {**sizes, "b": {"width": 50, "animated": True}, "d": {"width": 20, "animated": False}}
    async with service(tmp_path / "data", images={"sizes": new}) as s:
        task, findings = await reported(s)
        assert (task["rendered"], task["failed"]) == (1, 1)
        assert findings == [("failed", f"b: {NOTHING_MOVES.message}"), ("from_variant", "a")]
        found = await frames(s, image_id)
        assert found["b"] == ((40, 30), 2) and found["d"] == ((20, 15), 1)
        await settled(s)


@pytest.mark.parametrize(
    ("images", "moves"), [({}, True), ({"animation_seconds": 0.2}, False), ({"max_frames": 1}, False)]
)
@pytest.mark.parametrize("keep", ["stripped", "none"])
async def test_still_begins_to_move_from_its_source_only(
    tmp_path: Path, images: dict[str, Any], moves: bool, keep: str
) -> None:
    """Within the limits of the settings of now, the length too, which is known from the source alone."""
    sizes: Sizes = {"a": 60, "hero": HERO, "b": 10}
    image_id = await uploaded(tmp_path / "data", sizes, animated=False, keep_source=keep)
    async with service(tmp_path / "data", images={"sizes": sizes, **images}) as s:
        await reported(s)
        found = await frames(s, image_id)
        assert {found[name][1] for name in ("a", "hero")} == ({2} if moves and keep != "none" else {1})
        await settled(s)
    async with service(tmp_path / "data", images={"sizes": sizes, "animated": False}) as s:
        await reported(s)
        assert {count for _, count in (await frames(s, image_id)).values()} == {1}


async def test_memory_that_is_not_there_is_said(tmp_path: Path) -> None:
    photo = make.encoded(make.quadrants(2600, 2600), "PNG")
    await uploaded(tmp_path / "data", {"a": 1400, "b": 10}, photo, keep_source="as_is")
    async with service(
        tmp_path / "data", images={"sizes": {"a": 1400, "b": 20}}, workers={"memory_mb": 160, "count": 1}
    ) as s:
        task, (finding,) = await reported(s)
        assert (task["ordered"], task["failed"], finding[0]) == (0, 1, "failed")
        assert finding[1].startswith("It would need ") and "MB of memory" in finding[1]


async def test_focal_point_never_stops_what_moves(tmp_path: Path) -> None:
    """Nothing whole moves, and no source is kept: the crop stays as it is, and its row says why."""
    sizes = {"a": {"width": 60, "animated": False}, "hero": {**HERO, "animated": True}, "b": 10}
    async with service(tmp_path / "data", images={"sizes": sizes}) as s:
        image_id = (await s.completed(MOVING))["image_id"]
        before = await urls(s, image_id)
        headers = s.bearer() | {"Content-Type": "application/merge-patch+json"}
        body = json.dumps({"focal": {"x": 0.0, "y": 0.5}})
        assert (await s.http.patch(f"{IMAGES}/{image_id}", content=body, headers=headers)).status_code == 200
        with within(WAIT_SECONDS):
            while not (rows := await s.sql("SELECT error FROM renders WHERE state = 'failed'")):
                await anyio.sleep(0.01)
        assert [tuple(row) for row in rows] == [(NOTHING_MOVES.message,)]
        assert await urls(s, image_id) == before and (await frames(s, image_id))["hero"] == ((20, 40), 2)
        await settled(s)


async def test_focal_point_of_what_moves_in_its_source(tmp_path: Path) -> None:
    sizes = {"a": {"width": 60, "animated": False}, "hero": {**HERO, "animated": True}, "b": 10}
    async with service(tmp_path / "data", images={"sizes": sizes, "keep_source": "stripped"}) as s:
        image_id = (await s.completed(MOVING))["image_id"]
        headers = s.bearer() | {"Content-Type": "application/merge-patch+json"}
        body = json.dumps({"focal": {"x": 0.0, "y": 0.5}})
        assert (await s.http.patch(f"{IMAGES}/{image_id}", content=body, headers=headers)).status_code == 200
        with within(WAIT_SECONDS):
            while await s.sql("SELECT 1 FROM renders"):
                await anyio.sleep(0.01)
        assert "_r" in (await urls(s, image_id))["hero"]
        assert (await frames(s, image_id))["hero"] == ((20, 40), 2)
        await settled(s)
