"""Take the screenshots in docs/images again: `./run docs screenshots`. Drawn pictures in a real service and browser."""

import asyncio
import io
import math
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from playwright.async_api import expect

from docs.check import IMAGES, page_digest
from tests.support.browser import chromium
from tests.support.dashboard_page import TOKEN, signed_in
from tests.support.server_process import ServerProcess

PICTURES = 8  # on the overview, in the list of the latest
SHAPES = ((1600, 1067), (1067, 1600), (1600, 1067), (1200, 1200), (1600, 900), (1400, 1050))
SIZE = (1280, 960)
HEIGHT_OF_PICTURES = 760
COLOURS = 256  # a palette halves the file; skies are dithered
MANY = 30  # on the page of pictures
LOADED = "image => image.complete && image.naturalWidth > 0"
ALL_SEEN = "document.querySelectorAll('.tile').length && !document.querySelector('.tile a:not(.seen, .fades)')"


def landscape(seed: int, width: int = 1600, height: int = 1067) -> bytes:
    """A JPEG of a sky, a sun and hills."""
    source = random.Random(seed)
    top, low = (source.randrange(40, 120), source.randrange(90, 160), source.randrange(150, 240)), (250, 220, 190)
    column = Image.new("RGB", (1, height))
    for y in range(height):
        part = y / height
        column.putpixel((0, y), tuple(round(a + (b - a) * part) for a, b in zip(top, low, strict=True)))
    image = column.resize((width, height))
    draw = ImageDraw.Draw(image)
    x, y, radius = source.randrange(200, width - 200), source.randrange(150, height // 2), source.randrange(50, 120)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 240, 200))
    for layer in range(4):
        base, swing, phase = height * (0.5 + layer * 0.13), 60 + 30 * source.random(), source.random() * 6
        shade = tuple(round(value * (0.75 - layer * 0.14)) for value in (90, 150, source.randrange(80, 140)))
        ridge = [(x, base + swing * math.sin(x / (140 + 40 * layer) + phase)) for x in range(0, width + 20, 20)]
        draw.polygon([*ridge, (width, height), (0, height)], fill=shade)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


async def overview(server: ServerProcess) -> bytes:
    async with signed_in(server, width=SIZE[0], height=SIZE[1]) as visit:
        page = visit.page
        await expect(page.locator("#verdict-line")).to_have_text("All is well.")
        thumbnails = page.locator("[data-key=recent] tbody img")
        await expect(thumbnails).to_have_count(PICTURES)
        for thumbnail in await thumbnails.element_handles():
            await page.wait_for_function(LOADED, arg=thumbnail)
        return await page.screenshot()


async def pictures(server: ServerProcess) -> bytes:
    async with signed_in(server, width=SIZE[0], height=HEIGHT_OF_PICTURES) as visit:
        page = visit.page
        await page.goto(f"{server.url}/dashboard/images")
        await page.wait_for_function(ALL_SEEN)
        return await page.screenshot()


def upload(server: ServerProcess, numbers: Iterable[int]) -> None:
    found = [server.upload(landscape(one, *SHAPES[one % len(SHAPES)]), f"user-{one % 3}") for one in numbers]
    for one in found:
        server.job_ended(one.json()["job_id"])


def save(name: str, shot: bytes) -> None:
    note = PngInfo()
    note.add_text("sources", page_digest(name))
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image.quantize(palette=image.quantize(COLOURS, kmeans=3)).save(IMAGES / name, optimize=True, pnginfo=note)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size} bytes")


async def take(server: ServerProcess) -> None:
    upload(server, range(PICTURES))
    save("dashboard.png", await overview(server))
    upload(server, range(PICTURES, MANY))
    save("pictures.png", await pictures(server))
    await chromium.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ServerProcess(Path(name), OPERATOR_TOKEN=TOKEN) as server:
        asyncio.run(take(server))


if __name__ == "__main__":
    main()
