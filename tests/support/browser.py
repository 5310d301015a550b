"""A real Chromium for the tests of our pages: what it complains about and whom it asks are noted."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, async_playwright, expect

from tests.support.speed import seconds

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LIMIT_SECONDS = 20
FITS = "width => innerWidth === width && document.documentElement.scrollWidth <= width"
Test = TypeVar("Test", bound=Callable[..., object])


@dataclass
class Visit:
    """A fresh profile's first page. `console_errors` holds script errors and violated policies too."""

    page: Page
    origin: str
    console_errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        context.on("request", lambda request: self.requested.append(request.url))
        context.on("console", self._console)
        context.on("weberror", lambda error: self.console_errors.append(str(error.error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console_errors.append(f"{message.text} ({message.location['url']})")

    @property
    def foreign(self) -> list[str]:
        """Requests that left our origin."""
        ours = (f"{self.origin}/", "data:", f"blob:{self.origin}/")
        return [url for url in self.requested if not url.startswith(ours)]

    def assert_clean(self) -> None:
        """No error in the console, and no request to another server."""
        assert self.console_errors == []
        assert self.foreign == []
        assert self.requested


class Chromium:
    """One browser for all tests of this process, on the loop that lasts as long; started when it is first used."""

    def __init__(self) -> None:
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    async def browser(self) -> Browser:
        executable = next(filter(None, map(shutil.which, NAMES)), None)
        if executable is None:
            pytest.skip("no browser is installed: ./run test installs chromium")
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        if self._browser is None or not self._browser.is_connected():
            self._browser = await self._playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        return self._browser

    async def close(self) -> None:
        if self._browser:
            await self._browser.close()
        if self._playwright:
            await self._playwright.stop()
        self._browser = self._playwright = None


chromium = Chromium()
IN_BROWSER = (pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("browser_until_the_end"))


def in_browser(test: Test) -> Test:
    for mark in IN_BROWSER:
        test = mark(test)
    return test


@asynccontextmanager
async def browsing(origin: str, width: int = 1280, height: int = 900, **context: Any) -> AsyncIterator[Visit]:
    """A page of a fresh profile, for tests with the marks IN_BROWSER.

    `origin` is what may be asked; keywords go to Playwright's `new_context`.
    """
    fresh = await (await chromium.browser()).new_context(viewport={"width": width, "height": height}, **context)
    try:
        limit = seconds(LIMIT_SECONDS)
        fresh.set_default_timeout(limit * 1000)
        expect.set_options(timeout=limit * 1000 / 2)
        visit = Visit(await fresh.new_page(), origin)
        visit.watch(fresh)
        yield visit
    finally:
        await fresh.close()


async def fits(page: Page, width: int) -> None:
    """Wait until the page is this wide and nothing is wider: its script may lay it out again. Raises TimeoutError."""
    await page.wait_for_function(FITS, arg=width)
