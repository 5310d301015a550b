"""Every page, narrow and wide, light and dark: axe, the keyboard, the policy, and hostile words."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.support.axe import assert_accessible
from tests.support.browser import IN_BROWSER, Visit, browsing, wide
from tests.support.dashboard_page import JSON, TOKEN
from tests.support.every_page import PAGES, Hostile, Shown, filled
from tests.support.scrolling import PAINTED, never
from tests.support.server_process import InlineServer, ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
EDGES = (320, 820, 2560)
WIDTHS = (390, 1280)
PRESSES, TOGETHER = 60, 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("pages"), OPERATOR_TOKEN=TOKEN) as one:
        yield one


@pytest.fixture(scope="module")
def hostile(server: ServerProcess) -> Hostile:
    return filled(server)


async def enter(visit: Visit, server: ServerProcess) -> None:
    login = f"{server.url}/api/v1/operator/login"
    await visit.page.context.request.post(login, data=json.dumps({"token": TOKEN}), headers=JSON)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def visits(server: ServerProcess, browser_until_the_end: None) -> AsyncIterator[dict[bool, Visit]]:
    """{whether it is signed in: a visit that goes from page to page}: a fresh profile costs as much as three pages."""
    async with browsing(server.url) as operator, browsing(server.url) as stranger:
        await enter(operator, server)
        yield {True: operator, False: stranger}


@asynccontextmanager
async def visited(server: ServerProcess, hostile: Hostile, shown: Shown, visit: Visit) -> AsyncIterator[Visit]:
    """The page as it is when it has just come, and nothing of the one before it in what was noted."""
    await visit.page.set_viewport_size({"width": 1280, "height": 900})
    await visit.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    await visit.page.goto("about:blank")
    visit.console_errors.clear()
    visit.requested.clear()
    await visit.page.goto(server.url + shown.of(hostile))
    await visit.page.wait_for_selector(shown.ready)
    yield visit


@pytest.mark.parametrize("name", PAGES)
async def test_page(name: str, server: ServerProcess, hostile: Hostile, visits: dict[bool, Visit]) -> None:
    """Its words, then the keyboard, then each size and scheme: one visit, since coming costs more than looking."""
    shown = PAGES[name]
    async with visited(server, hostile, shown, visits[shown.signed_in]) as visit:
        await words_are_words_and_nobody_else_is_asked(name, visit)
        if name != "documentation":
            await goes_by_keyboard(name, visit.page)
        await fits_every_size_and_scheme(name, visit.page, shown.part)


async def words_are_words_and_nobody_else_is_asked(name: str, visit: Visit) -> None:
    text = await visit.page.inner_text("body")
    assert ("<img src=x onerror=alert(1)>" in text) == PAGES[name].says, name
    planted = "[onerror], [onclick], main script, main img[src='x'], main b, main iframe"
    assert await visit.page.locator(planted).count() == 0
    wrong = [error for error in visit.console_errors if "status of 40" not in error]
    assert wrong == [] and visit.foreign == [] and visit.requested


async def fits_every_size_and_scheme(name: str, page: Page, part: str) -> None:
    if part != "html":
        assert await page.evaluate(DIFFERING, part) == [], name
    await page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    for width in (*EDGES, *WIDTHS):
        await wide(page, width)
        assert await page.evaluate(OUTSIDE) == [], (name, width)
    await page.evaluate(EMPTY_SWAGGER_UI)
    for width in reversed(WIDTHS):
        await wide(page, width)
        await assert_accessible(page, f"{name}, {width}", part)


# Elements beyond the part, as the service sent them, that are others than on the page without a query: axe skips them.
DIFFERING = """async part => {
    const ALIKE = ['id', 'class', 'style', 'role', 'aria-label', 'aria-current'];
    const [ours, others] = await Promise.all([location.search, ''].map(async query => {
        const text = await (await fetch(location.pathname + query)).text();
        const sent = new DOMParser().parseFromString(text, 'text/html');
        sent.querySelectorAll(part).forEach(one => one.remove());
        const alike = one => [one.tagName, ...ALIKE.map(name => one.getAttribute(name))].join();
        return [...sent.querySelectorAll('*')].map(alike);
    }));
    return ours.filter((one, place) => one !== others[place]).concat(others.slice(ours.length));
}"""
# axe would go through its 3,600 elements, of which it must report none.
EMPTY_SWAGGER_UI = "document.querySelectorAll('.swagger-ui').forEach(one => one.replaceChildren())"
# What is pressed, and is not wholly on the screen, though nothing around it can be scrolled.
OUTSIDE = """() => [...document.querySelectorAll('a, button, input, select, h1, h2')].filter(one => {
    const box = one.getBoundingClientRect();
    if (!box.width || one.closest('.unseen, .skip, [hidden], .swagger-ui')) return false;
    for (let up = one.parentElement; up; up = up.parentElement) {
        if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX)) return false;
    }
    return box.right > innerWidth + 1 || box.left < -1;
}).map(one => one.outerHTML.slice(0, 120))"""


async def goes_by_keyboard(name: str, page: Page) -> None:
    """Whatever can be pressed is reached in the order of the page, and is seen when it has the focus."""
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") in ("skip", ""), name
    wanted = await page.evaluate(PRESSABLE)
    await page.evaluate(NOTE_FOCUS)
    for _ in range(0, PRESSES, TOGETHER):
        for _ in range(TOGETHER):
            await page.keyboard.down("Tab")  # held down: half the messages of as many presses
        if await page.evaluate("window.left"):
            break
    await page.keyboard.up("Tab")
    reached, unmarked = await page.evaluate("[window.reached, window.unmarked]")
    assert unmarked == [], name
    assert reached >= min(wanted, PRESSES) - 1, (name, reached, wanted)


PRESSABLE = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
    .filter(one => one.getClientRects().length && !one.disabled).length"""
