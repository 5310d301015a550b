"""One picture large, in a real browser: its facts, its addresses, and what is changed there."""

import json
import re

import pytest
from playwright.async_api import expect

from tests.support.browser import IN_BROWSER
from tests.support.dashboard_page import TOKEN
from tests.support.gallery import HOSTILE, LOADED, SIZES, opened, picture, pictures
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
ONE = "?q=%3Cimg"  # of HOSTILE: a grid of all takes as long as what is tested


async def test_one_picture_with_all_that_is_known(gallery: ServerProcess) -> None:
    async with pictures(gallery, ONE) as visit:
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
        await page.locator("#variant").select_option("thumbnail")
        await expect(body.locator("code", has_text="size=thumbnail").first).to_be_visible()
        assert await page.locator("[onerror], main b, img[src='x']").count() == 0
        visit.assert_clean()


async def test_addresses_of_a_picture_are_copied(gallery: ServerProcess) -> None:
    async with pictures(gallery, ONE) as visit:
        page = visit.page
        await picture(page, HOSTILE).click()
        body = page.locator("#shown-body")
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


async def test_address_of_a_picture_opens_it(gallery: ServerProcess) -> None:
    """By the browser's history, where the grid does not have the picture, and where it is gone."""
    async with pictures(gallery, ONE) as visit:
        page = visit.page
        await picture(page, HOSTILE).click()
        await expect(page.locator("#shown-name")).to_have_text(HOSTILE)
        shown = re.search(r"#([0-9a-f-]{36})$", page.url)
        assert shown
        await page.go_back()
        await expect(page.locator("#lightbox")).to_be_hidden()
        await page.go_forward()
        await expect(page.locator("#shown-name")).to_have_text(HOSTILE)
        await opened(page, gallery, f"?q=img_0001#{shown[1]}")  # a link to a picture that the grid does not have
        await expect(page.locator("#shown-name")).to_have_text(HOSTILE)
        await page.get_by_role("button", name="Close").click()
        await expect(page.locator("#lightbox")).to_be_hidden()
        await opened(page, gallery, "?q=img_0002#00000000-0000-4000-8000-000000000000")
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
