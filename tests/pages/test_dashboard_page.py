"""What an operator does on the dashboard, in a real browser, on a real service."""

import asyncio
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from fixtures import make
from imgsvc.intake.file_types import UNKNOWN
from tests.support.browser import IN_BROWSER, browsing
from tests.support.dashboard_page import SHOWN, TOKEN, behind_prefix, drop, opened, refreshed_until, signed_in
from tests.support.s3 import S3Server
from tests.support.server_process import InlineServer, ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
# As where the page came over plain HTTP.
NO_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })"
LOADED = "image => image.complete && image.naturalWidth > 0"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, IMGSVC_JOBS_MAX_ATTEMPTS="1") as server:
        yield server


async def test_first_upload_is_dropped_on_the_page_and_seen(fresh: ServerProcess) -> None:
    async with signed_in(fresh) as visit:
        page = visit.page
        await expect(page.locator("#verdict-line")).to_have_text("All is well.")
        line = page.locator("[data-key=recent] code")
        await expect(line).to_contain_text(f"-F file=@photo.jpg {fresh.url}/api/v1/images/upload")
        files = [(f"holiday {number}.jpg", make.tiny(number)) for number in range(2)]
        await drop(page, *files, ("notes <b>.txt", b"not an image"))
        uploads = page.locator("#uploads > li")
        await expect(uploads).to_have_count(3)
        for number in range(2):
            upload = uploads.filter(has_text=f"holiday {number}.jpg")
            await expect(upload.get_by_role("link")).to_have_text(["original", "large", "medium", "thumbnail"])
            thumbnail = upload.get_by_alt_text(f"Thumbnail of holiday {number}.jpg")
            await page.wait_for_function(LOADED, arg=await thumbnail.element_handle())
        refused = uploads.filter(has_text="notes <b>.txt")
        await expect(refused).to_contain_text("Unsupported file type: application/octet-stream. Allowed: image/jpeg")
        await expect(refused).to_contain_text(f". This is {UNKNOWN.words}. {UNKNOWN.advice}")
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.evaluate("window.readCopied = navigator.clipboard.readText.bind(navigator.clipboard)")
        for size in ("thumbnail", "large"):
            await uploads.last.get_by_role("button", name=f"Copy the address of {size} of holiday 0.jpg").click()
            await expect(page.locator("#announcements")).to_have_text("Copied.")
            copied = await page.evaluate("readCopied()")
            assert f"_{size}.webp" in copied
            assert fresh.http.get(copied).headers["Content-Type"] == "image/webp"
            await page.evaluate(NO_CLIPBOARD)
        jobs = page.locator("[data-key=recent] tbody tr")
        await expect(jobs).to_have_count(2)
        await refreshed_until(page, jobs.get_by_text("completed"), 2)
        await page.wait_for_function(LOADED, arg=await jobs.locator("img").last.element_handle())
        assert [error for error in visit.console_errors if "415" not in error] == []
        assert visit.foreign == []


async def test_pictures_in_the_object_storage_are_seen(s3: S3Server, tmp_path: Path) -> None:
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, **s3.environment(s3.bucket())) as server:
        assert server.job_ended(server.upload(make.tiny()).json()["job_id"])["status"] == "completed"
        async with signed_in(server) as visit:
            picture = visit.page.locator("[data-key=recent] tbody img")
            await visit.page.wait_for_function(LOADED, arg=await picture.element_handle())
            await expect(visit.page.locator("section[data-key=storage]")).to_contain_text(s3.url)
            assert visit.console_errors == []
            await visit.page.goto(f"{server.url}/dashboard/images")
            tile = visit.page.locator(".tile img")
            await visit.page.wait_for_function(LOADED, arg=await tile.element_handle())
            await visit.page.get_by_role("gridcell").get_by_role("link").click()
            await visit.page.wait_for_function(LOADED, arg=await visit.page.locator("#stage img").element_handle())
            await expect(visit.page.locator("#shown-body")).to_contain_text("The upload was accepted")
            assert visit.console_errors == []
            assert {url.split("/")[2] for url in visit.foreign} == {s3.url.split("/")[2]}


