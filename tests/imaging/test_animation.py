import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging.any_header import read_header
from tests.support.rendered_paths import open_image
from tests.support.rendering import SIDES, Studio, assert_upright, near


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(studio: Studio, form: str) -> None:
    rendering = studio.render(make.animation(form), form)
    assert (rendering.frames, rendering.width, rendering.height) == (3, 64, 48)
    for name in SIDES:
        image = studio.variant(name)
        assert getattr(image, "n_frames", 1) == 1
        assert near(image.convert("RGB").getpixel((20, 15)), make.RED)


def multi_picture(size: tuple[int, int] = (2400, 1600)) -> bytes:
    others = [Image.new("RGB", (640, 480), make.GREEN)]
    return make.encoded(make.quadrants(*size), "MPO", save_all=True, append_images=others, quality=92)


def test_a_multi_picture_file_gives_its_first(studio: Studio) -> None:
    data = multi_picture()
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO"
    rendering = studio.render(data, "JPEG")
    assert (rendering.width, rendering.height, len(rendering.variants)) == (2400, 1600, 3)
    for name in SIDES:
        assert_upright(studio.variant(name))


@pytest.mark.parametrize("make_file", [multi_picture, lambda: make.jpeg(2400, 1600)], ids=["MPO", "JPEG"])
@pytest.mark.parametrize(("side", "width"), [(300, 300), (301, 600), (600, 600), (1200, 1200), (1201, 2400)])
def test_a_decode_is_reduced_as_far_as_it_may(tmp_path: Path, make_file: Any, side: int, width: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(make_file())
    with source.open("rb") as stream:
        header = read_header(stream, "image/jpeg")
    assert open_image(source, header, side).image.width == width