# Notes where the focus goes until it leaves the page. Chromium marks the parts of a date by itself, inside the field.
NOTE_FOCUS = """() => {
    const note = active => {
        const seen = active.type === 'file' ? active.nextElementSibling : active;
        const marked = active.type === 'date' || getComputedStyle(seen).outlineStyle !== 'none';
        if (!marked) window.unmarked.push(active.outerHTML.slice(0, 120));
    };
    Object.assign(window, { reached: 0, unmarked: [], left: false });
    note(document.activeElement);
    document.addEventListener('keydown', () => { if (!window.left) window.reached += 1; });
    document.addEventListener('focusin', event => { if (!window.left) note(event.target); });
    document.addEventListener('focusout', event => { window.left ||= !event.relatedTarget; });
}"""


@pytest.mark.parametrize(("colour", "scheme"), [("#eee", "light"), ("#333", "dark")])
async def test_words_that_are_hard_to_see_are_found(
    colour: str, scheme: str, server: ServerProcess, hostile: Hostile, visits: dict[bool, Visit]
) -> None:
    async with visited(server, hostile, PAGES["start"], visits[False]) as visit:
        await visit.page.evaluate("colour => { document.querySelector('main h1').style.color = colour; }", colour)
        with pytest.raises(AssertionError, match=f"start, {scheme}: Found 1 "):
            await assert_accessible(visit.page, "start")


async def test_skip_link_leads_over_the_header(
    server: ServerProcess, hostile: Hostile, visits: dict[bool, Visit]
) -> None:
    async with visited(server, hostile, PAGES["jobs"], visits[True]) as visit:
        page = visit.page
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "content"


@pytest.mark.parametrize(
    "name", ["overview", "jobs", "a failed job", "pictures", "storage tasks", "error codes", "start"]
)
async def test_page_is_painted_before_a_script_arrives(name: str, server: ServerProcess, hostile: Hostile) -> None:
    async with browsing(server.url) as visit:
        await enter(visit, server)
        await visit.page.route("**/*.js*", never)
        await visit.page.goto(server.url + PAGES[name].of(hostile), wait_until="commit")
        assert await visit.page.evaluate(PAINTED) > 0
        assert await visit.page.inner_text("h1")
        assert await visit.page.locator("#first img, main a").count() > 0


async def test_pages_are_whole_without_scripts(server: ServerProcess, hostile: Hostile) -> None:
    async with browsing(server.url, java_script_enabled=False) as visit:
        await enter(visit, server)
        for path, words in (
            ("/dashboard", "completed"),
            ("/dashboard/jobs", "image_unreadable"),
            (f"/dashboard/jobs/{hostile.jobs['failed']}", "Why it failed"),
        ):
            await visit.page.goto(server.url + path)
            assert words in await visit.page.inner_text("main")
        await visit.page.goto(f"{server.url}/dashboard/jobs")
        await visit.page.select_option("#status", "completed")
        await visit.page.get_by_role("button", name="Show").click()
        assert "status=completed" in visit.page.url
        assert await visit.page.locator("tbody tr").count() == 1
