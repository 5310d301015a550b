from base64 import b64decode

import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging.placeholder import thumbhash
from imgsvc.jobs.lanes.messages import Rendered


def with_alpha(size: tuple[int, int]) -> Image.Image:
    image = make.photo(*size).convert("RGBA")
    image.putalpha(Image.radial_gradient("L").resize(size))
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (make.photo(21, 32), "oPcFHQSDeECIh3iIiHeHaIP2twd9"),
        (with_alpha((24, 32)), "oPeFFAIYcwhyh3Z3OGh/ivGGf4h3+GeHCA=="),
        (Image.new("RGB", (32, 20), make.BLUE), "WdMBBIAAAAAAAAAAAAAAAAAAAA=="),
    ],
    ids=["upright", "with alpha", "one colour"],
)
def test_what_other_encoders_make_of_it(image: Image.Image, expected: str) -> None:
    """The expected values are those of the package thumbhash 0.1.2, its operator precedence with alpha set right."""
    assert thumbhash(image) == expected


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 3), (4096, 2731)], ids=str)
def test_every_size_has_one(mode: str, size: tuple[int, int]) -> None:
    found = thumbhash(Image.new(mode, size))
    Rendered(width=1, height=1, dominant_colour="", frames=1, variants=(), thumbhash=found, source=None)
    raw = b64decode(found, validate=True)
    assert 17 <= len(raw) <= 25
    assert bool(raw[2] & 0x80) == (mode == "RGBA") and bool(raw[4] & 0x80) == (size[0] > size[1])


def test_what_is_transparent_has_no_colour() -> None:
    """Behind full transparency the colours differ; what is seen is one colour."""
    hashes = set()
    for hidden in (make.RED, make.GREEN):
        image = Image.new("RGBA", (64, 64), (*make.BLUE, 255))
        image.paste((*hidden, 0), (0, 0, 32, 64))
        hashes.add(thumbhash(image))
    assert len(hashes) == 1
