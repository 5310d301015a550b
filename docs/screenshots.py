"""Take docs/images/dashboard.png again: `./run docs screenshots`. A real service, drawn pictures, a real browser."""

import asyncio
import io
import math
import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from playwright.async_api import expect

from docs.check import SCREENSHOT, dashboard_digest
from tests.support.dashboard_page import TOKEN, signed_in
from tests.support.server_process import ServerProcess

PICTURES = 8
SIZE = (1280, 960)
COLOURS = 128  # a palette halves the file, and text stays readable
LOADED = "image => image.complete && image.naturalWidth > 0"


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
    x, y, radius = source.randrange(200, width - 200), source.randrange(150, 500), source.randrange(50, 120)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 240, 200))
    for layer in range(4):
        base, swing, phase = height * (0.5 + layer * 0.13), 60 + 30 * source.random(), source.random() * 6
        shade = tuple(round(value * (0.75 - layer * 0.14)) for value in (90, 150, source.randrange(80, 140)))
        ridge = [(x, base + swing * math.sin(x / (140 + 40 * layer) + phase)) for x in range(0, width + 20, 20)]
        draw.polygon([*ridge, (width, height), (0, height)], fill=shade)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


async def take(server: ServerProcess) -> bytes:
    async with signed_in(server, width=SIZE[0], height=SIZE[1]) as visit:
        page = visit.page
        await expect(page.locator("#verdict-line")).to_have_text("All is well.")
        thumbnails = page.locator("[data-key=recent] tbody img")
        await expect(thumbnails).to_have_count(PICTURES)
        for thumbnail in await thumbnails.element_handles():
            await page.wait_for_function(LOADED, arg=thumbnail)
        return await page.screenshot()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ServerProcess(Path(name), OPERATOR_TOKEN=TOKEN) as server:
        uploads = [server.upload(landscape(seed), f"user-{seed % 3}") for seed in range(PICTURES)]
        for upload in uploads:
            server.job_ended(upload.json()["job_id"])
        shot = Image.open(io.BytesIO(asyncio.run(take(server)))).convert("RGB")
    note = PngInfo()
    note.add_text("sources", dashboard_digest())
    shot.quantize(COLOURS).save(SCREENSHOT, optimize=True, pnginfo=note)
    print(f"{SCREENSHOT}: {SCREENSHOT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
