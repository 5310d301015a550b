"""A small application written as the guides teach, from the upload in a browser to the erasure of its user."""

from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from playwright.async_api import FilePayload, Page, expect
from starlette.applications import Starlette

from fixtures import make
from tests.conftest import WAIT_SECONDS, service
from tests.support.album import Album
from tests.support.browser import IN_BROWSER, browsing
from tests.support.listening import listening
from tests.support.receiver import SECRET
from tests.support.speed import within

pytestmark = [pytest.mark.process, *IN_BROWSER]
PHOTOS = 3
NAMES = [f"{number}.jpg" for number in range(PHOTOS)]
BLURRED = "one => getComputedStyle(one).backgroundImage.startsWith('url(\"data:image/png') && one.complete"


async def heard(album: Album, kind: str, count: int) -> set[str]:
    """The images of these messages, once there are so many."""
    with within(WAIT_SECONDS):
        while len(found := {image_id for told, image_id in album.heard.values() if told == kind}) < count:
            await anyio.sleep(0.02)
    return found


async def uploaded(page: Page) -> set[str]:
    """The images, once the page shows them."""
    files: list[FilePayload] = [
        {"name": name, "mimeType": "image/jpeg", "buffer": make.jpeg(90 + number, 60)}
        for number, name in enumerate(NAMES)
    ]
    await page.get_by_label("Photos").set_input_files(files)
    images = page.locator("img[data-seen='accepted placeholder thumbnail completed']")
    await expect(images).to_have_count(PHOTOS)
    for number in range(PHOTOS):
        await page.wait_for_function(BLURRED, arg=await images.nth(number).element_handle())
    return set(await images.evaluate_all("all => all.map(one => one.id)"))


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
async def test_from_the_upload_to_the_erasure(private: bool, tmp_path: Path) -> None:
    outer = Starlette()
    async with listening(outer) as origin:
        hook = {"name": "album", "url": f"{origin}/hooks", "secret": SECRET, "allow_private": True}
        sections: dict[str, Any] = {"webhooks": {"endpoints": [hook]}, "storage": {"signed_urls": private}}
        async with service(tmp_path, server={"cors_origins": [origin]}, **sections) as s, listening(s.app) as url:
            operator = s.operator["Authorization"].removeprefix("Bearer ")
            album = Album(url, s.tokens.issue("ann"), operator, SECRET)
            outer.router.routes.extend(album.app().routes)
            async with browsing(origin) as visit, httpx.AsyncClient(base_url=origin) as app:
                await visit.page.goto(origin)
                shown = await uploaded(visit.page)
                assert await heard(album, "image.completed", PHOTOS) == shown
                forged = await app.post("/hooks", content=b"{}", headers={"webhook-id": "msg_1"})
                assert (forged.status_code, album.refused) == (400, 1)

                listed = (await app.get("/photos")).json()
                assert {one["image_id"] for one in listed} == shown
                assert {one["original_filename"] for one in listed} == set(NAMES)
                first = listed[0]["image_id"]
                assert (await app.post(f"/photos/{first}/expire")).status_code == 200
                with within(WAIT_SECONDS):
                    while len((await app.get("/photos")).json()) == PHOTOS:
                        await anyio.sleep(0.05)
                await s.state.jobs.expiry.sweep()
                assert await heard(album, "image.expired", 1) == {first}

                report = (await app.delete("/account")).json()
                assert (report["state"], report["counts"]["images"]) == ("done", PHOTOS - 1), report
                assert (await app.get("/photos")).json() == []
                assert await heard(album, "image.deleted", PHOTOS - 1) == shown - {first}
                assert s.stored() == [] and visit.console_errors == []
