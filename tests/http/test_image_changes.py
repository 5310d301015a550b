"""PATCH of an image: its focal point, around which its crops are rendered again while it stays completed."""

import io
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest
from PIL import Image

from fixtures import make
from imgsvc.access.permissions import ADMIN, UPDATE, UPLOAD
from imgsvc.jobs.table.model import as_text, now
from tests.conftest import WAIT_SECONDS, Service, Starter, shared_service
from tests.support.invariants import Places, assert_sound

MERGE_PATCH = "application/merge-patch+json"
SIZES = {
    "thumbnail": {"width": 40, "height": 40, "fit": "cover"},
    "hero": {"width": 90, "height": 90, "fit": "cover"},
    "original": 4096,
}
RED, BLUE = (208, 32, 32), (32, 32, 208)
shared = shared_service()


def banner() -> bytes:
    """Red at the left, blue at the right."""
    image = Image.new("RGB", (600, 200), "white")
    image.paste(RED, (0, 0, 200, 200))
    image.paste(BLUE, (400, 0, 600, 200))
    return make.encoded(image, "PNG")


async def patch(s: Service, image_id: str, body: Any, **options: Any) -> httpx.Response:
    headers = {"Content-Type": MERGE_PATCH, **(options.get("headers") or s.bearer())}
    return await s.http.patch(f"/api/v1/images/{image_id}", json=body, headers=headers)


async def rendered(s: Service) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        while await s.sql("SELECT 1 FROM renders WHERE state <> 'failed'"):
            await anyio.sleep(0.02)


async def middle(s: Service, url: str) -> tuple[int, ...]:
    with Image.open(io.BytesIO((await s.http.get(url)).content)) as image:
        found = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert isinstance(found, tuple)
    return found


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 12 for a, b in zip(one, other, strict=True))


def told(answer: httpx.Response) -> dict[str, Any]:
    return {name: answer.json()[name] for name in ("image_id", "focal", "rendering")}


async def urls(s: Service, image_id: str) -> dict[str, str]:
    found: dict[str, str] = (await s.http.get(f"/api/v1/images/{image_id}/all")).json()["urls"]
    return found


async def test_focal_point_makes_the_crops_anew(start: Starter) -> None:
    async with start(images={"sizes": SIZES}) as s:
        job = await s.completed(banner())
        image_id, before = job["image_id"], await urls(s, job["image_id"])
        direct = f"/api/v1/images/{image_id}/direct?size=hero"
        tags = [(await s.http.get(direct)).headers["ETag"]]
        for focal, colour in (({"x": 0.0, "y": 0.5}, RED), ({"x": 1, "y": 0}, BLUE)):
            answer = await patch(s, image_id, {"focal": focal})
            assert answer.status_code == 200, answer.text
            assert told(answer) == {"image_id": image_id, "focal": focal, "rendering": ["hero", "thumbnail"]}
            await rendered(s)
            later = await urls(s, image_id)
            assert near(await middle(s, later["hero"]), colour)
            assert near(await middle(s, later["thumbnail"]), colour)
            changed = await s.http.get(direct, headers={"If-None-Match": tags[-1]})
            assert (changed.status_code, changed.headers["Cache-Control"]) == (200, "public, max-age=3600")
            tags.append(changed.headers["ETag"])
        assert later["original"] == before["original"]
        assert later["hero"].endswith(f"processed/hero/{image_id}_hero_r2.webp")
        assert (await s.job(job["job_id"]))["status"] == "completed"
        moved = await s.http.get(before["hero"])
        assert (moved.status_code, moved.headers["Location"]) == (301, later["hero"])
        assert (await patch(s, image_id, {})).json()["focal"] == {"x": 1, "y": 0}
        assert (await patch(s, image_id, {"focal": None})).json()["focal"] is None
        await rendered(s)
        await s.state.jobs.housekeeping.sweep()
        assert_sound(Places(s.settings.database.path, {"local": s.settings.storage.path}), "settled")


async def test_old_crop_is_served_until_then_and_the_last_point_wins(start: Starter) -> None:
    async with start(images={"sizes": SIZES}) as s:
        job = await s.completed(banner())
        before = await urls(s, job["image_id"])
        s.state.jobs.queue.hold()
        for x in (0.0, 1.0):
            assert (await patch(s, job["image_id"], {"focal": {"x": x, "y": 0.5}})).status_code == 200
        waiting = {"image_id": job["image_id"], "focal": {"x": 1.0, "y": 0.5}, "rendering": ["hero", "thumbnail"]}
        assert told(await patch(s, job["image_id"], {})) == waiting
        assert told(await s.http.get(f"/api/v1/operator/images/{job['image_id']}", headers=s.operator)) == waiting
        assert await urls(s, job["image_id"]) == before
        assert (await s.http.get(before["hero"])).status_code == 200
        assert len(await s.sql("SELECT 1 FROM renders")) == 1
    async with start(images={"sizes": SIZES}) as s:
        await rendered(s)
        assert near(await middle(s, (await urls(s, job["image_id"]))["hero"]), BLUE)


