"""The page of pictures in a real browser: the grid, one picture large, and deletion."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Locator, Page, Route, expect

from fixtures import make
from tests.support.axe import assert_accessible
from tests.support.browser import IN_BROWSER, Visit, browsing, fits
from tests.support.dashboard_page import JSON, TOKEN, behind_prefix
from tests.support.server_process import InlineServer, ServerProcess, bearer

pytestmark = [pytest.mark.process, *IN_BROWSER]
SIZES = {"original": 4096, "medium": 600, "thumbnail": {"width": 100, "height": 100, "fit": "cover"}}
SHAPES = ((240, 160), (160, 240), (200, 200), (300, 100), (90, 260))
COUNT = 70  # more than the page itself has
HOSTILE = "<img src=x onerror=alert(1)>مستخدم'.jpg"
LOADED = "image => image.complete && image.naturalWidth > 0"


def uploaded(server: ServerProcess, name: str, number: int, **fields: Any) -> str:
    sent = server.http.post(
        f"{server.url}/api/v1/images/upload",
        headers=bearer("alice" if number % 2 else "bob"),
        data={"bucket": "photos", **fields},
        files={"file": (name, make.jpeg(*SHAPES[number % len(SHAPES)], seed=number), "image/jpeg")},
    )
    job: str = sent.json()["job_id"]
    return job


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("gallery")
    with InlineServer(folder, OPERATOR_TOKEN=TOKEN, IMAGE_SIZES=json.dumps(SIZES)) as server:
        jobs = [uploaded(server, f"IMG_{number:04}.jpg", number) for number in range(COUNT - 1)]
        jobs.append(uploaded(server, HOSTILE, COUNT, metadata=json.dumps({"title": HOSTILE, "tags": [1, "<b>"]})))
        for job in jobs:
            assert server.job_ended(job)["status"] == "completed"
        yield server


@asynccontextmanager
async def pictures(server: ServerProcess, query: str = "", **context: Any) -> AsyncIterator[Visit]:
    """The page of a signed-in operator, with its grid."""
    async with browsing(server.url, **context) as visit:
        proof = json.dumps({"token": TOKEN})
        await visit.page.context.request.post(f"{server.url}/api/v1/operator/login", data=proof, headers=JSON)
        await opened(visit.page, server, query)
        yield visit


async def opened(page: Page, server: ServerProcess, query: str = "") -> None:
    await page.goto(f"{server.url}/dashboard/images{query}")
    await page.wait_for_selector("#grid:not([hidden])", state="attached")


def picture(page: Page, name: str) -> Locator:
    return page.get_by_role("gridcell").get_by_role("link", name=name)


async def ended(page: Page, count: int) -> None:
    await expect(page.locator("#end")).to_have_text(f"That is all: {count} picture{'s' * (count > 1)}.")


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
    arrived = asyncio.Event()

    async def late(route: Route) -> None:
        await arrived.wait()
        await route.continue_()

    async with pictures(gallery, "?q=nothing") as visit:
        page = visit.page
        await page.route("**/direct?*", late)
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


async def test_one_picture_with_all_that_is_known(gallery: ServerProcess) -> None:
    async with pictures(gallery) as visit:
        page = visit.page
        await picture(page, HOSTILE).click()
        body = page.locator("#shown-body")
        for words in (
            "✓completed",
            "photos",
            "bob of default-org",
            "image/jpeg",
            "All about the job",
            "The upload was accepted",
        ):
            await expect(body).to_contain_text(words)
        await expect(body.get_by_role("row")).to_have_count(1 + len(SIZES))
        await expect(body.locator("dl").last).to_contain_text(f'title{HOSTILE}tags[1,"<b>"]')
        await page.wait_for_function(LOADED, arg=await page.locator("#stage img").element_handle())
        shown = re.search(r"#([0-9a-f-]{36})$", page.url)
        assert shown
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        copied = {}
        for kind in ("Address", "Markdown", "HTML", "srcset"):
            await body.get_by_role("button", name=f"Copy {kind} of original").click()
            await expect(page.locator("#shown-announcements")).to_have_text("Copied.")
            copied[kind] = await page.evaluate("navigator.clipboard.readText()")
            await expect(body.get_by_role("button", name=f"Copy {kind} of original")).to_have_text("Copied")
        assert gallery.http.get(copied["Address"]).headers["Content-Type"] == "image/webp"
        assert (
            copied["Markdown"].startswith(r"![\<img src=x onerror=alert(1)\>")
            and copied["Address"] in copied["Markdown"]
        )
        assert "<img src=x" not in copied["HTML"] and 'alt="&lt;img src=x' in copied["HTML"]
        assert f"size=medium 240w, {copied['Address']} 240w" in copied["srcset"].replace("&amp;", "&")
        await page.locator("#variant").select_option("thumbnail")
        await expect(body.locator("code", has_text="size=thumbnail").first).to_be_visible()
        await page.go_back()
        await expect(page.locator("#lightbox")).to_be_hidden()
        await page.go_forward()
        await expect(page.locator("#shown-name")).to_have_text(HOSTILE)
        assert await page.locator("[onerror], main b, img[src='x']").count() == 0
        await opened(page, gallery, f"?q=img_0001#{shown[1]}")  # a link to a picture that the grid does not have
        await expect(page.locator("#shown-name")).to_have_text(HOSTILE)
        await page.get_by_role("button", name="Close").click()
        await expect(page.locator("#lightbox")).to_be_hidden()
        await opened(page, gallery, "#00000000-0000-4000-8000-000000000000")
        await expect(page.locator("#shown-name")).to_have_text("This picture is gone.")
        assert [one for one in visit.console_errors if "404" not in one] == []
        assert visit.foreign == []


async def test_focal_point_and_expiry_are_changed(gallery: ServerProcess) -> None:
    async with pictures(gallery, "?q=IMG_0065") as visit:
        page = visit.page
        await picture(page, "IMG_0065.jpg").click()
        body = page.locator("#shown-body")
        await page.wait_for_function(LOADED, arg=await page.locator("#stage img").element_handle())
        await body.get_by_role("button", name="Set the focal point").click()
        box = await page.locator("#stage img").bounding_box()
        assert box
        await page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        await expect(body).to_contain_text(re.compile(r"25 % from the left, 50 % from the top"))
        await expect(page.locator(".cross")).to_be_visible()
        await body.get_by_role("button", name="Set the focal point").focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Enter")
        await expect(body).to_contain_text("27 % from the left")
        await expect(page.locator("#shown-announcements")).to_have_text("The focal point was saved.")
        await body.get_by_role("button", name="Use the centre of attention").click()
        await expect(body).to_contain_text("The centre of attention, as measured.")
        await page.locator("#expires").fill("2031-02-03T04:05")
        await body.get_by_role("button", name="Save").click()
        await expect(body.get_by_role("button", name="Never")).to_be_visible()
        await page.locator("#expires").fill("2001-02-03T04:05")
        await body.get_by_role("button", name="Save").click()
        await expect(page.locator("#shown-problem")).to_contain_text("must be in the future")
        await body.get_by_role("button", name="Never").click()
        await expect(body).to_contain_text("Never.")
        await expect(page.locator("#shown-problem")).to_be_hidden()
        assert [one for one in visit.console_errors if "422" not in one] == []


async def test_metadata_are_changed_line_by_line(gallery: ServerProcess) -> None:
    """A merge patch of what was changed alone; what was no text stays none."""
    async with pictures(gallery, "?q=IMG_0066") as visit:
        page = visit.page
        await picture(page, "IMG_0066.jpg").click()
        body, saved = page.locator("#shown-body"), page.locator("#shown-announcements")
        address = f"{gallery.url}/api/v1/operator/images/{page.url.split('#')[1]}"
        await body.get_by_role("button", name="Edit metadata").click()
        await expect(body.get_by_role("textbox", name="Name")).to_be_focused()
        for text in (HOSTILE, "Enter"):
            await page.keyboard.type(text) if text == HOSTILE else await page.keyboard.press(text)
        await expect(body.locator("dl").last).to_contain_text(HOSTILE)  # with an empty value
        await expect(saved).to_have_text("The metadata was saved.")
        change = {"client_metadata": {HOSTILE: None, "tags": [1, "b"], "title": "Before", "kept": {"a": 1}}}
        merge = {"Content-Type": "application/merge-patch+json", "Authorization": f"Bearer {TOKEN}"}
        assert gallery.http.patch(address, content=json.dumps(change), headers=merge).status_code == 200
        await page.reload()
        await body.get_by_role("button", name="Edit metadata").click()
        await body.get_by_role("textbox", name="Value of tags").fill('[1, "b", 2]')
        await body.get_by_role("button", name="Remove title").click()
        await body.get_by_role("button", name="Add a line").click()
        await page.keyboard.type("tags")
        await body.get_by_role("button", name="Save metadata").click()
        await expect(page.locator("#shown-problem")).to_have_text("Each name may be there once only.")
        await body.get_by_role("textbox", name="Name").last.fill("alt")
        await body.get_by_role("textbox", name="Value").last.fill("A hill")
        async with page.expect_request(lambda request: request.method == "PATCH") as sent:
            await body.get_by_role("button", name="Save metadata").click()
        members = (await sent.value).post_data_json
        assert members == {"client_metadata": {"title": None, "tags": [1, "b", 2], "alt": "A hill"}}
        await expect(body.get_by_role("button", name="Edit metadata")).to_be_focused()
        shown = gallery.http.get(address, headers={"Authorization": f"Bearer {TOKEN}"}).json()["client_metadata"]
        assert shown == {"tags": [1, "b", 2], "kept": {"a": 1}, "alt": "A hill"}
        await body.get_by_role("button", name="Edit metadata").click()
        await page.keyboard.press("Escape")
        await expect(body.get_by_role("button", name="Edit metadata")).to_be_visible()
        assert await page.locator("[onerror]").count() == 0
        visit.assert_clean()


async def test_deletion_waits_ten_seconds_and_can_be_undone(gallery: ServerProcess) -> None:
    names = [f"delete_{number}.jpg" for number in range(3)]
    for number, name in enumerate(names):
        gallery.job_ended(uploaded(gallery, name, 200 + number))
    async with browsing(gallery.url) as visit:
        page = visit.page
        await page.context.request.post(
            f"{gallery.url}/api/v1/operator/login", data=json.dumps({"token": TOKEN}), headers=JSON
        )
        await page.clock.install()
        await opened(page, gallery, "?q=delete_")
        await ended(page, 3)
        await page.get_by_role("checkbox", name="Select delete_0.jpg").check()
        await page.get_by_role("checkbox", name="Select delete_2.jpg").click(modifiers=["Shift"])
        await expect(page.locator("#selected")).to_have_text("3 pictures selected")
        await page.clock.pause_at(
            await page.evaluate("Date.now() + 1000")
        )  # from here on time passes by our word alone
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
        await picture(page, names[0]).click()
        await page.get_by_role("button", name="Delete this picture").click()
        await expect(page.locator("#lightbox")).to_be_hidden()
        await page.get_by_role("checkbox", name=f"Select {names[1]}").check()
        await page.keyboard.press("Delete")
        await expect(waiting).to_have_count(2)
        await page.clock.run_for(10_000)
        await ended(page, 1)
        await expect(page.locator(".tile")).to_have_count(1)
        await expect(waiting).to_have_count(0)
        await opened(page, gallery, "?q=delete_")
        await ended(page, 1)
        visit.assert_clean()


async def test_filters_lead_back_and_work_behind_a_prefix(gallery: ServerProcess) -> None:
    async with browsing(gallery.url) as visit:
        page = visit.page
        await page.context.request.post(
            f"{gallery.url}/api/v1/operator/login", data=json.dumps({"token": TOKEN}), headers=JSON
        )
        await behind_prefix(page, "/photos")
        await page.goto(f"{gallery.url}/photos/dashboard/images")
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
    async with pictures(gallery) as visit:
        page = visit.page
        await page.route("**/api/v1/operator/images?*after=*", lambda route: route.fulfill(status=503, body="{}"))
        await opened(page, gallery)  # it may have loaded all
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


@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing(gallery: ServerProcess, width: int) -> None:
    async with pictures(gallery, width=width, bypass_csp=True) as visit:
        page = visit.page
        await page.get_by_role("checkbox", name=f"Select {HOSTILE}").check()
        await picture(page, "IMG_0066.jpg").focus()
        await page.keyboard.press("Delete")
        await assert_accessible(page, "grid")
        await page.get_by_role("button", name="Undo").click()
        await picture(page, HOSTILE).focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#shown-body")).to_contain_text("The upload was accepted")
        await fits(page, width)
        await assert_accessible(page, "lightbox")
        await opened(page, gallery, "?status=lost")
        await assert_accessible(page, "wrong filter")
