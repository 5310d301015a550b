"""The page of pictures in a real browser: the grid, its filters, keys and touch."""

import asyncio
import re

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.axe import assert_accessible
from tests.support.browser import IN_BROWSER, browsing, fits, wide
from tests.support.dashboard_page import behind_prefix
from tests.support.gallery import COUNT, HOSTILE, LOADED, ended, opened, picture, pictures, sign_in
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
WIDTHS = (1280, 390)


async def held_back(page: Page, addresses: str) -> asyncio.Event:
    """Hold the page's requests to these addresses back until the event is set."""
    arrived = asyncio.Event()

    async def late(route: Route) -> None:
        await arrived.wait()
        await route.continue_()

    await page.route(addresses, late)
    return arrived


async def test_grid_is_justified_and_goes_on_while_it_is_scrolled(gallery: ServerProcess) -> None:
    async with pictures(gallery) as visit:
        page = visit.page
        await expect(picture(page, HOSTILE)).to_be_visible()
        await page.wait_for_function(LOADED, arg=await page.locator(".tile img").nth(1).element_handle())
        assert await page.evaluate(FAULTS_OF_ROWS) == []
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await ended(page, COUNT)
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await expect(picture(page, "IMG_0000.jpg")).to_be_visible()
        assert await page.evaluate(FAULTS_OF_ROWS) == []
        await page.set_viewport_size({"width": 390, "height": 800})
        await expect(page.locator(".tile").first).to_be_attached()
        await page.wait_for_function("document.querySelector('#grid').clientWidth < 390")
        await fits(page, 390)
        visit.assert_clean()


async def test_colours_are_shown_until_a_picture_is_there(gallery: ServerProcess) -> None:
    """And not behind it then: it may be transparent."""
    async with pictures(gallery, "?q=nothing") as visit:
        page = visit.page
        arrived = await held_back(page, "**/direct?*")
        await opened(page, gallery, "?q=IMG_000")
        await expect(page.locator(".tile canvas")).to_have_count(10)
        assert await page.locator(".tile a[style]").count() == 10
        arrived.set()
        await expect(page.locator(".tile canvas")).to_have_count(0)
        await page.wait_for_function(LOADED, arg=await page.locator(".tile img").first.element_handle())
        assert await page.evaluate(GROUNDS) == ["rgba(0, 0, 0, 0)"]
        await page.unroute_all()


GROUNDS = """() => [...new Set([...document.querySelectorAll('.tile a')]
    .map(one => getComputedStyle(one).backgroundColor))]"""


# Rows that are not as wide as the grid, or whose pictures overlap. The last one may be short.
FAULTS_OF_ROWS = """() => {
    const grid = document.querySelector('#grid').getBoundingClientRect();
    return [...document.querySelectorAll('.row')].slice(0, -1).filter(row => {
        const boxes = [...row.children].map(one => one.getBoundingClientRect());
        const apart = boxes.every((box, at) => at === 0 || Math.abs(box.left - boxes[at - 1].right - 6) <= 1.5);
        return !apart || Math.abs(boxes[0].left - grid.left) > 1 || Math.abs(boxes.at(-1).right - grid.right) > 1;
    }).map(row => row.outerHTML.slice(0, 200));
}"""


async def test_everything_is_done_by_keyboard(gallery: ServerProcess) -> None:
    async with pictures(gallery) as visit:
        page = visit.page
        await page.locator("#filters button").focus()
        for _ in range(2):
            await page.keyboard.press("Tab")
        await expect(picture(page, HOSTILE)).to_be_focused()
        await page.keyboard.press("Tab")  # one stop for all pictures
        await page.wait_for_function("!document.querySelector('#grid').contains(document.activeElement)")
        await page.keyboard.press("Shift+Tab")
        await page.wait_for_function("document.querySelector('#grid').contains(document.activeElement)")
        await page.keyboard.press("Home")
        await expect(picture(page, HOSTILE)).to_be_focused()
        await page.keyboard.press("ArrowRight")
        await expect(picture(page, "IMG_0068.jpg")).to_be_focused()
        await page.keyboard.press("ArrowDown")
        await page.wait_for_function("document.activeElement.closest('.row')?.ariaRowIndex === '2'")
        await page.keyboard.press("ArrowUp")
        for _ in range(3):  # the end is loaded as it comes near
            await page.keyboard.press("End")
            await ended(page, COUNT)
        await expect(picture(page, "IMG_0000.jpg")).to_be_focused()
        await expect(picture(page, "IMG_0000.jpg")).to_be_in_viewport()
        await page.keyboard.press("Space")
        await page.keyboard.press("ArrowLeft")
        await page.keyboard.press("Shift+Space")
        await expect(page.locator("#selected")).to_have_text("2 pictures selected")
        await page.keyboard.press("Escape")
        await expect(page.locator("#selection")).to_be_hidden()
        await page.keyboard.press("Enter")
        await expect(page.locator("#shown-name")).to_have_text("IMG_0001.jpg")
        await expect(page.locator("#shown-name")).to_be_focused()
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#shown-name")).to_have_text("IMG_0000.jpg")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#shown-announcements")).to_have_text("This is the last picture.")
        await page.keyboard.press("Escape")
        await expect(page.locator("#lightbox")).to_be_hidden()
        await expect(picture(page, "IMG_0000.jpg")).to_be_focused()
        visit.assert_clean()


