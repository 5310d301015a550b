"""Long attacks, by `./run torture` only."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fixtures import make, profiles
from imgsvc.jobs.lanes.messages import Rendered
from imgsvc.settings.jobs import Images
from tests.imaging.test_damaged_pictures import SAID
from tests.process.test_kills import kill_and_replay
from tests.support.corpus import KINDS
from tests.support.damaged import damage, verdicts
from tests.support.lanes import started
from tests.support.render_task import render_task
from tests.support.rendered_paths import probe

pytestmark = [pytest.mark.torture, pytest.mark.process]

SIZES = [(1400, 1400), (4000, 4000), (8660, 5773)]


def sources(size: tuple[int, int]) -> dict[str, tuple[Image.Image, str, dict[str, object]]]:
    """One of each kind whose decode takes memory in its own way: (image, format, save options)."""
    colour = make.photo(size[0] // 4, size[1] // 4).resize(size)
    grey = colour.convert("L")
    clear = colour.convert("RGBA")
    clear.putalpha(grey)
    few = colour.quantize(64, method=Image.Quantize.FASTOCTREE)
    fast: dict[str, object] = {"compress_level": 1}
    return {
        "baseline": (colour, "JPEG", {}),
        "444": (colour, "JPEG", {"subsampling": 0}),
        "progressive": (colour, "JPEG", {"progressive": True}),
        "progressive-444": (colour, "JPEG", {"progressive": True, "subsampling": 0}),
        "grey": (grey, "JPEG", {}),
        "cmyk-progressive": (colour.convert("CMYK"), "JPEG", {"progressive": True}),
        "cmyk-profile": (colour.convert("CMYK"), "JPEG", {"icc_profile": profiles.cmyk()}),
        "turned": (colour, "JPEG", {"icc_profile": profiles.display_p3(), "exif": make.exif(6)}),
        "png-grey": (grey, "PNG", fast),
        "png-colour": (colour, "PNG", fast),
        "png-alpha": (clear, "PNG", {**fast, "icc_profile": profiles.display_p3()}),
        "png-palette": (few, "PNG", fast),
        "png-palette-key": (few, "PNG", {**fast, "transparency": 0}),
        "png-1": (grey.convert("1"), "PNG", fast),
        "png-key": (colour, "PNG", {**fast, "transparency": (1, 2, 3)}),
        "webp": (colour, "WEBP", {"method": 0}),
        "webp-alpha": (clear, "WEBP", {"method": 0}),
        "webp-lossless": (colour, "WEBP", {"method": 0, "lossless": True}),
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_estimates_hold(tmp_path: Path, size: tuple[int, int]) -> None:
    """Admission counts on it: a worker with no more memory than the estimate completes every source.

    Only a worker's ceiling tells what is needed: lossless coding takes more where there is more, and is given up where
    there is not.
    """
    recipe, failed = Images(max_pixels=60_000_000).recipe, []
    async with started([]) as lane:
        for name, (image, form, options) in sources(size).items():
            task = render_task(tmp_path, make.encoded(image, form, **options), recipe, f"image/{form.lower()}")
            header = probe(Path(task.source), task.mime, max_pixels=recipe.max_pixels)
            for kind, estimated in KINDS.items():
                if (estimate := estimated(header, recipe)) is not None:
                    outcome = await lane.run(replace(task, kind=kind, memory_ceiling=estimate, time_limit=300))
                    if not isinstance(outcome, Rendered):
                        failed.append((name, kind, estimate, outcome))
    assert failed == []


def test_hundred_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    kill_and_replay(tmp_path, rounds=100, seed=100)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damaged_files_end_as_image_errors(tmp_path: Path, form: str) -> None:
    """Thousands of damaged files in one process, which neither dies nor says anything but what they are."""
    said = verdicts(tmp_path, form, damage(form, 2000))
    assert {verdict.partition(": ")[2] for verdict in said} <= SAID, said
