"""Long attacks, by `./run torture` only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fixtures import make, profiles
from tests.imaging.test_damaged_pictures import SAID
from tests.process.test_kills import kill_and_replay
from tests.support.damaged import damage, verdicts

pytestmark = [pytest.mark.torture, pytest.mark.process]

SIZES = [(1400, 1400), (4000, 4000), (8660, 5773)]
MEASURE = """
import json, sys
from pathlib import Path
from imgsvc.imaging.any_header import read_header
from imgsvc.imaging.limits import preview_bytes, render_bytes
from imgsvc.settings.jobs import Images
from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from tests.support.rendered_paths import preview, render

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

kind, source, mime, folder = sys.argv[1:]
recipe = Images(max_pixels=60_000_000).recipe
with open(source, "rb") as stream:
    header = read_header(stream, mime)
idle = kilobytes("VmRSS")
{"preview": preview, "render": render}[kind](Path(source), mime, recipe, Path(folder))
estimate = {"preview": preview_bytes, "render": render_bytes}[kind](header, recipe) or 0
print(json.dumps({"peak": (kilobytes("VmHWM") - idle) * 1024, "estimate": estimate}))
"""


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


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_estimates_hold(tmp_path: Path, size: tuple[int, int]) -> None:
    """Admission counts on it: no source takes more memory than its header made us reserve."""
    low = []
    for name, (image, form, options) in sources(size).items():
        source = tmp_path / name
        image.save(source, form, **options)
        for kind in ("preview", "render"):
            command = [sys.executable, "-c", MEASURE, kind, str(source), f"image/{form.lower()}", str(tmp_path)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
            measured = json.loads(ran.stdout)
            if measured["estimate"] and measured["peak"] > measured["estimate"]:
                low.append((name, kind, measured))
        source.unlink()
    assert low == []


def test_hundred_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    kill_and_replay(tmp_path, rounds=100, seed=100)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damaged_files_end_as_image_errors(tmp_path: Path, form: str) -> None:
    """Thousands of damaged files in one process, which neither dies nor says anything but what they are."""
    said = verdicts(tmp_path, form, damage(form, 2000))
    assert {verdict.partition(": ")[2] for verdict in said} <= SAID, said
