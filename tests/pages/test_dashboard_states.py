"""The overview in every state: narrow, by keyboard, read aloud, with hostile words, and kept fresh."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.async_api import Locator, Page, Route, expect

from fixtures import make
from imgsvc.http.dashboard.models import DashboardData
from tests.support.axe import assert_accessible
from tests.support.browser import IN_BROWSER, LIMIT_SECONDS, fits
from tests.support.dashboard_page import (
    REFRESHED,
    TOKEN,
    changed,
    drop,
    emptied,
    failure,
    refreshed,
    refreshed_until,
    signed_in,
    troubled,
)
from tests.support.server_process import InlineServer, ServerProcess
from tests.support.speed import within

pytestmark = [pytest.mark.process, *IN_BROWSER]
HOSTILE = "<img src=x onerror=alert(1)>\u202eمستخدم" + "x" * 300
KEPT_WORDS = ("status", "state", "timestamp", "backend")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("served"), OPERATOR_TOKEN=TOKEN) as server:
        for user in ("alice", "<b>bob</b>مستخدم"):
            server.job_ended(server.upload(make.jpeg(320, 200), user).json()["job_id"])
        yield server


def hostile(data: DashboardData) -> DashboardData:
    """Every word of the service replaced, but those that it chooses itself."""
    words = DashboardData.model_validate(_replaced(troubled(data).model_dump()))
    words.configuration = {HOSTILE: {HOSTILE: HOSTILE}}
    return words


def _replaced(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _replaced(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, name) for one in value]
    kept = name in KEPT_WORDS or name.endswith(("_at", "_created", "_logged", "start"))
    return HOSTILE if isinstance(value, str) and not kept else value


STATES: dict[str, Callable[[DashboardData], DashboardData]] = {
    "as it is": lambda data: data,
    "empty": emptied,
    "troubled": troubled,
    "hostile": hostile,
}


def card(page: Page, key: str) -> Locator:
    return page.locator(f"section[data-key='{key}']")


async def show(page: Page, state: str) -> None:
    await changed(page, STATES[state])
    await refreshed(page)
    await page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")


async def test_hostile_words_appear_as_text(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        await expect(card(visit.page, "recent").get_by_text("<b>bob</b>مستخدم")).to_be_visible()
        await show(visit.page, "hostile")
        for key in (
            "errors",
            "retrying",
            "recent",
            "workers",
            "storage",
            "limits",
            "cluster",
            "redis",
            "configuration",
        ):
            await expect(card(visit.page, key)).to_contain_text(HOSTILE)
        assert await visit.page.locator("[onerror], main b, img[src='x']").count() == 0
        assert [error for error in visit.console_errors if "%3Cimg" not in error] == []
        assert visit.foreign == []


@pytest.mark.parametrize(("fail_open", "words"), [("false", "get 503"), ("true", "may do everything")])
async def test_authorization_server_that_is_away_is_named(served: ServerProcess, fail_open: str, words: str) -> None:
    def away(data: DashboardData) -> DashboardData:
        data.configuration["auth"]["fail_open"] = fail_open
        return troubled(data)

    async with signed_in(served) as visit:
        await changed(visit.page, away)
        await refreshed(visit.page)
        await expect(visit.page.locator("#verdict-line")).to_contain_text("the authorization server does not respond")
        await expect(visit.page.locator("main")).to_contain_text(words)


async def test_nothing_is_wider_than_the_screen(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        for state in STATES:
            await show(visit.page, state)
            for width in (360, 720, 820, 1280):
                await visit.page.set_viewport_size({"width": width, "height": 800})
                await fits(visit.page, width)
                assert await visit.page.evaluate(OVERFLOWING) == [], (state, width)
        await visit.page.set_viewport_size({"width": 360, "height": 800})
        await visit.page.goto(f"{served.url}/dashboard/login")
        await fits(visit.page, 360)


# Cards, and whatever in them reaches beyond their edge.
OVERFLOWING = """() => [...document.querySelectorAll('main section')].flatMap(card => {
    const edge = card.getBoundingClientRect().right + 1;
    return [...card.querySelectorAll('td, dd, p, button, bdi:not(code bdi), .state')]
        .filter(one => !one.closest('.unseen') && one.getBoundingClientRect().right > edge)
        .map(one => `${card.getAttribute('aria-labelledby')}: ${one.outerHTML.slice(0, 80)}`);
})"""


async def test_everything_is_reached_and_done_by_keyboard(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page = visit.page
        await show(page, "troubled")
        await page.evaluate("scrollTo(0, 0)")
        await page.evaluate("document.activeElement.blur()")
        names, outlined = [], []
        for _ in range(80):
            await page.keyboard.press("Tab")
            name, outline = await page.evaluate(FOCUSED)
            if name == "BODY":
                break
            names.append(name)
            outlined.append(outline)
        assert all(outlined), dict(zip(names, outlined, strict=True))
        reached = ("pause", "sign-out", "files", "bucket", "All jobs", "1 job", "failed jobs", "Week")
        assert [name for name in reached if name not in names] == []
        await page.locator("#pause").focus()
        await page.keyboard.press("Space")
        await expect(page.get_by_role("switch", name="Refresh every 5 s", checked=False)).to_be_focused()
        await expect(page.locator("#countdown")).to_contain_text("paused, from ")


FOCUSED = """() => {
    const active = document.activeElement;
    const seen = active.id === 'files' ? active.nextElementSibling : active;
    const name = active.id || active.dataset.action || (active === document.body ? 'BODY' : active.textContent);
    return [name, getComputedStyle(seen).outlineStyle !== 'none'];
}"""


async def test_refresh_keeps_focus_scroll_selection_and_nodes(served: ServerProcess) -> None:
    async with signed_in(served, height=500) as visit:
        page = visit.page
        await changed(page, troubled)
        await refreshed(page)
        link = card(page, "errors").get_by_role("link", name="1 job")
        await link.focus()
        await page.evaluate("document.getSelection().selectAllChildren(document.querySelector('.why'))")
        await page.evaluate("document.querySelector('[data-key=recent] tbody tr:last-child').mark = 'the same'")
        await page.locator("#uploads").evaluate("one => one.append('kept')")
        details = card(page, "configuration").locator("details")
        await details.evaluate("one => { one.open = true; }")
        top = await page.evaluate("scrollY")
        assert top > 0
        upload = served.upload(make.jpeg(320, 200)).json()
        served.job_ended(upload["job_id"])
        await changed(page, lambda data: _with_one_more(troubled(data)))
        await refreshed_until(page, page.locator(f"[data-key='{upload['job_id']}']"))
        await expect(page.locator(".reasons > li")).to_have_count(2)
        await expect(link.last).to_be_focused()
        assert await details.evaluate("one => one.open")
        assert await page.evaluate("getSelection().toString()") == "The variants could not be stored."
        same = "document.querySelector('[data-key=recent] tbody tr:last-child').mark"
        assert await page.evaluate(same) == "the same"
        await expect(page.locator("#uploads")).to_have_text("kept")
        moved = await page.evaluate("scrollY") - top
        assert 0 <= moved < 250  # at most by what came in above


def _with_one_more(data: DashboardData) -> DashboardData:
    data.errors.recent_failures.insert(0, failure("another", error_code="timeout"))
    return data


async def test_numbers_are_fresh_every_five_seconds_and_not_while_nobody_looks(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page, countdown = visit.page, visit.page.locator("#countdown")
        asked = await _seen_to_wait(page, countdown, visit.requested)
        await refreshed(page)
        await page.evaluate(HIDE, True)
        await page.clock.fast_forward(60_000)
        assert _asked(visit.requested) == asked + 1
        async with page.expect_response(REFRESHED):
            await page.evaluate(HIDE, False)
        await page.get_by_role("switch").click()
        await page.clock.fast_forward(60_000)
        assert _asked(visit.requested) == asked + 2
        async with page.expect_response(REFRESHED):
            await page.get_by_role("switch").click()


async def _seen_to_wait(page: Page, countdown: Locator, requested: list[str]) -> int:
    """How often was asked by a moment three seconds after a refresh, at which nothing more had been asked.

    Its clock goes on by itself: on a loaded machine the next refresh may come between two lines, and tells nothing.
    """
    with within(LIMIT_SECONDS):
        while True:
            await refreshed(page)
            began, asked = time.monotonic(), _asked(requested)
            await page.clock.fast_forward(3_000)
            await expect(countdown).to_have_text(re.compile(r"next in [12] s"))
            after = _asked(requested)
            if time.monotonic() - began < 1:
                assert after == asked
                return asked


HIDE = """hidden => {
    Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
}"""


def _asked(urls: list[str], path: str = "/dashboard") -> int:
    return sum(url.endswith(path) for url in urls)


async def test_refusals_are_shown_in_the_service_s_words(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page = visit.page
        body = json.dumps({"detail": "The request could not be answered now.", "code": "overloaded"})
        await page.route(REFRESHED, lambda route: route.fulfill(status=503, body=body))
        await refreshed(page)
        await expect(page.locator("#gone")).to_contain_text("The service has responded with errors since")
        await expect(page.locator("#gone")).to_contain_text("The request could not be answered now.")
        await page.unroute(REFRESHED)
        await refreshed(page)
        await expect(page.locator("#gone")).to_have_count(0)
        await expect(page.locator("#verdict-line")).to_have_text("All is well.")


async def test_upload_that_is_refused_for_now_can_be_sent_again(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page = visit.page
        full = json.dumps({"detail": "Rate limit exceeded. Maximum 50 uploads per hour.", "code": "rate_limited"})
        upload = "**/api/v1/images/upload"
        wait = {"Retry-After": "600"}
        await page.route(upload, lambda route: route.fulfill(status=429, body=full, headers=wait), times=1)
        await drop(page, ("a.jpg", make.jpeg(64, 48)))
        entry = page.locator("#uploads > li")
        await expect(entry).to_contain_text("Maximum 50 uploads per hour. Try again in 10 min.")
        tokens = _asked(visit.requested, "/operator/token")
        over = json.dumps({"detail": "Token expired", "code": "token_expired"})
        await page.route(upload, lambda route: route.fulfill(status=401, body=over), times=1)
        await entry.get_by_role("button", name="Send a.jpg again").click()
        await expect(entry.get_by_role("link", name="thumbnail")).to_be_visible()
        assert _asked(visit.requested, "/operator/token") == tokens + 1


async def test_token_field_where_the_keys_are_not_ours(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page = visit.page

        async def foreign(route: Route) -> None:
            answer = await route.fetch()
            text = (await answer.text()).replace('data-tokens="ours"', 'data-tokens="pasted"')
            await route.fulfill(response=answer, body=text)

        await page.route(REFRESHED, foreign)
        await page.reload()
        await page.wait_for_selector("#live:visible")
        photo = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": make.jpeg(64, 48)}
        await page.set_input_files("#files", photo)  # type: ignore[arg-type]
        await expect(page.locator("#uploads")).to_contain_text("Paste an upload token first")
        await page.get_by_label("Upload token").fill("not.a.token")
        await page.get_by_role("button", name="Send a.jpg again").click()
        await expect(page.locator("#uploads")).to_contain_text("Invalid token")


async def test_axe_finds_nothing(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page = visit.page
        for state in ("empty", "troubled", "hostile"):
            await show(page, state)
            await assert_accessible(page, state)
        await page.unroute(REFRESHED)
        await page.route(REFRESHED, lambda route: route.abort())
        await page.clock.fast_forward(5_500)
        await page.wait_for_selector("#gone")
        await assert_accessible(page, "gone")
        await page.unroute_all()
        await page.goto(f"{served.url}/dashboard/login")
        await page.get_by_label("Operator token").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#said")).to_contain_text("not the operator token")
        await assert_accessible(page, "login")


def _many_failures(data: DashboardData) -> DashboardData:
    hour = data.processing.performance.last_hour
    hour.total, hour.completed, hour.failed = 60, 40, 20
    data.errors.recent_failures = [
        failure(
            job_id=f"{number:08}-1111-4111-8111-111111111111",
            original_filename=f"photo <{number}>.jpg",
            error_code="image_unreadable",
            why="The image is damaged.",
            can_retry=False,
        )
        for number in range(8)
    ]
    return data


async def test_many_failures_turn_the_page_amber_and_are_one_entry(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page = visit.page
        await changed(page, _many_failures)
        await refreshed(page)
        await expect(page.locator("#verdict-line")).to_have_text("Degraded: many jobs fail.")
        await expect(page.locator("#advice")).to_contain_text("20 of the 60 jobs that ended in the last hour failed.")
        group = page.locator(".reasons > li")
        await expect(group).to_have_count(1)
        await expect(group).to_contain_text("The image is damaged.")
        await expect(group).to_contain_text("photo <0>.jpg, photo <1>.jpg, photo <2>.jpg and 5 others")
        link = group.get_by_role("link", name="8 jobs")
        assert str(await link.get_attribute("href")).endswith("?status=failed&error_code=image_unreadable")


def _growing(data: DashboardData) -> DashboardData:
    data.queue.waiting, data.queue.waiting_ten_minutes_ago, data.queue.grows = 54, 12, True
    return data


async def test_queue_that_grows_turns_the_page_amber(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        await changed(visit.page, _growing)
        await refreshed(visit.page)
        await expect(visit.page.locator("body")).to_have_class("warn")
        await expect(visit.page.locator("#verdict-line")).to_have_text("Degraded: the queue grows.")
        await expect(visit.page.locator("#advice")).to_contain_text("54 jobs wait for a worker, 12 ten minutes ago")


async def test_each_figure_leads_to_what_is_behind_it(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        page = visit.page
        figure = card(page, "work").locator("a[data-key='completed']")
        count = int(await figure.locator("strong").inner_text())
        await figure.click()
        await expect(page.locator("tbody tr")).to_have_count(count)
        await page.locator("tbody tr a").first.click()
        await expect(page.locator("[data-key='events']")).to_contain_text("All variants were stored.")
        await page.get_by_role("link", name="Overview").click()
        await page.get_by_role("link", name="Week").click()
        await expect(page.locator("#range")).to_have_text("The last week")
        await expect(page.locator("#span")).to_contain_text(f"{count} completed")
        visit.assert_clean()


async def test_names_of_files_are_shown_to_the_operator(served: ServerProcess) -> None:
    async with signed_in(served) as visit:
        names = card(visit.page, "recent").locator("tbody td:first-child a:not(.thumb)")
        await expect(names.first).to_have_text(re.compile(r"\.jpg$"))
        await expect(card(visit.page, "redis")).to_have_count(0)
