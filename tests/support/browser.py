"""A real Chromium for the tests of our pages: what it complains about and whom it asks are noted."""

import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    ViewportSize,
    async_playwright,
    expect,
)

from tests.support.speed import seconds

# Without windows a page costs half as much processor time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A page of a test lives for a second: to optimise its scripts costs more than they save by it.
UNOPTIMIZED = "--js-flags=--no-opt --no-maglev"
LIMIT_SECONDS = 20
SITE = "http://127.0.0.1/"  # of all ports; nothing is asked for it
CLOCKED_VISITS = 8  # each page repeats all that was done to the clock of its profile before
VIEWPORT: ViewportSize = {"width": 1280, "height": 900}
FITS = "width => innerWidth === width && document.documentElement.scrollWidth <= width"
Test = TypeVar("Test", bound=Callable[..., object])


@dataclass
class Visit:
    """An empty profile's first page. `console_errors` holds script errors and violated policies too."""

    page: Page
    origin: str
    console_errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    @contextmanager
    def watched(self, context: BrowserContext) -> Iterator[None]:
        handlers: dict[Any, Callable[[Any], None]] = {
            "request": lambda request: self.requested.append(request.url),
            "console": self._console,
            "weberror": lambda error: self.console_errors.append(str(error.error)),
        }
        for event, handler in handlers.items():
            context.on(event, handler)
        try:
            yield
        finally:
            for event, handler in handlers.items():
                context.remove_listener(event, handler)

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


@dataclass
class Profile:
    """It is used again: a fresh one costs a second of processor time, since a renderer starts and compiles all scripts.

    `kept` is an empty page on the site of the services. What it opens is shown by its renderer, which so lives on.
    """

    context: BrowserContext
    kept: Page
    visits: int = 0

    async def page(self) -> Page:
        """A new one, which knows of no opener."""
        async with self.context.expect_page() as opened:
            await self.kept.evaluate("() => { open('about:blank').opener = null; }")
        return await opened.value

    async def empty(self, origin: str) -> None:
        """Close its pages, and remove what sites have left."""
        self.visits += 1
        for page in self.context.pages:
            if page is not self.kept:
                await page.close()
        await self.context.clear_cookies()
        await self.context.clear_permissions()
        devtools = await self.context.new_cdp_session(self.kept)
        await devtools.send("Network.clearBrowserCache")
        await devtools.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
        await devtools.detach()


class Chromium:
    """One browser for all tests of this process, on the loop that lasts as long; started when it is first used.

    With `optimizes`, set before that, it compiles scripts as it does for people: where pages are measured.
    """

    def __init__(self) -> None:
        self.optimizes = False
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._profiles: defaultdict[str, list[Profile]] = defaultdict(list)  # {options: those that are not in use}

    async def browser(self) -> Browser:
        executable = next(filter(None, map(shutil.which, NAMES)), None)
        if executable is None:
            pytest.skip("no browser is installed: ./run test installs chromium")
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        if self._browser is None or not self._browser.is_connected():
            arguments = ARGUMENTS if self.optimizes else (*ARGUMENTS, UNOPTIMIZED)
            self._browser = await self._playwright.chromium.launch(executable_path=executable, args=arguments)
            self._profiles.clear()
        return self._browser

    @asynccontextmanager
    async def profile(self, origin: str, clock: bool, options: dict[str, Any]) -> AsyncIterator[Profile]:
        """An empty profile with these options of Playwright's `new_context`. A test that fails ends it."""
        browser, idle = await self.browser(), self._profiles[repr((clock, sorted(options.items())))]
        profile = idle.pop() if idle else await self._new_profile(browser, options)
        try:
            if clock:
                await profile.context.clock.install()
            yield profile
            if clock:
                await profile.context.clock.resume()
            await profile.empty(origin)
        except BaseException:
            await profile.context.close()
            raise
        if clock and profile.visits >= CLOCKED_VISITS:
            await profile.context.close()
        else:
            idle.append(profile)

    async def _new_profile(self, browser: Browser, options: dict[str, Any]) -> Profile:
        context = await browser.new_context(viewport=VIEWPORT, **options)
        kept = await context.new_page()
        await kept.route(SITE, lambda route: route.fulfill(content_type="text/html", body=""))
        await kept.goto(SITE)
        await kept.unroute(SITE)
        return Profile(context, kept)

    async def close(self) -> None:
        if self._browser:
            await self._browser.close()
        if self._playwright:
            await self._playwright.stop()
        self._browser = self._playwright = None
        self._profiles.clear()


chromium = Chromium()
IN_BROWSER = (pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("browser_until_the_end"))


def in_browser(test: Test) -> Test:
    for mark in IN_BROWSER:
        test = mark(test)
    return test


@asynccontextmanager
async def browsing(
    origin: str, width: int = 1280, height: int = 900, *, clock: bool = False, **options: Any
) -> AsyncIterator[Visit]:
    """A page of an empty profile, for tests with the marks IN_BROWSER.

    `origin` is what may be asked; `clock`: it can be moved on; keywords go to Playwright's `new_context`.
    """
    async with chromium.profile(origin, clock, options) as profile:
        context = profile.context
        limit = seconds(LIMIT_SECONDS)
        context.set_default_timeout(limit * 1000)
        expect.set_options(timeout=limit * 1000 / 2)
        visit = Visit(await profile.page(), origin)
        await visit.page.set_viewport_size({"width": width, "height": height})
        with visit.watched(context):
            yield visit


async def fits(page: Page, width: int) -> None:
    """Wait until the page is this wide and nothing is wider: its script may lay it out again. Raises TimeoutError."""
    if not await page.evaluate(FITS, width):  # it mostly does at once, and a wait is dearer
        await page.wait_for_function(FITS, arg=width)


async def wide(page: Page, width: int) -> None:
    """Make the page this wide, and wait until it is laid out."""
    await page.set_viewport_size({"width": width, "height": 900})
    await fits(page, width)
