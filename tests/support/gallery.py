"""A gallery of drawn pictures in a real service, and its page in a real browser."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Locator, Page, expect

from fixtures import make
from tests.support.browser import Visit, browsing
from tests.support.dashboard_page import JSON, TOKEN
from tests.support.server_process import ServerProcess, bearer

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


@asynccontextmanager
async def pictures(server: ServerProcess, query: str = "", **context: Any) -> AsyncIterator[Visit]:
    """The page of a signed-in operator, with its grid."""
    async with browsing(server.url, **context) as visit:
        await sign_in(visit.page, server)
        await opened(visit.page, server, query)
        yield visit


async def sign_in(page: Page, server: ServerProcess) -> None:
    proof = json.dumps({"token": TOKEN})
    await page.context.request.post(f"{server.url}/api/v1/operator/login", data=proof, headers=JSON)


async def opened(page: Page, server: ServerProcess, query: str = "") -> None:
    await page.goto(f"{server.url}/dashboard/images{query}")
    await page.wait_for_selector("#grid:not([hidden])", state="attached")


def picture(page: Page, name: str) -> Locator:
    return page.get_by_role("gridcell").get_by_role("link", name=name)


async def ended(page: Page, count: int) -> None:
    await expect(page.locator("#end")).to_have_text(f"That is all: {count} picture{'s' * (count > 1)}.")