async def test_failed_job_is_shown_with_its_reason_and_retried(fresh: ServerProcess) -> None:
    folder = fresh.folder / "storage" / "b"
    folder.write_bytes(b"in the way")
    failed = fresh.job_ended(fresh.upload(make.tiny()).json()["job_id"])
    assert (failed["status"], failed["error_code"]) == ("failed", "storage_error")
    async with signed_in(fresh) as visit:
        page = visit.page
        await expect(page.locator("#verdict-line")).to_contain_text("Degraded: jobs failed that can be retried.")
        group = page.locator(".reasons > li")
        await expect(group).to_contain_text("The variants could not be stored.")
        await group.get_by_role("link", name="1 job").click()
        await page.get_by_role("link", name=f"photo.jpg, job {failed['job_id']}").click()
        await expect(page.locator("[data-key=failure]")).to_contain_text("the upload is still kept.")
        folder.unlink()
        await page.get_by_role("button", name="Retry").click()
        await expect(page.locator("#said")).to_have_text("The job is being retried.")
        assert fresh.job_ended(failed["job_id"])["status"] == "completed"
        await expect(page.locator("[data-key=head]")).to_contain_text("completed")  # it follows the job by itself
        await expect(page.locator("[data-key=events]")).to_contain_text("The operator asked for another attempt.")
        await opened(page, fresh.url)
        await expect(page.locator("#verdict-line")).to_have_text("All is well.")
        visit.assert_clean()


async def test_service_that_hangs_or_is_gone_is_said_to_be(fresh: ServerProcess) -> None:
    async with signed_in(fresh) as visit:
        page, line, gone = visit.page, visit.page.locator("#verdict-line"), visit.page.locator("#gone")
        fresh.signal(signal.SIGSTOP)
        await page.clock.fast_forward(5_500)
        await expect(gone.locator("h1")).to_have_text(re.compile(r"^No response since \d\d:\d\d:\d\d\.$"))
        fresh.signal(signal.SIGCONT)
        await page.clock.fast_forward(5_500)
        await expect(gone).to_have_count(0)
        await expect(line).to_have_text("All is well.")
        fresh.signal(signal.SIGKILL)
        fresh.ended()
        await page.clock.fast_forward(5_500)
        await expect(gone).to_contain_text("No response since")
        await page.clock.fast_forward(30_000)
        await expect(gone).to_contain_text(re.compile(r"What is shown is from \d\d:\d\d:\d\d, (3[5-9]|4\d) s ago\."))
        shown = await page.evaluate("getComputedStyle(document.querySelector('.numbers section')).borderTopStyle")
        assert shown == "dashed"
        fresh.start(int(fresh.url.rsplit(":", 1)[1]))
        await page.clock.fast_forward(5_500)
        await expect(gone).to_have_count(0)
        await expect(line).to_have_text("All is well.")  # the session is a row, and goes on
        assert fresh.run("operator", "sessions", "revoke").stdout == "1 session ended\n"
        await page.clock.fast_forward(5_500)
        await expect(gone).to_contain_text("The session has ended.")
        await page.get_by_role("link", name="Sign in again").click()
        await page.get_by_label("Operator token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(line).to_have_text("All is well.")


async def test_link_signs_in_once_and_leaves_the_address(fresh: ServerProcess) -> None:
    link = f"{fresh.url}/dashboard#code={fresh.login_code(TOKEN)}"
    async with browsing(fresh.url) as visit:
        await visit.page.goto(link)
        await visit.page.wait_for_selector(SHOWN)
        assert visit.page.url == f"{fresh.url}/dashboard"
        another = fresh.login_code(TOKEN)
        await visit.page.goto(f"{fresh.url}/dashboard/#code={another}")
        await visit.page.wait_for_selector(SHOWN)
        assert visit.page.url == f"{fresh.url}/dashboard/"
        await visit.page.goto("about:blank")
        await visit.page.goto(f"{fresh.url}/dashboard#code=%")  # a link that was mangled on its way
        await visit.page.wait_for_selector(SHOWN)
        assert visit.page.url == f"{fresh.url}/dashboard"
        await visit.page.get_by_role("button", name="Sign out").click()
        await visit.page.wait_for_url("**/dashboard/login")
        for used in (link, f"{fresh.url}/dashboard#code={another}"):
            await visit.page.goto("about:blank")
            await visit.page.goto(used)
            await expect(visit.page.locator("#said")).to_contain_text("used before")
            assert "code" not in visit.page.url
        await visit.page.get_by_label("Operator token").fill("wrong")
        await visit.page.get_by_role("button", name="Sign in").click()
        await expect(visit.page.locator("#said")).to_have_text("That is not the operator token of this service.")
        assert visit.foreign == []


async def test_page_works_behind_a_path_prefix(fresh: ServerProcess) -> None:
    async with browsing(fresh.url) as visit:
        page, root = visit.page, f"{fresh.url}/photos/imgsvc"
        await behind_prefix(page, "/photos/imgsvc")
        await page.goto(f"{root}/dashboard#code={fresh.login_code(TOKEN)}")
        await page.wait_for_selector(SHOWN)
        await drop(page, ("a.jpg", make.tiny()))
        link = page.locator("#uploads").get_by_role("link", name="thumbnail")
        assert str(await link.get_attribute("href")).startswith(f"{root}/storage/photos/processed/")
        thumbnail = page.get_by_alt_text("Thumbnail of a.jpg")
        await page.wait_for_function(LOADED, arg=await thumbnail.element_handle())
        await expect(page.locator("[data-key=recent] tbody tr")).to_have_count(1)
        for path in ("dashboard/", "dashboard/login"):
            await page.goto(f"{root}/{path}")
            assert await page.evaluate("[...document.styleSheets].at(-1).cssRules.length") > 4
        await opened(page, root)
        assert [url for url in visit.requested if not url.startswith(f"{root}/")] == []


async def test_private_pictures_are_seen_by_the_operator_only(tmp_path: Path) -> None:
    """Behind a path prefix too, and with a public address elsewhere, which the page must not ask."""
    public = {"PUBLIC_URL": "https://cdn.example/pics", "OPERATOR_PUBLIC": "true"}
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, IMGSVC_STORAGE_SIGNED_URLS="true", **public) as server:
        async with browsing(server.url) as visit:
            page, root = visit.page, f"{server.url}/photos/imgsvc"
            await behind_prefix(page, "/photos/imgsvc")
            await page.goto(f"{root}/dashboard#code={server.login_code(TOKEN)}")
            await page.wait_for_selector(SHOWN)
            await drop(page, ("a.jpg", make.tiny()))
            link = page.locator("#uploads").get_by_role("link", name="large")
            handed_out = str(await link.get_attribute("href"))
            assert handed_out.startswith(f"{public['PUBLIC_URL']}/storage/photos/processed/large/")
            assert server.http.get(handed_out.replace(public["PUBLIC_URL"], server.url)).status_code == 200
            thumbnail = page.get_by_alt_text("Thumbnail of a.jpg")
            await page.wait_for_function(LOADED, arg=await thumbnail.element_handle())
            recent = page.locator("[data-key=recent] tbody tr")
            await expect(recent.locator("img")).to_have_count(1)
            await page.wait_for_function(LOADED, arg=await recent.locator("img").element_handle())
            large = str(await recent.locator("a.thumb").evaluate("one => one.href"))
            assert server.http.get(large.replace(root, server.url)).headers["Content-Type"] == "image/webp"
            visit.assert_clean()
            await page.get_by_role("button", name="Sign out").click()
            await page.wait_for_url("**/dashboard/login")
            await opened(page, root)
            await expect(recent).to_have_count(1)
            await expect(recent.locator("img, a.thumb")).to_have_count(0)
        assert "signature" not in server.log.read_text()