async def test_image_without_crops_keeps_its_urls(start: Starter) -> None:
    async with start() as s:
        image_id = (await s.completed(make.tiny()))["image_id"]
        before = await urls(s, image_id)
        answer = await patch(s, image_id, {"focal": {"x": 0.25, "y": 1}})
        assert told(answer) == {"image_id": image_id, "focal": {"x": 0.25, "y": 1}, "rendering": []}
        assert await urls(s, image_id) == before
        assert (await patch(s, image_id, {})).json()["focal"] == {"x": 0.25, "y": 1}


async def test_one_request_changes_everything_or_nothing(start: Starter) -> None:
    async with start(images={"sizes": SIZES}) as s:
        image_id = (await s.completed(banner()))["image_id"]
        focal, expires_at = {"x": 1.0, "y": 0.5}, as_text((now() + timedelta(days=1)).replace(microsecond=0))
        members = {"client_metadata": {"title": "Sea"}, "expires_at": expires_at, "focal": focal}
        too_large = members | {"client_metadata": {"title": "x" * 17_000}}
        assert (await patch(s, image_id, too_large)).status_code == 422
        unchanged = (await patch(s, image_id, {})).json()
        assert (unchanged["focal"], unchanged["expires_at"], unchanged["client_metadata"]) == (None, None, {})
        assert not await s.sql("SELECT 1 FROM renders")
        path, headers = f"/api/v1/operator/images/{image_id}", {"Content-Type": MERGE_PATCH, **s.operator}
        by_operator = await s.http.patch(path, json=members, headers=headers)
        assert by_operator.status_code == 200, by_operator.text
        for answer in (by_operator, await patch(s, image_id, {})):
            assert members.items() <= answer.json().items()
            assert answer.json()["image_id"] == image_id
        assert by_operator.json()["user_id"] == "alice"
        await rendered(s)
        assert near(await middle(s, (await urls(s, image_id))["hero"]), BLUE)
        cached = (await s.http.get(f"/api/v1/images/{image_id}/direct?size=hero")).headers["Cache-Control"]
        assert cached == "public, max-age=3600"


async def test_later_upload_of_the_photo_takes_over_no_crop_around_another_point(start: Starter) -> None:
    async with start(images={"sizes": SIZES}) as s:
        first = await s.completed(banner())
        default = await middle(s, (await urls(s, first["image_id"]))["hero"])
        await patch(s, first["image_id"], {"focal": {"x": 1 if near(default, RED) else 0, "y": 0.5}})
        await rendered(s)
        second = await s.completed(banner())
        assert near(await middle(s, (await urls(s, second["image_id"]))["hero"]), default)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "body",
    [
        {"focal": {"x": 1.5, "y": 0}},
        {"focal": {"x": -0.1, "y": 0}},
        {"focal": {"x": 0.5}},
        {"focal": [0.5, 0.5]},
        {"focal": {"x": "0.5", "y": 0}},
        {"focal": {"x": 0.5, "y": 0, "z": 1}},
        {"colour": 1},
        [],
    ],
)
async def test_refused_bodies(shared: Service, body: Any) -> None:
    image_id = (await shared.completed(make.tiny()))["image_id"]
    answer = await patch(shared, image_id, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


async def test_who_may_change(start: Starter) -> None:
    async with start(auth={"permissions": "claims"}) as s:
        mine = s.bearer("alice", permissions=(UPLOAD, UPDATE))
        fields, files = {"bucket": "b"}, {"file": ("photo.jpg", make.tiny())}
        accepted = await s.http.post("/api/v1/images/upload", data=fields, files=files, headers=mine)
        image_id = (await s.ended(accepted))["image_id"]
        for headers, status in (
            (mine, 200),
            (s.bearer("alice", permissions=(UPLOAD,)), 403),
            (s.bearer("bob", permissions=(UPDATE,)), 403),
            (s.bearer("bob", permissions=(ADMIN,)), 403),
            (s.bearer("bob", permissions=(UPDATE, ADMIN)), 200),
            (s.bearer("eve", org_id="other", permissions=(ADMIN,)), 404),
            ({"X-None": "1"}, 401),
        ):
            answer = await patch(s, image_id, {"focal": {"x": 0.5, "y": 0.5}}, headers=headers)
            assert answer.status_code == status, answer.text
        wrong = await s.http.patch(f"/api/v1/images/{image_id}", json={}, headers=mine)
        assert wrong.status_code == 422
        assert "application/merge-patch+json" in wrong.text


async def test_job_that_is_not_completed(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        image_id = (await s.upload(make.tiny())).json()["image_id"]
        answer = await patch(s, image_id, {"focal": {"x": 0.5, "y": 0.5}})
        assert (answer.status_code, answer.json()["code"]) == (409, "not_completed")
