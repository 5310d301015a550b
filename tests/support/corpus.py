"""Pictures of every kind, sound, damaged and hostile, and what a lane makes of them."""

import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fixtures import hostile, make, mutations
from imgsvc.imaging.errors import ImageError
from imgsvc.imaging.limits import preview_bytes, probe, render_bytes
from imgsvc.jobs.lane_memory import RESERVE_EXTRA, RESERVE_FACTOR
from imgsvc.jobs.lanes.cage import Mode
from imgsvc.jobs.lanes.messages import Outcome, Rendered
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings.jobs import Images
from tests.support.render_task import render_task

RECIPE = Images(max_pixels=60_000_000).recipe
KINDS = {"preview": preview_bytes, "render": render_bytes}


class Source(NamedTuple):
    name: str
    mime: str
    data: bytes


def sound() -> Iterator[Source]:
    """A small picture of each kind that is accepted."""
    for number, (mime, data) in enumerate(mutations.sound()):
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
    for name, mime, data in mutations.mutated(14, count):
        yield Source(name, mime, data)


class Made(NamedTuple):
    """A lane's outcome of one task, without the times that it took, and the digests of the files."""

    outcome: Outcome
    files: dict[str, str]


@asynccontextmanager
async def lane(cage: Mode) -> AsyncIterator[ProcessLane]:
    one = ProcessLane("render", nice=10, jobs_per_process=1_000_000, cage=cage)
    try:
        yield one
    finally:
        await one.close()


async def made(one: ProcessLane, source: Source, folder: Path) -> dict[str, Made]:
    """What the lane makes of a source under the ceilings that the service would reserve; {} if it is not accepted."""
    try:
        header = probe(io.BytesIO(source.data), source.mime, max_pixels=RECIPE.max_pixels)
    except ImageError:
        return {}
    found: dict[str, Made] = {}
    for kind, estimate in KINDS.items():
        if (peak := estimate(header, RECIPE)) is None:
            continue
        place = folder / kind
        place.mkdir(parents=True)
        task = render_task(place, source.data, RECIPE, source.mime)
        ceiling = int(peak * RESERVE_FACTOR) + RESERVE_EXTRA
        outcome = await one.run(replace(task, kind=kind, memory_ceiling=ceiling, time_limit=300))  # type: ignore[arg-type]
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
