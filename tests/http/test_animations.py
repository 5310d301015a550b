"""Uploads that move, from the upload to the bytes: which variants move, the still beside them, and the limits."""

import io
from typing import Any

import pytest
from PIL import Image

from fixtures import gifs, make
from fixtures.gifs import BLUE, GREEN, RED, control, gif, loops, picture
from tests.conftest import Service, Starter
from tests.http.test_image_changes import rendered

MOVING = gif(
    64,
    48,
    loops(0),
    control(hundredths=20),
    picture(64, 48, RED),
    control(hundredths=5),
    picture(20, 20, BLUE, at=(9, 8)),
)


async def shown(s: Service, data: bytes) -> dict[str, Any]:
    """The answer to `all`, with the frames of each variant's own bytes as `moving`."""
    image_id = (await s.completed(data))["image_id"]
    body: dict[str, Any] = (await s.http.get(f"/api/v1/images/{image_id}/all")).json()
    body["moving"] = {}
    for name, url in body["urls"].items():
        answer = await s.http.get(url)
        assert answer.headers["Content-Type"] == "image/webp"
        with Image.open(io.BytesIO(answer.content)) as image:
            body["moving"][name] = getattr(image, "n_frames", 1)
    return body


@pytest.mark.parametrize(
    "data", [MOVING, make.animation("WEBP", 2), make.animation("PNG", 2)], ids=["GIF", "WEBP", "APNG"]
)
async def test_animation_moves_beside_its_still(start: Starter, data: bytes) -> None:
    async with start() as s:
        body = await shown(s, data)
        assert body["moving"] == {"original": 2, "poster": 1, "large": 2, "medium": 2, "thumbnail": 1}
        metadata = body["metadata"]
        assert (metadata["animated"], metadata["frames"]) == (True, 2)
        assert {name: one.get("frames") for name, one in metadata["variants"].items()} == {
            "original": 2,
            "poster": None,
            "large": 2,
            "medium": 2,
            "thumbnail": None,
        }
        again = await s.completed(data)  # takes over what is there
        assert again["ready"] == ["original", "poster", "large", "medium", "thumbnail"]


@pytest.mark.parametrize(
    ("images", "moving"),
    [
        ({"animated": False}, {"a": 1, "b": 1}),
        ({"animated": False, "sizes": {"a": {"width": 50, "animated": True}, "b": 20}}, {"a": 2, "b": 1, "poster": 1}),
        ({"sizes": {"a": 50, "b": {"width": 20, "animated": True}}}, {"a": 2, "b": 2, "poster": 1}),
        ({"sizes": {"a": {"width": 50, "animated": False}, "b": 20}}, {"a": 1, "b": 1}),
        ({"sizes": {"a": 50}}, {"a": 2, "poster": 1}),
        ({"sizes": {"poster": 40, "b": 50, "c": 10}}, {"poster": 1, "b": 2, "c": 1}),
        ({"sizes": {"a": {"width": 20, "height": 30, "fit": "cover"}, "b": 10}}, {"a": 2, "poster": 1, "b": 1}),
        ({"max_frames": 1}, {"a": 1, "b": 1}),
        ({"animation_factor": 0.0001}, {"a": 1, "b": 1}),
        ({"animation_seconds": 0.2}, {"a": 1, "b": 1}),
        ({"animation_seconds": 0.25}, {"a": 2, "poster": 1, "b": 1}),
    ],
)
async def test_settings_say_what_moves(start: Starter, images: dict[str, Any], moving: dict[str, int]) -> None:
    async with start(images={"sizes": {"a": 50, "b": 20}} | images) as s:
        assert (await shown(s, MOVING))["moving"] == moving


async def test_animation_beyond_the_memory_of_a_lane_is_a_still(start: Starter) -> None:
    """What was accepted before there were animations is accepted still."""
    large = gif(1400, 1400, picture(1400, 1400, RED), picture(9, 9, GREEN))
    async with start(workers={"memory_mb": 160, "count": 1}, images={"sizes": {"a": 1400, "b": 20}}) as s:
        body = await shown(s, large)
        found = body["moving"]
        assert found in ({"a": 1, "b": 1}, {"a": 2, "b": 1, "poster": 1})
        assert found == {"a": 1, "b": 1}, "the estimate of an animation has shrunk: choose a larger one"


async def test_crowd_of_frames_is_a_still(start: Starter) -> None:
    async with start(uploads={"max_size_mb": 20}) as s:
        body = await shown(s, gifs.crowd(100_000))
        assert set(body["moving"].values()) == {1}
        assert body["metadata"]["frames"] == 4000


async def test_patch_of_the_focal_point_keeps_crops_moving(start: Starter) -> None:
    sizes = {"a": 60, "hero": {"width": 20, "height": 40, "fit": "cover"}, "b": 10}
    async with start(images={"sizes": sizes}) as s:
        job = await s.completed(MOVING)
        address = f"/api/v1/images/{job['image_id']}"
        headers = s.bearer() | {"Content-Type": "application/merge-patch+json"}
        patched = await s.http.patch(address, content=b'{"focal": {"x": 0, "y": 0.5}}', headers=headers)
        assert patched.status_code == 200, patched.text
        await rendered(s)
        url = (await s.http.get(f"{address}/all")).json()["urls"]["hero"]
        assert "_r" in url
        with Image.open(io.BytesIO((await s.http.get(url)).content)) as image:
            assert (image.size, getattr(image, "n_frames", 1)) == ((20, 40), 2)
