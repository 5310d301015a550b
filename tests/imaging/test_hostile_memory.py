"""Files of a few hundred bytes that claim gigabytes: each takes less memory than its estimate, which for one that is
refused by its header is that of the smallest picture.
"""

import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from fixtures import gifs, hostile_heif
from imgsvc.imaging.errors import ImageError
from imgsvc.imaging.limits import BASE_BYTES, probe, render_bytes, settled
from imgsvc.settings.jobs import Images

MEASURE = """
import json, resource, sys
from pathlib import Path
from imgsvc.imaging.recipe import Recipe
from tests.support.rendered_paths import render
from PIL import GifImagePlugin, WebPImagePlugin

source, recipe, folder = sys.argv[1:]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
idle = peak()
made = render(Path(source), "image/gif", Recipe.from_json(recipe), Path(folder))
print(json.dumps({"peak": peak() - idle, "frames": made.frames}))
"""
CLAIMS = {**hostile_heif.NAMED, "GIF of 65,535 x 65,535": (gifs.huge(), "image/gif")}


@pytest.mark.parametrize("name", CLAIMS)
def test_refusal_takes_next_to_no_memory(name: str) -> None:
    data, mime = CLAIMS[name]
    stream = io.BytesIO(data)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            probe(stream, mime, max_pixels=50_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BASE_BYTES


def test_hundred_thousand_frames_of_one_pixel_stay_within_the_estimate(tmp_path: Path) -> None:
    source = tmp_path / "crowd.gif"
    source.write_bytes(gifs.crowd(100_000))
    with source.open("rb") as stream:
        header = probe(stream, "image/gif", max_pixels=50_000_000)
    recipe = settled(header, Images().recipe)
    command = [sys.executable, "-c", MEASURE, str(source), recipe.to_json(), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    found = json.loads(ran.stdout)
    assert found["frames"] == 4000 and recipe.frames == 1
    assert found["peak"] < render_bytes(header, recipe)
