"""The page of pictures beside a great many images, in Chromium: its first grid, and scrolling, from a trace."""

import json
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from playwright.async_api import CDPSession, Page, Route

from fixtures import make
from tests.support.browser import browsing
from tests.support.dashboard_page import JSON, TOKEN
from tests.support.server_process import ServerProcess

ROWS = 200
CATEGORIES = "devtools.timeline,toplevel,v8,disabled-by-default-devtools.timeline"
SCRIPT = frozenset({"FunctionCall", "EvaluateScript", "v8.run", "FireAnimationFrame", "EventDispatch", "RunMicrotasks"})
# When the first picture of the grid is on the page, in milliseconds since the navigation began.
FIRST_GRID = """new MutationObserver((_, observer) => {
    if (!document.querySelector('.tile')) return;
    observer.disconnect();
    requestAnimationFrame(() => { window.firstGrid = performance.now(); });
}).observe(document, { childList: true, subtree: true });"""
PAINTED = """() => new Promise(done => new PerformanceObserver(list => {
    const found = list.getEntriesByName('first-contentful-paint');
    if (found.length) done(found[0].startTime);
}).observe({ type: 'paint', buffered: true }))"""


async def never(_: Route) -> None:
    """An answer that does not come."""


# A row each frame; gives the most image nodes that there were.
SCROLL = """rows => new Promise(done => {
    let most = 0, seen = 0, before = -1, still = 0;
    const step = () => {
        most = Math.max(most, document.images.length);
        const row = document.querySelector('.row');
        seen += scrollY === before ? 0 : 1;
        still = scrollY === before ? still + 1 : 0;
        before = scrollY;
        if (seen > rows || still > 600) return done({ most, seen });
        scrollBy(0, row.getBoundingClientRect().height + 6);
        requestAnimationFrame(step);
    };
    step();
})"""


@dataclass(frozen=True, slots=True)
class Scrolled:
    """`longest_ms` is that of the longest task with a script, and `busy_ms` the processor time of the dearest one."""

    longest_ms: float
    busy_ms: float
    image_nodes: int
    rows: int


@asynccontextmanager
async def visitor(server: ServerProcess) -> AsyncIterator[Page]:
    """A signed-in page for which every variant is one small picture: the rows of the table have no files."""
    small = make.encoded(make.photo(64, 48), "WEBP")
    async with browsing(server.url) as visit:
        page = visit.page
        proof = json.dumps({"token": TOKEN})
        await page.context.request.post(f"{server.url}/api/v1/operator/login", data=proof, headers=JSON)

        async def answer(route: Route) -> None:
            await route.fulfill(body=small, content_type="image/webp")

        await page.route("**/direct?*", answer)
        await page.add_init_script(FIRST_GRID)
        yield page


async def first_grid_ms(page: Page, server: ServerProcess) -> float:
    await page.goto(f"{server.url}/dashboard/images")
    found: float = await (await page.wait_for_function("window.firstGrid")).json_value()
    return found


async def first_paint_ms(page: Page, server: ServerProcess) -> float:
    """When the first words or pictures were painted, though no script has arrived."""
    await page.route("**/*.js*", never)
    await page.goto(f"{server.url}/dashboard/images", wait_until="commit")
    painted = await page.evaluate(PAINTED)
    await page.unroute("**/*.js*", never)
    return float(painted)


async def scrolled(page: Page, server: ServerProcess, rows: int = ROWS) -> Scrolled:
    await first_grid_ms(page, server)
    cdp = await page.context.new_cdp_session(page)
    events: list[dict[str, Any]] = []
    cdp.on("Tracing.dataCollected", lambda part: events.extend(part["value"]))
    await cdp.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": _traced()})
    found = await page.evaluate(SCROLL, rows)
    await _ended(cdp, page)
    tasks = script_tasks(events)
    longest = max(task["dur"] for task in tasks) / 1000
    busy = max(task.get("tdur", task["dur"]) for task in tasks) / 1000
    return Scrolled(longest, busy, found["most"], found["seen"])


def _traced() -> dict[str, Any]:
    return {"includedCategories": CATEGORIES.split(",")}


async def _ended(cdp: CDPSession, page: Page) -> None:
    complete: list[bool] = []
    cdp.on("Tracing.tracingComplete", lambda _: complete.append(True))
    await cdp.send("Tracing.end")
    while not complete:
        await page.evaluate("0")
    await cdp.detach()


def script_tasks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks of the page's main thread in which a script ran."""
    scripts = [one for one in events if one["name"] in SCRIPT and one.get("ph") == "X"]
    threads = {(one["pid"], one["tid"]) for one in scripts}
    tasks = [one for one in events if one["name"].endswith("RunTask") and "dur" in one]
    tasks = [one for one in tasks if (one["pid"], one["tid"]) in threads]
    starts = sorted((one["pid"], one["tid"], one["ts"]) for one in scripts)
    return [task for task in tasks if _has_script(task, starts)]


def _has_script(task: dict[str, Any], starts: list[tuple[int, int, float]]) -> bool:
    key = (task["pid"], task["tid"], task["ts"])
    place = bisect_left(starts, key)
    return place < len(starts) and starts[place][:2] == key[:2] and starts[place][2] <= task["ts"] + task["dur"]
