"""A real Chromium for the tests of our pages: what it complains about and whom it asks are noted."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright

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
        """No error in the console, and nobody was asked but us."""
        assert self.console_errors == []
        assert self.foreign == []
        assert self.requested


@asynccontextmanager
async def browsing(origin: str, width: int = 1280, height: int = 900, **context: Any) -> AsyncIterator[Visit]:
    """A page in a browser of its own. `origin` is what may be asked; keywords go to Playwright's `new_context`."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no browser is installed: ./run test installs chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        try:
            fresh = await browser.new_context(viewport={"width": width, "height": height}, **context)
            fresh.set_default_timeout(LIMIT_SECONDS * 1000)
            visit = Visit(await fresh.new_page(), origin)
            visit.watch(fresh)
            yield visit
        finally:
            await browser.close()
