"""Pictures of every kind, sound, damaged and hostile, and what a lane makes of them."""

import hashlib
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from fixtures import hostile, make, mutations
from imgsvc.imaging.errors import ImageError
from imgsvc.imaging.header import Header
from imgsvc.imaging.limits import preview_bytes, probe, render_bytes, settled
from imgsvc.imaging.recipe import Recipe
from imgsvc.jobs.lane_memory import RESERVE_EXTRA, RESERVE_FACTOR
from imgsvc.jobs.lanes.cage import Mode
from imgsvc.jobs.lanes.messages import Outcome, Rendered
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings.jobs import Images
from tests.support.patched_workers import patched_workers
from tests.support.render_task import render_task

MAX_PIXELS = 60_000_000
RECIPE = Images(max_pixels=MAX_PIXELS).recipe
# All that variants may be: each format, a crop, a still and the animation, and the source without metadata.
RICH = Images.model_validate(
    {
        "max_pixels": MAX_PIXELS,
        "sizes": {
            "thumbnail": 150,
            "square": {"width": 90, "height": 90, "fit": "cover"},
            "mail": {"width": 300, "format": "jpeg"},
            "sharp": {"width": 800, "format": "avif"},
            "original": 4096,
        },
        "keep_source": "stripped",
    }
).recipe
# Without the cage the decoders of HEIC and AVIF are not loaded.
LOADED = "from imgsvc.jobs.lanes import warm; warm.is_in_force = lambda _: True"
KINDS: dict[Literal["preview", "render"], Callable[[Header, Recipe], int | None]] = {
    "preview": preview_bytes,
    "render": render_bytes,
}


class Source(NamedTuple):
    name: str
    mime: str
    data: bytes


def sound() -> Iterator[Source]:
    """A small picture of each kind that is accepted."""
    for number, (mime, data) in enumerate(mutations.everything()):
        yield Source(f"{number} {mime}", mime, data)


def odd() -> Iterator[Source]:
    """Pictures that are turned, animated, bent or hostile."""
    for value in make.STORED_BY:
        for form in ("JPEG", "PNG", "WEBP"):
            yield Source(f"turned {value} {form}", f"image/{form.lower()}", make.oriented(value, form))
    yield Source("leaky", "image/jpeg", make.leaky_jpeg())
    yield Source("palette", "image/png", make.palette_with_transparency())
    yield Source("animation", "image/png", make.animation("PNG"))
    yield Source("animation", "image/webp", make.animation("WEBP"))
    yield Source("fill bytes", "image/jpeg", hostile.fill_bytes(100_000))
    yield Source("empty scans", "image/jpeg", hostile.empty_scans(640, 480, 20))
    yield Source("texts", "image/png", hostile.texts(64, 48, 2))
    yield Source("empty deflate blocks", "image/png", hostile.empty_deflate_blocks(100_000))
    yield Source("damaged length", "image/png", hostile.damaged_length())
    for mime, data in hostile.exif_bombs(1000, 60_000):
        yield Source("EXIF bomb", mime, data)


def damaged(count: int) -> Iterator[Source]:
    for number in range(count):
        yield Source(*mutations.one(14, number, caged=True))


class Made(NamedTuple):
    """A lane's outcome of one task, without the times that it took, and the digests of the files."""

    outcome: Outcome
    files: dict[str, str]


@asynccontextmanager
async def lane(cage: Mode, folder: Path) -> AsyncIterator[ProcessLane]:
    """A lane that decodes every type, without the cage too. The folder is made."""
    one = ProcessLane("render", nice=10, jobs_per_process=1_000_000, cage=cage)
    with patched_workers(folder, LOADED):
        try:
            await one.start()
            yield one
        finally:
            await one.close()


async def made(one: ProcessLane, source: Source, folder: Path, recipe: Recipe = RECIPE) -> dict[str, Made]:
    """What the lane makes of a source under the ceilings that the service would reserve; {} if it is not accepted."""
    try:
        header = probe(io.BytesIO(source.data), source.mime, max_pixels=recipe.max_pixels)
    except ImageError:
        return {}
    recipe = settled(header, recipe)
    found: dict[str, Made] = {}
    for kind, estimate in KINDS.items():
        if (peak := estimate(header, recipe)) is None:
            continue
        place = folder / kind
        place.mkdir(parents=True)
        task = render_task(place, source.data, recipe, source.mime)
        ceiling = int(peak * RESERVE_FACTOR) + RESERVE_EXTRA
        outcome = await one.run(replace(task, kind=kind, memory_ceiling=ceiling, time_limit=300))
        found[kind] = Made(_timeless(outcome), _digests(place / "made"))
    return found


def _timeless(outcome: Outcome) -> Outcome:
    if not isinstance(outcome, Rendered):
        return outcome
    variants = tuple(one.model_copy(update={"seconds": 0.0}) for one in outcome.variants)
    return outcome.model_copy(update={"variants": variants})


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.stat().st_size
    }