async def test_reader_of_a_public_dashboard_sees_and_can_not_act(tmp_path: Path) -> None:
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, OPERATOR_PUBLIC="true") as server:
        shutil.rmtree(tmp_path / "storage" / "b", ignore_errors=True)
        async with browsing(server.url) as visit:
            await opened(visit.page, server.url)
            await expect(visit.page.locator("#verdict-line")).to_have_text("All is well.")
            await expect(visit.page.locator("#upload")).to_have_count(0)
            await expect(visit.page.get_by_role("button", name="Sign out")).to_be_hidden()
            await visit.page.get_by_role("link", name="Sign in").click()
            await visit.page.get_by_label("Operator token").fill(TOKEN)
            await visit.page.keyboard.press("Enter")
            await expect(visit.page.locator("#upload")).to_be_visible()
            visit.assert_clean()


async def test_token_is_not_taken_before_the_script_runs(fresh: ServerProcess) -> None:
    """Enter would submit the form by the browser itself, which the policy forbids: nothing would come of it."""
    async with browsing(fresh.url) as visit:
        asked = asyncio.Event()

        async def late(route: Route) -> None:
            await asked.wait()
            await route.continue_()

        await visit.page.route("**/login.js", late)
        await visit.page.goto(f"{fresh.url}/dashboard/login", wait_until="commit")
        await expect(visit.page.get_by_label("Operator token")).to_be_disabled()
        await expect(visit.page.get_by_role("button", name="Sign in")).to_be_disabled()
        asked.set()
        await expect(visit.page.get_by_label("Operator token")).to_be_enabled()
