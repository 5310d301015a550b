"""The pages of care in a real browser."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Dialog, Page, expect

from fixtures import make
from imgsvc.access.operator_auth import operator_token
from imgsvc.storage.local import LocalStorage
from tests.support.axe import assert_accessible
from tests.support.browser import IN_BROWSER, Visit, browsing, wide
from tests.support.dashboard_page import JSON, TOKEN
from tests.support.listening import listening
from tests.support.maintenance import keeping
from tests.support.server_process import InlineServer, ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
HOOKS = json.dumps([{"name": "app", "url": "https://127.0.0.1:9/x", "secret": "whsec_" + "A" * 40}])
PAGES = ("", "/webhooks", "/keys", "/users")
HOSTILE = "<img src=x onerror=alert(1)>مستخدم'"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("care"), OPERATOR_TOKEN=TOKEN, IMGSVC_WEBHOOKS=HOOKS) as server:
        for number, user in enumerate(("alice", HOSTILE)):
            server.job_ended(server.upload(make.jpeg(64, 48, seed=number), user).json()["job_id"])
        yield server


@asynccontextmanager
async def care(server: ServerProcess, page: str, **context: Any) -> AsyncIterator[Visit]:
    async with browsing(server.url, **context) as visit:
        proof = json.dumps({"token": TOKEN})
        await visit.page.context.request.post(f"{server.url}/api/v1/operator/login", data=proof, headers=JSON)
        await visit.page.goto(f"{server.url}/dashboard/care{page}")
        yield visit


def accepting(page: Page) -> list[str]:
    """Answer every question with yes; returns the questions."""
    asked: list[str] = []

    async def accept(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await dialog.accept()

    page.on("dialog", accept)
    return asked


async def test_task_of_the_storage_is_started_and_its_findings_are_shown(service: ServerProcess) -> None:
    async with care(service, "") as visit:
        page = visit.page
        await page.locator("#verify-digests").focus()
        await page.keyboard.press("Space")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        task = page.locator("[data-key='task']")
        await expect(task).to_contain_text("verify")
        await expect(task).to_contain_text("✓done")
        await expect(task).to_contain_text("images2")
        await page.get_by_label("To the backend").fill("nowhere")
        await page.get_by_role("button", name="Move").click()
        await expect(task).to_contain_text("migrate")
        visit.assert_clean()


class Waiting(LocalStorage):
    """It waits where a file's size is asked for, as a slow disk does."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = asyncio.Event()

    async def size(self, bucket: str, key: str) -> int | None:
        self.asked.set()
        await asyncio.Event().wait()
        return await super().size(bucket, key)


async def test_task_of_the_storage_is_cancelled(tmp_path: Path) -> None:
    storage = Waiting(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s, listening(s.app) as url, browsing(url) as visit:
        await s.completed(make.jpeg(64, 48))
        page, proof = visit.page, json.dumps({"token": operator_token(s.settings)})
        await page.context.request.post(f"{url}/api/v1/operator/login", data=proof, headers=JSON)
        await page.goto(f"{url}/dashboard/care")
        await page.get_by_role("button", name="Check").click()
        task = page.locator("[data-key='task']")
        await expect(task).to_contain_text("running")
        await storage.asked.wait()
        await task.get_by_role("button", name="Cancel").click()
        await expect(task).to_contain_text("cancelled")
        await expect(task.get_by_role("button", name="Cancel")).to_have_count(0)
        assert (await s.http.get("/api/v1/operator/storage/task", headers=s.operator)).json()["state"] == "cancelled"
        visit.assert_clean()


async def test_key_is_shown_once_and_revoked(service: ServerProcess) -> None:
    async with care(service, "/keys") as visit:
        page = visit.page
        await page.get_by_label("Name of the application").fill(HOSTILE)
        await page.get_by_label("User that it acts as").fill("shop")
        await page.get_by_label("Only these buckets").fill("holiday team/a")
        await page.keyboard.press("Enter")
        key = await page.locator("#created code").text_content()
        assert key and key.startswith("imgk_")
        headers = {"Authorization": f"Bearer {key}"}
        ticket = f"{service.url}/api/v1/images/tickets"
        assert service.http.post(ticket, json={"bucket": "other"}, headers=headers).status_code == 403
        assert service.http.post(ticket, json={"bucket": "holiday"}, headers=headers).status_code == 201
        await page.get_by_role("button", name="I have it").click()
        await expect(page.locator("#created code")).to_have_count(0)
        await expect(page.locator("main")).to_contain_text(HOSTILE)
        await expect(page.get_by_role("table", name="Tickets")).to_contain_text("holiday")
        asked = accepting(page)
        await page.get_by_role("button", name="Revoke: key").click()
        await expect(page.locator("main")).to_contain_text(re.compile(r"revoked (just now|[0-9.]+ (s|min) ago)"))
        assert HOSTILE in asked[0]
        assert service.http.post(ticket, json={"bucket": "holiday"}, headers=headers).status_code == 401
        assert key not in await page.content() and await page.locator("[onerror]").count() == 0
        visit.assert_clean()


async def test_webhook_is_tested_and_its_log_is_shown(service: ServerProcess) -> None:
    async with care(service, "/webhooks") as visit:
        page = visit.page
        await page.get_by_role("button", name="Send a test: webhook app").click()
        await expect(page.locator(".said").first).to_contain_text("Not delivered: the address is not allowed")
        await page.get_by_role("button", name="Send given-up deliveries again").click()
        await expect(page.locator(".said").nth(1)).to_contain_text("wait again.")
        await page.reload()
        await expect(page.get_by_role("table", name="Delivery log of app")).to_contain_text("image.ready")
        visit.assert_clean()


async def test_person_is_erased_after_the_name_was_written_twice(service: ServerProcess) -> None:
    service.job_ended(service.upload(make.jpeg(64, 48, seed=3), "bob").json()["job_id"])
    async with care(service, "/users") as visit:
        page = visit.page
        asked = accepting(page)
        await page.locator("#erase-user").fill("bob")
        await page.locator("#erase-again").fill("bo")
        await page.get_by_role("button", name="Erase").click()
        await expect(page.locator(".said")).to_have_text("The two names of the user differ.")
        await page.locator("#erase-again").fill("bob")
        await page.get_by_role("button", name="Erase").click()
        await expect(page.get_by_role("table", name="Erasures")).to_be_visible()
        assert asked == ["Erase everything of bob of default-org?"]
        users = page.get_by_role("table", name="Users")
        await expect(users).to_contain_text("alice")
        await users.get_by_role("link", name="alice").click()
        await expect(page.locator("#end")).to_have_text("That is all: 1 picture.")
        visit.assert_clean()


async def test_axe_finds_nothing(service: ServerProcess) -> None:
    async with care(service, PAGES[0]) as visit:
        for page in PAGES:
            if page != PAGES[0]:
                await visit.page.goto(f"{service.url}/dashboard/care{page}")
            for width in (390, 1280):
                await wide(visit.page, width)
                await assert_accessible(visit.page, f"care{page}, {width}")