async def test_focus_stays_where_it_is_while_more_is_loaded(gallery: ServerProcess) -> None:
    """On the last picture of those that are there, whose row grows."""
    async with pictures(gallery, "?q=nothing") as visit:
        page = visit.page
        arrived = await held_back(page, "**/api/v1/operator/images?*after=*")
        await opened(page, gallery)
        await page.locator("#grid a").first.focus()
        await page.keyboard.press("End")
        focused = await page.evaluate("document.activeElement.ariaLabel")
        arrived.set()
        await ended(page, COUNT)
        await expect(picture(page, focused)).to_be_focused()
        await page.keyboard.press("End")
        await expect(picture(page, "IMG_0000.jpg")).to_be_focused()
        await page.unroute_all()
        visit.assert_clean()


async def test_everything_is_done_by_touch(gallery: ServerProcess) -> None:
    """Taps, swipes of a real touch screen, and the boxes, which are there without a pointer that hovers."""
    async with pictures(gallery, "?q=IMG_000", width=390, height=800, has_touch=True, is_mobile=True) as visit:
        page, name = visit.page, visit.page.locator("#shown-name")
        touch = await page.context.new_cdp_session(page)

        async def swipe(begin: int, end: int) -> None:
            moved = {"x": begin, "y": 250, "xDistance": end - begin, "gestureSourceType": "touch", "preventFling": True}
            await touch.send("Input.synthesizeScrollGesture", moved)

        box = page.get_by_role("checkbox", name="Select IMG_0008.jpg")
        assert await box.evaluate("box => Number(getComputedStyle(box).opacity)") > 0.8
        await picture(page, "IMG_0009.jpg").tap()
        await expect(name).to_have_text("IMG_0009.jpg")
        await swipe(300, 100)
        await expect(name).to_have_text("IMG_0008.jpg")
        await swipe(100, 300)
        await expect(name).to_have_text("IMG_0009.jpg")
        await page.get_by_role("button", name="Close").tap()
        await expect(page.locator("#lightbox")).to_be_hidden()
        await box.tap()
        await picture(page, "IMG_0007.jpg").tap()  # while any are selected a tap selects
        await expect(page.locator("#selected")).to_have_text("2 pictures selected")
        await page.get_by_role("button", name="Select none").tap()
        await expect(page.locator("#selection")).to_be_hidden()
        visit.assert_clean()


async def test_filters_lead_back_and_work_behind_a_prefix(gallery: ServerProcess) -> None:
    async with browsing(gallery.url) as visit:
        page = visit.page
        await sign_in(page, gallery)
        await behind_prefix(page, "/photos")
        await page.goto(f"{gallery.url}/photos/dashboard/images?q=nothing")
        await page.get_by_label("User").fill("alice")
        await page.get_by_label("Name begins with").fill("img_000")
        await page.get_by_role("button", name="Filter").click()
        await ended(page, 5)
        assert page.url.endswith("/photos/dashboard/images?q=img_000&user=alice")
        await page.wait_for_function(LOADED, arg=await page.locator(".tile img").first.element_handle())
        await page.get_by_label("State").select_option("failed")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.locator("#end")).to_have_text("No picture matches.")
        await page.go_back()
        await ended(page, 5)
        await expect(page.get_by_label("User")).to_have_value("alice")
        visit.assert_clean()


async def test_what_does_not_load_is_said_and_tried_again(gallery: ServerProcess) -> None:
    async with pictures(gallery, "?q=nothing") as visit:
        page = visit.page
        await page.route("**/api/v1/operator/images?*after=*", lambda route: route.fulfill(status=503, body="{}"))
        await opened(page, gallery)
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await expect(page.locator("#end")).to_contain_text(
            "More could not be loaded: no response behind the proxy (503)"
        )
        await page.unroute_all()
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("#end")).to_have_text(re.compile("That is all"))
        await page.route("**/direct?*", lambda route: route.fulfill(status=403))
        await opened(page, gallery, "?q=IMG_0001")
        await expect(page.locator(".waits")).to_have_text("not loaded")


async def test_axe_finds_nothing(gallery: ServerProcess) -> None:
    async with pictures(gallery) as visit:
        page = visit.page
        for width in WIDTHS:
            await wide(page, width)
            await page.get_by_role("checkbox", name=f"Select {HOSTILE}").check()
            await picture(page, "IMG_0066.jpg").focus()
            await page.keyboard.press("Delete")
            await assert_accessible(page, f"grid, {width}")
            await page.get_by_role("button", name="Undo").click()
        await picture(page, HOSTILE).focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#shown-body")).to_contain_text("The upload was accepted")
        for state in ("lightbox", "wrong filter"):
            if state == "wrong filter":
                await opened(page, gallery, "?status=lost")
            for width in WIDTHS:
                await wide(page, width)
                await assert_accessible(page, f"{state}, {width}")
