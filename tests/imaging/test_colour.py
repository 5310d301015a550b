import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fixtures import make, profiles
from imgsvc.imaging.colour import MAX_PROFILE, as_samples, to_srgb
from imgsvc.imaging.recipe import Recipe, Variant, scratch_file
from tests.support.rendered_paths import render

Colour = tuple[int, ...]
Matrix = tuple[profiles.Colour, profiles.Colour, profiles.Colour]

RECIPE = Recipe((Variant("large", 400, 100, 0), Variant("small", 40, 100, 0)), 50_000_000, 10)
LOSSY = 6  # what chroma subsampling and two lossy codecs may change in a flat colour


def srgb_decode(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def srgb_encode(value: float) -> float:
    value = min(1.0, max(0.0, value))
    return value * 12.92 if value <= 0.0031308 else float(1.055 * value ** (1 / 2.4) - 0.055)


def adobe_decode(value: float) -> float:
    return float(value ** (563 / 256))


def solve(colorants: Matrix, xyz: list[float]) -> list[float]:
    """The light of three colorants that adds up to `xyz`, by Cramer's rule."""

    def determinant(rows: list[tuple[float, ...]]) -> float:
        (a, b, c), (d, e, f), (g, h, i) = rows
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    columns = [tuple(one) for one in colorants]
    whole = determinant(columns)
    return [determinant([*columns[:k], tuple(xyz), *columns[k + 1 :]]) / whole for k in range(3)]


def expected_srgb(colour: Colour, colorants: Matrix, decode: Callable[[float], float]) -> Colour:
    light = [decode(value / 255) for value in colour]
    xyz = [sum(light[k] * colorants[k][axis] for k in range(3)) for axis in range(3)]
    return tuple(round(255 * srgb_encode(value)) for value in solve(profiles.SRGB, xyz))


def assert_near(colour: object, expected: Colour, tolerance: int) -> None:
    assert isinstance(colour, tuple)
    assert all(abs(a - b) <= tolerance for a, b in zip(colour, expected, strict=True)), (colour, expected)


def rendered(folder: Path, data: bytes, mime: str) -> Image.Image:
    source = folder / "source"
    source.write_bytes(data)
    render(source, mime, RECIPE, folder)
    with Image.open(scratch_file(folder, "large")) as image:
        image.load()
    return image


WIDE: dict[str, tuple[bytes, Matrix, Callable[[float], float]]] = {
    "display p3": (profiles.display_p3(), profiles.DISPLAY_P3, srgb_decode),
    "adobe rgb": (profiles.adobe_rgb(), profiles.ADOBE_RGB, adobe_decode),
}
COLOURS = [(200, 100, 50), (120, 140, 160), (60, 130, 70), (235, 51, 36), (0, 0, 0), (255, 255, 255), (128, 128, 128)]


@pytest.mark.parametrize(("profile", "colorants", "decode"), WIDE.values(), ids=WIDE.keys())
@pytest.mark.parametrize("colour", COLOURS)
def test_wide_colours_become_srgb(
    profile: bytes, colorants: Matrix, decode: Callable[[float], float], colour: Colour
) -> None:
    result = to_srgb(Image.new("RGB", (4, 4), colour), profile)
    assert result.mode == "RGB"
    assert_near(result.getpixel((1, 1)), expected_srgb(colour, colorants, decode), 2)


def test_known_display_p3_red_is_the_reddest_srgb() -> None:
    assert_near(
        to_srgb(Image.new("RGB", (1, 1), (234, 51, 35)), profiles.display_p3()).getpixel((0, 0)), (255, 0, 0), 3
    )


@pytest.mark.parametrize(("profile", "colorants", "decode"), WIDE.values(), ids=WIDE.keys())
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_wide_file_comes_out_as_srgb(
    tmp_path: Path, profile: bytes, colorants: Matrix, decode: Callable[[float], float], form: str
) -> None:
    colour = (210, 90, 50)
    expected = expected_srgb(colour, colorants, decode)
    assert max(abs(a - b) for a, b in zip(colour, expected, strict=True)) > 2 * LOSSY
    data = make.encoded(Image.new("RGB", (600, 400), colour), form, quality=95, icc_profile=profile)
    image = rendered(tmp_path, data, f"image/{form.lower()}")
    assert_near(image.getpixel((200, 100)), expected, LOSSY)


def test_srgb_changes_nothing() -> None:
    image = make.photo(64, 48)
    assert to_srgb(image, profiles.srgb()).tobytes() == image.tobytes() == to_srgb(image, None).tobytes()


def test_srgb_is_not_copied() -> None:
    for image in (make.photo(64, 48), Image.new("RGBA", (4, 4))):
        assert to_srgb(image, None) is to_srgb(image, profiles.srgb()) is image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK"])
def test_conversion_in_place_gives_the_same_pixels(mode: str) -> None:
    image = make.photo(64, 48).convert(mode)
    profile = {"L": profiles.grey(1.0), "CMYK": profiles.cmyk()}.get(mode, profiles.display_p3())
    before, expected = image.tobytes(), to_srgb(image, profile)
    assert image.tobytes() == before
    found = to_srgb(image, profile, in_place=True)
    assert found.tobytes() == expected.tobytes()
    assert (found is image) == (mode == "RGB")


@pytest.mark.parametrize(
    "inks", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (128, 64, 0, 0), (0, 0, 0, 128)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_inks_with_a_profile(tmp_path: Path, inks: Colour, whole: bool) -> None:
    image = Image.new("CMYK", (64, 64), inks)
    expected = profiles.printed(*(value / 255 for value in inks))
    if whole:
        data = make.encoded(image, "JPEG", quality=95, icc_profile=profiles.cmyk())
        assert_near(rendered(tmp_path, data, "image/jpeg").getpixel((30, 30)), expected, 5)
    else:
        assert_near(to_srgb(image, profiles.cmyk()).getpixel((30, 30)), expected, 5)


def test_inks_without_a_profile_look_like_inks(tmp_path: Path) -> None:
    image = rendered(tmp_path, make.encoded(make.quadrants(mode="CMYK"), "JPEG", quality=95), "image/jpeg")
    for place, colour in zip(((80, 50), (240, 50), (80, 150), (240, 150)), COLOURS_OF_QUADRANTS, strict=True):
        assert_near(image.getpixel(place), colour, 40)


COLOURS_OF_QUADRANTS = (make.RED, make.GREEN, make.BLUE, make.WHITE)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("value", [0, 40, 128, 200, 255])
def test_grey_profile(gamma: float, value: int) -> None:
    expected = round(255 * srgb_encode((value / 255) ** gamma))
    result = to_srgb(Image.new("L", (2, 2), value), profiles.grey(gamma))
    assert_near(result.getpixel((0, 0)), (expected,) * 3, 3)


@pytest.mark.parametrize(
    ("mode", "profile"), [("RGBA", profiles.display_p3()), ("RGBA", profiles.srgb()), ("LA", profiles.grey(1.0))]
)
def test_a_profile_leaves_alpha_alone(mode: str, profile: bytes) -> None:
    image = Image.new("RGB", (16, 16), (150, 120, 90)).convert(mode)
    alpha = Image.frombytes("L", (16, 16), bytes(range(256)))
    image.putalpha(alpha)
    result = to_srgb(image, profile)
    assert result.mode == "RGBA"
    assert result.getchannel("A").tobytes() == alpha.tobytes()
    flat = to_srgb(image.convert(mode[:-1]), profile)
    assert result.convert("RGB").tobytes() == flat.tobytes()


def padded(profile: bytes, size: int) -> bytes:
    filler = random.Random(1).randbytes(size - len(profile))
    return struct.pack(">I", size) + profile[4:] + filler


GOOD = profiles.display_p3()
USELESS = {
    "empty": b"",
    "one byte": b"\0",
    "random": random.Random(5).randbytes(3000),
    "cut": GOOD[: len(GOOD) // 2],
    "header only": GOOD[:128],
    "no tags": GOOD[:128] + bytes(4),
    "tags far away": GOOD[:132] + b"\xff" * (len(GOOD) - 132),
    "zeros": bytes(5000),
    "oversized": padded(GOOD, MAX_PROFILE + 1),
    "grey": profiles.grey(1.0),
    "inks": profiles.cmyk(),
    "lab": GOOD[:16] + b"Lab " + GOOD[20:],
    "unknown space": GOOD[:16] + b"ABCD" + GOOD[20:],
    "device link": GOOD[:12] + b"link" + GOOD[16:],
}


@pytest.mark.parametrize("profile", USELESS.values(), ids=USELESS.keys())
def test_a_useless_profile_is_ignored(profile: bytes) -> None:
    image = make.photo(32, 32)
    assert to_srgb(image, profile).tobytes() == image.tobytes()


def test_a_large_profile_within_the_limit_is_used() -> None:
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    assert to_srgb(image, padded(GOOD, MAX_PROFILE)).tobytes() == to_srgb(image, GOOD).tobytes() != image.tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "CMYK"])
def test_a_profile_of_another_colour_space_is_ignored(mode: str) -> None:
    image = Image.new(mode, (4, 4), 100 if mode == "L" else (100, 200) if mode == "LA" else (10, 80, 90, 5))
    assert to_srgb(image, GOOD).tobytes() == to_srgb(image, None).tobytes()


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_profile_never_fails_a_picture(seed: int) -> None:
    source = random.Random(seed)
    damaged = bytearray(source.choice((GOOD, profiles.adobe_rgb(), profiles.cmyk(), profiles.grey(2.2))))
    for _ in range(source.choice((1, 8, 64))):
        damaged[source.randrange(min(len(damaged), 600))] = source.randrange(256)
    for mode in ("RGB", "RGBA", "L", "LA", "CMYK"):
        result = to_srgb(Image.new(mode, (4, 4)), bytes(damaged))
        assert result.mode == ("RGBA" if mode in ("RGBA", "LA") else "RGB")


@pytest.mark.parametrize("name", ["random", "cut", "oversized", "grey", "inks"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_file_with_a_useless_profile_is_rendered(tmp_path: Path, name: str, form: str) -> None:
    data = make.encoded(make.quadrants(), form, quality=95, icc_profile=USELESS[name])
    image = rendered(tmp_path, data, f"image/{form.lower()}")
    for place, colour in zip(((80, 50), (240, 50), (80, 150), (240, 150)), COLOURS_OF_QUADRANTS, strict=True):
        assert_near(image.getpixel(place), colour, LOSSY + 4)


@pytest.mark.parametrize(
    "chunk",
    [
        b"p\0\0" + zlib.compress(padded(GOOD, 1_100_000)),
        b"p\0\0" + zlib.compress(bytes(30_000_000), 1),
        b"p\0\0" + zlib.compress(GOOD)[:100],
        b"p\0\0not deflated at all",
        b"p\0\7" + zlib.compress(GOOD),
        b"p\0",
        b"p",
        b"",
    ],
    ids=["over 1 MB", "bomb", "cut", "no zlib", "unknown method", "no data", "no end of name", "empty"],
)
def test_a_png_with_a_useless_iccp_chunk_is_rendered(tmp_path: Path, chunk: bytes) -> None:
    colour = (200, 100, 50)
    rows = (b"\0" + bytes(colour) * 16) * 16
    image = rendered(tmp_path, make.png(16, 16, 8, 2, rows, make.png_chunk(b"iCCP", chunk)), "image/png")
    assert_near(image.getpixel((8, 8)), colour, LOSSY)


def test_samples_become_what_a_profile_can_describe() -> None:
    modes = {mode: as_samples(Image.new(mode, (2, 2))).mode for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")}
    assert modes == {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK"}
