"""/static/imgsvc.js in a real browser, on a page of another origin, as the guide teaches."""

import asyncio
import base64
import math
from collections import Counter
from itertools import product
from pathlib import Path
from random import Random

import pytest
from playwright.async_api import FilePayload, Route, expect

from fixtures import make
from tests.conftest import WAIT_SECONDS, service
from tests.support.browser import IN_BROWSER, browsing
from tests.support.listening import listening
from tests.support.papers import TOUR_HOST, runs
from tests.support.speed import within
from tests.support.upload_form import GUIDE, upload_form

pytestmark = [pytest.mark.process, *IN_BROWSER]
LOADED = "images => images.length && images.every(one => one.complete && one.naturalWidth > 0)"
FILES = 20


def photo(number: int) -> FilePayload:
    return {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": make.jpeg(64 + number, 48)}


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
async def test_form_of_the_guide_uploads_twenty_files_at_once(
    private: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with upload_form(tmp_path, monkeypatch, storage={"signed_urls": private}) as form:
        await form.page.get_by_label("Photos").set_input_files([photo(number) for number in range(FILES)])
        items = form.page.locator("li")
        await expect(items.get_by_text("is there")).to_have_count(FILES)
        await expect(items.get_by_role("button")).to_have_count(0)
        images = "() => [...document.images]"
        await form.page.wait_for_function(f"({LOADED})(({images})())")
        addresses = await form.page.evaluate(f"({images})().map(one => one.src)")
        assert len(set(addresses)) == FILES and all("_thumbnail.webp" in one for one in addresses)
        assert all(("signature=" in one) == private and one.startswith(form.url) for one in addresses)
        assert await form.page.locator("progress").evaluate_all("bars => bars.every(bar => bar.value === 1)")
        colours = await items.locator("img").evaluate_all("all => all.map(one => one.style.backgroundColor)")
        assert all(one.startswith("rgb(") for one in colours)
        protocols = await form.page.evaluate("performance.getEntries().map(one => one.nextHopProtocol).filter(Boolean)")
        assert set(protocols) == {"http/1.1"}
        kinds = Counter(
            "events" if "/events" in url else "poll" if "/jobs/" in url else "" for url in form.visit.foreign
        )
        assert 1 <= kinds["events"] < FILES and (private or not kinds["poll"])
        assert [error for error in form.visit.console_errors if "favicon" not in error] == []


async def test_form_stops_sends_again_and_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gets lost on the way is sent again, and makes one image."""
    async with upload_form(tmp_path, monkeypatch, uploads={"max_size_mb": 1}) as form:
        page, items = form.page, form.page.locator("li")
        held: list[Route] = []
        uploads = f"{form.url}/api/v1/images/tickets/**"

        async def hold(route: Route) -> None:
            held.append(route)

        await page.route(uploads, hold)
        await page.get_by_label("Photos").set_input_files([photo(0)])
        with within(WAIT_SECONDS):
            while not held:
                await asyncio.sleep(0.01)
        await items.get_by_role("button", name="Stop").click()
        await expect(items).to_contain_text("0.jpg: The upload was aborted.")
        await page.unroute(uploads)

        async def lose_first(route: Route) -> None:
            """The service has it, and its receipt does not arrive."""
            if held:
                held.clear()
                await route.fetch()
                await route.abort()
            else:
                await route.continue_()

        await page.route(uploads, lose_first)
        await page.route("**/events?**", lambda route: route.abort())  # nothing but polling is left
        await items.get_by_role("button", name="Send again").click()
        await expect(items).to_contain_text("0.jpg is there")
        assert not held and len(form.s.stored()) == 4

        text: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no photo"}
        large: FilePayload = {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": make.jpeg() + bytes(2 << 20)}
        await page.get_by_label("Photos").set_input_files([text, large])
        await expect(items.nth(1)).to_contain_text("notes.txt: Unsupported file type")
        await expect(items.nth(2)).to_contain_text("large.jpg: File too large.")


async def test_ticket_that_is_spent_is_replaced_and_a_pause_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with upload_form(tmp_path, monkeypatch) as form:
        busy = iter([True])

        async def refuse_first(route: Route) -> None:
            if next(busy, False):
                headers = {"Retry-After": "1", "Access-Control-Allow-Origin": "*"}
                headers["Access-Control-Expose-Headers"] = "Retry-After"
                await route.fulfill(status=503, headers=headers, json={"code": "overloaded", "detail": "Busy."})
            else:
                await route.continue_()

        await form.page.route(f"{form.url}/api/v1/images/tickets/**", refuse_first)
        call = """async ([module, bytes]) => {
            const { Uploader } = await import(module);
            const issue = async () => (await fetch("/ticket", { method: "POST" })).json();
            const [spent, fresh] = [await issue(), await issue()];
            const offered = [spent, spent, fresh];
            const uploader = new Uploader({ ticket: () => offered.shift(), parallel: 1 });
            const file = new Blob([Uint8Array.from(atob(bytes), one => one.charCodeAt(0))]);
            const began = performance.now();
            const first = await uploader.upload(file).done;
            const waited = performance.now() - began;
            const stopped = new AbortController();
            const second = uploader.upload(file);
            const third = uploader.upload(file, { signal: stopped.signal });
            stopped.abort();
            const words = await third.done.catch(error => error.name);
            const same = new Uploader({ ticket: fresh });
            const refused = await (await second.done, same.upload(file).done.catch(error => error.code));
            return { jobs: [first.image_id, (await second.done).image_id], waited, words, refused, state: third.state };
        }"""
        picture = base64.b64encode(make.jpeg(64, 48)).decode()
        told = await form.page.evaluate(call, [f"{form.url}/static/imgsvc.js", picture])
        assert len(set(told["jobs"])) == 2 and told["waited"] >= 1000
        assert (told["words"], told["state"], told["refused"]) == ("AbortError", "aborted", "ticket_spent")


async def test_placeholder_of_the_guide(tmp_path: Path) -> None:
    """The pixels are those of the published format, written here as one sum of cosines."""
    (example,) = runs(GUIDE, "placeholder")
    async with service(tmp_path) as s, listening(s.app) as url, browsing(url) as visit:
        page = visit.page
        await page.goto(f"{url}/info")
        draw = "async ([url, hash]) => { const it = (await import(url)).thumbhashPixels(hash);"
        draw += " return [it.width, it.height, [...it.rgba]]; }"
        for number, (landscape, alpha) in enumerate(product((False, True), repeat=2)):
            one, expected = random_hash(Random(number), landscape=landscape, alpha=alpha)
            width, height, pixels = await page.evaluate(draw, [f"{url}/static/imgsvc.js", one])
            assert (width, height) == expected[:2]
            assert max(abs(a - b) for a, b in zip(pixels, expected[2], strict=True)) <= 1
        await page.set_content(f"<img data-hash='{one}'>")
        await page.add_script_tag(type="module", content=example.replace(TOUR_HOST, url))
        background = "getComputedStyle(document.querySelector('img')).backgroundImage"
        await page.wait_for_function(f"{background} !== 'none'")
        address = (await page.evaluate(background)).removeprefix('url("').removesuffix('")')
        size = "async url => { const it = new Image(); it.src = url; await it.decode(); return [it.width, it.height]; }"
        assert await page.evaluate(size, address) == list(expected[:2])


def random_hash(chance: Random, *, landscape: bool, alpha: bool) -> tuple[str, tuple[int, int, list[int]]]:
    """A ThumbHash of random coefficients, and its width, height and RGBA (https://evanw.github.io/thumbhash/)."""
    bits: list[int] = []

    def put(count: int) -> int:
        value = chance.randrange(1 << count)
        bits.extend(value >> bit & 1 for bit in range(count))
        return value

    def put_flag(flag: bool) -> None:
        bits.append(int(flag))

    long_side = 5 if alpha else 7
    light, yellow, red = put(6) / 63, put(6) / 31.5 - 1, put(6) / 31.5 - 1
    light_scale = put(5) / 31
    put_flag(alpha)
    short_side = 3 + chance.randrange(long_side - 2)
    bits.extend(short_side >> bit & 1 for bit in range(3))
    yellow_scale, red_scale = 1.25 * put(6) / 63, 1.25 * put(6) / 63
    put_flag(landscape)
    opaque, alpha_scale = (put(4) / 15, put(4) / 15) if alpha else (1.0, 0.0)
    nx, ny = (long_side, short_side) if landscape else (short_side, long_side)
    channels = [(light, light_scale, nx, ny), (yellow, yellow_scale, 3, 3), (red, red_scale, 3, 3)]
    channels += [(opaque, alpha_scale, 5, 5)] if alpha else []
    series = []
    for start, scale, across, down in channels:
        places = [
            (x, y)
            for y in range(down)
            for x in range(across)
            if (x, y) != (0, 0) and x * down + y * across < across * down
        ]
        series.append((start, [(x, y, (put(4) / 7.5 - 1) * scale) for x, y in places]))
    width, height = (32, round(32 * ny / nx)) if landscape else (round(32 * nx / ny), 32)
    bits += [0] * (-len(bits) % 8)
    packed = bytes(sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))
    return base64.b64encode(packed).decode(), (width, height, pixels_of(width, height, series))


def pixels_of(width: int, height: int, series: list[tuple[float, list[tuple[int, int, float]]]]) -> list[int]:
    """RGBA. `series` of light, yellow over blue, red over green and perhaps alpha: the mean, and each wave's part."""
    pixels: list[int] = []
    for y, x in product(range(height), range(width)):
        angles = math.pi * (x + 0.5) / width, math.pi * (y + 0.5) / height
        level, p, q, *a = (
            start + sum(2 * part * math.cos(i * angles[0]) * math.cos(j * angles[1]) for i, j, part in parts)
            for start, parts in series
        )
        r, g = level + p / 3 + q / 2, level + p / 3 - q / 2  # p: yellow over blue; q: red over green
        b = level - 2 * p / 3
        pixels += [round(255 * min(1, max(0, one))) for one in (r, g, b, *(a or [1.0]))]
    return pixels
