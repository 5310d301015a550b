"""Deletion of pictures in a real browser: it waits ten seconds, in which it can be undone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import expect

from tests.support.browser import IN_BROWSER, Visit, browsing
from tests.support.dashboard_page import TOKEN
from tests.support.gallery import ended, opened, picture, sign_in, uploaded
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
NAMES = [f"delete_{number}.jpg" for number in range(3)]


@asynccontextmanager
async def three_pictures(gallery: ServerProcess) -> AsyncIterator[Visit]:
    """The page with three pictures of its own, and a clock that stands still."""
    ends = [gallery.job_ended(uploaded(gallery, name, 200 + number)) for number, name in enumerate(NAMES)]
    async with browsing(gallery.url, clock=True) as visit:
        page = visit.page
        await sign_in(page, gallery)
        await opened(page, gallery, "?q=delete_")
        await ended(page, 3)
        await page.clock.pause_at(await page.evaluate("Date.now() + 1000"))
        yield visit
    images = {"image_ids": [job["image_id"] for job in ends]}
    operator = {"Authorization": f"Bearer {TOKEN}"}
    gallery.http.post(f"{gallery.url}/api/v1/operator/images/delete", json=images, headers=operator).raise_for_status()


async def test_deletion_can_be_undone_for_ten_seconds(gallery: ServerProcess) -> None:
    async with three_pictures(gallery) as visit:
        page = visit.page
        await page.get_by_role("checkbox", name="Select delete_0.jpg").check()
        await page.get_by_role("checkbox", name="Select delete_2.jpg").click(modifiers=["Shift"])
        await expect(page.locator("#selected")).to_have_text("3 pictures selected")
        await page.get_by_role("button", name="Delete", exact=True).click()
        waiting = page.locator("#deletions li")
        await expect(waiting).to_contain_text("Deleting 3 pictures in 10 s.")
        await expect(page.locator(".tile.leaving")).to_have_count(3)
        await page.clock.run_for(9_500)
        await expect(waiting).to_contain_text("in 1 s.")
        await waiting.get_by_role("button", name="Undo").click()
        await expect(page.locator(".tile.leaving")).to_have_count(0)
        await page.clock.run_for(60_000)
        assert not [one for one in visit.requested if one.endswith("/delete")]
        visit.assert_clean()


async def test_deletions_follow_after_ten_seconds(gallery: ServerProcess) -> None:
    """One by the large picture's button, one by a key in the grid."""
    async with three_pictures(gallery) as visit:
        page, waiting = visit.page, visit.page.locator("#deletions li")
        await picture(page, NAMES[0]).click()
        await page.get_by_role("button", name="Delete this picture").click()
        await expect(page.locator("#lightbox")).to_be_hidden()
        await page.get_by_role("checkbox", name=f"Select {NAMES[1]}").check()
        await page.keyboard.press("Delete")
        await expect(waiting).to_have_count(2)
        await page.clock.run_for(10_000)
        await ended(page, 1)
        await expect(page.locator(".tile")).to_have_count(1)
        await expect(waiting).to_have_count(0)
        await opened(page, gallery, "?q=delete_")
        await ended(page, 1)
        visit.assert_clean()
