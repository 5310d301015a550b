import hashlib
import io
import struct
import time
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging.errors import OutOfTime, TooLarge, Unreadable
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.header import read_header
from imgsvc.imaging.limits import has_cheap_preview
from imgsvc.imaging.open import open_image
from imgsvc.imaging.pipeline import Rendering, preview, render
from imgsvc.imaging.recipe import Recipe, Variant, scratch_file

SIDES = {"large": 300, "medium": 120, "small": 40}
RECIPE = Recipe(tuple(Variant(name, side, 95, 1) for name, side in SIDES.items()), 50_000_000, 100)
QUADRANTS = (make.RED, make.GREEN, make.BLUE, make.WHITE)
FORMS = ["JPEG", "PNG", "WEBP"]


class Studio:
    """One source file and the folder that its variants go to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, data: bytes) -> Path:
        source = self.folder / "source"
        source.write_bytes(data)
        return source

    def render(self, data: bytes, form: str = "PNG", **options: Any) -> Rendering:
        return render(self.place(data), f"image/{form.lower()}", RECIPE, self.folder, **options)

    def preview(self, data: bytes, form: str = "PNG", **options: Any) -> Rendering | None:
        return preview(self.place(data), f"image/{form.lower()}", RECIPE, self.folder, **options)

    def bytes_of(self, name: str) -> bytes:
        return scratch_file(self.folder, name).read_bytes()

    def variant(self, name: str = "large") -> Image.Image:
        with Image.open(scratch_file(self.folder, name), formats=["WEBP"]) as image:
            image.load()
        return image


@pytest.fixture(autouse=True)
def _pillow_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # set anew for each picture


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


def near(colour: object, expected: tuple[int, ...], tolerance: int = 16) -> bool:
    assert isinstance(colour, tuple)
    return all(abs(a - b) <= tolerance for a, b in zip(colour, expected, strict=True))


def assert_upright(image: Image.Image) -> None:
    width, height = image.size
    places = [(width * x // 4, height * y // 4) for y in (1, 3) for x in (1, 3)]
    colours = [image.convert("RGB").getpixel(place) for place in places]
    assert all(near(colour, expected) for colour, expected in zip(colours, QUADRANTS, strict=True)), colours


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_comes_out_upright(studio: Studio, form: str, value: int) -> None:
    rendering = studio.render(make.oriented(value, form, (640, 400)), form)
    assert (rendering.width, rendering.height) == (640, 400)
    sizes = {one.name: (one.width, one.height) for one in rendering.variants}
    assert sizes == {"large": (300, 188), "medium": (120, 75), "small": (40, 25)}
    for name, size in sizes.items():
        image = studio.variant(name)
        assert image.size == size
        assert_upright(image)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", range(1, 9))
def test_every_preview_comes_out_upright(studio: Studio, form: str, value: int) -> None:
    rendering = studio.preview(make.oriented(value, form, (640, 400)), form)
    assert rendering
    assert (rendering.width, rendering.height) == (640, 400)
    assert [(one.name, one.width, one.height) for one in rendering.variants] == [("small", 40, 25)]
    assert_upright(studio.variant("small"))


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_orientation_counts_as_upright(studio: Studio, form: str, value: int) -> None:
    data = make.encoded(make.quadrants(), form, exif=make.exif(value))
    assert (studio.render(data, form).width, studio.variant().size) == (320, (300, 188))
    assert_upright(studio.variant())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("junk", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + b"\xff" * 60])
def test_damaged_exif_counts_as_upright(studio: Studio, form: str, junk: bytes) -> None:
    studio.render(make.encoded(make.quadrants(), form, exif=junk), form)
    assert_upright(studio.variant())


def expected_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(Fraction(1), Fraction(side, max(size)))
    width, height = (max(1, int(length * scale + Fraction(1, 2))) for length in size)
    return width, height


SIZES = [
    (1, 1),
    (1, 2),
    (1, 10_000),
    (10_000, 1),
    (3, 9_999),
    (301, 301),
    (299, 17),
    (333, 777),
    (1601, 1199),
    (300, 1),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_are_rounded_and_never_enlarged(studio: Studio, form: str, size: tuple[int, int]) -> None:
    rendering = studio.render(make.encoded(Image.new("RGB", size, make.RED), form), form)
    assert (rendering.width, rendering.height) == size
    assert [one.name for one in rendering.variants] == ["small", "large", "medium"]
    for one in rendering.variants:
        assert (one.width, one.height) == expected_size(size, SIDES[one.name]) == studio.variant(one.name).size
        assert near(studio.variant(one.name).getpixel((0, 0)), make.RED)


@pytest.mark.parametrize("side", [1, 2, 7, 150, 1000])
def test_fit_is_exact(side: int) -> None:
    for width in range(1, 60):
        for height in (1, 2, 31, 997, 10_000):
            assert fit((width, height), side) == expected_size((width, height), side)
            assert fit((height, width), side) == expected_size((height, width), side)


def test_what_is_told_of_a_variant_is_true(studio: Studio) -> None:
    for one in studio.render(make.jpeg(500, 300), "JPEG").variants:
        data = studio.bytes_of(one.name)
        assert (one.size_bytes, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert one.format == "webp" and data[8:12] == b"WEBP"


def test_the_dominant_colour_is_that_of_the_picture(studio: Studio) -> None:
    image = make.quadrants(400, 400)
    image.paste(make.BLUE, (0, 0, 400, 300))
    data = make.encoded(image, "PNG")
    rendering, first = studio.render(data), studio.preview(data)
    assert first and first.dominant_colour == rendering.dominant_colour == "#{:02x}{:02x}{:02x}".format(*make.BLUE)


# --- modes


def test_palette_with_transparency_keeps_alpha(studio: Studio) -> None:
    studio.render(make.palette_with_transparency())
    for name, scale in (("large", 1.0), ("small", 0.4)):
        image = studio.variant(name)
        assert image.mode == "RGBA"
        assert near(image.getpixel((int(50 * scale), int(50 * scale))), (*make.RED, 255))
        assert image.getchannel("A").getpixel((2, 2)) == 0


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_clear_pixels_do_not_bleed(studio: Studio, form: str) -> None:
    image = Image.new("RGBA", (400, 400), (0, 255, 0, 0))
    image.paste((*make.RED, 255), (100, 100, 300, 300))
    studio.render(make.encoded(image, form, lossless=True, exact=True), form)
    small = studio.variant("small")
    assert near(small.getpixel((20, 20)), (*make.RED, 255))
    pixels = zip(*[iter(small.tobytes())] * 4, strict=True)
    assert all(green < 110 for _, green, _, alpha in pixels if alpha > 60)


@pytest.mark.parametrize(("mode", "form"), [("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("RGB", "WEBP")])
def test_colours_survive_in_every_mode(studio: Studio, mode: str, form: str) -> None:
    image = make.quadrants().quantize(4) if mode == "P" else make.quadrants(mode=mode)
    studio.render(make.encoded(image, form, quality=95), form)
    assert studio.variant().mode == "RGB"
    assert_upright(studio.variant())


def test_alpha_is_kept(studio: Studio) -> None:
    image = make.quadrants(mode="RGBA")
    image.putalpha(90)
    studio.render(make.encoded(image, "PNG"))
    assert near(studio.variant().getpixel((75, 47)), (*make.RED, 90))


@pytest.mark.parametrize("value", [0, 77, 200, 255])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_grey(studio: Studio, form: str, value: int) -> None:
    studio.render(make.encoded(Image.new("L", (50, 50), value), form), form)
    assert near(studio.variant().getpixel((25, 25)), (value,) * 3, 4)


def test_grey_with_alpha(studio: Studio) -> None:
    studio.render(make.encoded(Image.new("LA", (50, 50), (90, 128)), "PNG"))
    assert near(studio.variant().getpixel((25, 25)), (90, 90, 90, 128), 4)


def test_one_bit(studio: Studio) -> None:
    image = Image.new("1", (64, 64), 0)
    image.paste(1, (32, 0, 64, 64))
    studio.render(make.encoded(image, "PNG"))
    assert near(studio.variant().getpixel((10, 30)), (0, 0, 0), 8)
    assert near(studio.variant().getpixel((54, 30)), (255, 255, 255), 8)


def test_16_bit_grey_is_a_ramp(studio: Studio) -> None:
    studio.render(make.grey_16_bit(256))
    ramp = studio.variant().convert("L").crop((0, 8, 256, 9)).tobytes()
    assert all(abs(value - x) <= 6 for x, value in enumerate(ramp)), list(ramp)
    assert all(ramp[x] < ramp[x + 15] for x in range(256 - 15)), list(ramp)


def packed(*values: int, bits: int) -> bytes:
    number = 0
    for value in values:
        number = number << bits | value
    return number.to_bytes(-(-len(values) * bits // 8))


def three_bars(bits: int, colour: int, bars: tuple[tuple[int, ...], ...], *chunks: bytes) -> bytes:
    samples = [value for bar in bars for value in bar * 16]
    return make.png(48, 32, bits, colour, (b"\0" + packed(*samples, bits=bits)) * 32, *chunks)


def bars_of(studio: Studio, data: bytes) -> list[tuple[int, ...]]:
    studio.render(data)
    image = studio.variant().convert("RGBA")
    return [pixel for x in (8, 24, 40) if isinstance(pixel := image.getpixel((x, 16)), tuple)]


def test_16_bit_colour_keeps_its_high_byte(studio: Studio) -> None:
    bars = ((220 << 8, 30 << 8, 30 << 8), (0x1EFF, 0xA0FF, 0x3CFF), (0xFFFF, 0xFFFF, 0xFFFF))
    found = bars_of(studio, three_bars(16, 2, bars))
    assert all(near(a, (*b, 255)) for a, b in zip(found, (make.RED, make.GREEN, (255, 255, 255)), strict=True)), found


def test_16_bit_colour_with_alpha(studio: Studio) -> None:
    bars = ((0xDC00, 0x1E00, 0x1E00, 0xFFFF), (0x1E00, 0xA000, 0x3C00, 0x8000), (0, 0, 0, 0))
    found = bars_of(studio, three_bars(16, 6, bars))
    assert near(found[0], (*make.RED, 255)) and near(found[1], (*make.GREEN, 128)) and found[2][3] == 0


def test_16_bit_grey_with_alpha(studio: Studio) -> None:
    found = bars_of(studio, three_bars(16, 4, ((0x4000, 0xFFFF), (0xC000, 0x8000), (0x8000, 0))))
    assert near(found[0], (64, 64, 64, 255)) and near(found[1], (192, 192, 192, 128)) and found[2][3] == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [0, 1, 2])
def test_a_grey_colour_key_clears_that_grey_only(studio: Studio, bits: int, clear: int) -> None:
    top = 2**bits - 1
    bars = ((0,), (top // 2 if bits > 1 else 1,), (top,))
    if bits == 1 and clear == 1:
        bars = ((0,), (1,), (0,))
    key = make.png_chunk(b"tRNS", struct.pack(">H", *bars[clear]))
    found = bars_of(studio, three_bars(bits, 0, bars, key))
    assert [pixel[3] for pixel in found] == [0 if bar == bars[clear] else 255 for bar in bars]
    greys = [pixel[0] for pixel in found if pixel[3]]
    expected = [bar[0] * 255 // top for bar in bars if bar != bars[clear]]
    assert all(abs(a - b) <= 8 for a, b in zip(greys, expected, strict=True)), (greys, expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("clear", [0, 1, 2])
def test_a_colour_key_clears_that_colour_only(studio: Studio, bits: int, clear: int) -> None:
    scale = 0x0101 if bits == 16 else 1
    bars = tuple(tuple(value * scale + (bits == 16) for value in colour) for colour in QUADRANTS[:3])
    key = make.png_chunk(b"tRNS", struct.pack(">3H", *bars[clear]))
    found = bars_of(studio, three_bars(bits, 2, bars, key))
    assert [pixel[3] for pixel in found] == [0 if index == clear else 255 for index in range(3)]
    assert all(near(found[i][:3], QUADRANTS[i], 24) for i in range(3) if i != clear), found


# --- animations and pictures of several


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(studio: Studio, form: str) -> None:
    rendering = studio.render(make.animation(form), form)
    assert (rendering.frames, rendering.width, rendering.height) == (3, 64, 48)
    for name in SIDES:
        image = studio.variant(name)
        assert getattr(image, "n_frames", 1) == 1
        assert near(image.convert("RGB").getpixel((20, 15)), make.RED)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_too_many_frames_are_refused(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(make.animation(form))
    with pytest.raises(TooLarge, match="3 frames; at most 2"):
        render(source, f"image/{form.lower()}", Recipe(RECIPE.variants, 10**7, 2), tmp_path)


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
    assert open_image(source, header, side).width == width


# --- the same again


@cache
def photo(form: str, size: tuple[int, int]) -> bytes:
    return make.encoded(make.photo(*size), form, compress_level=1)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_file_gives_the_same_bytes(tmp_path: Path, form: str) -> None:
    data = make.encoded(make.photo(500, 333), form)
    digests = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        digests.add(tuple(one.sha256 for one in Studio(folder).render(data, form).variants))
    assert len(digests) == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(30, 20), (333, 500), (1700, 1300)], ids=str)
def test_preview_and_render_make_the_same_thumbnail(studio: Studio, form: str, size: tuple[int, int]) -> None:
    data = photo(form, size)
    rendering = studio.render(data, form)
    rendered = studio.bytes_of("small")
    scratch_file(studio.folder, "small").unlink()
    first = studio.preview(data, form)
    if size == (1700, 1300) and form != "JPEG":
        assert first is None
        return
    assert first and studio.bytes_of("small") == rendered
    assert first.dominant_colour == rendering.dominant_colour
    assert first.variants[0] in rendering.variants


def test_previews_are_only_made_where_they_are_cheap(studio: Studio) -> None:
    large = make.png(2000, 1001, 8, 2, bytes(6001 * 1001))
    assert not has_cheap_preview(read_header(io.BytesIO(large), "image/png"))
    assert studio.preview(large) is None
    assert len(studio.render(large).variants) == 3


@pytest.mark.parametrize("done", [("small",), ("large",), ("small", "medium"), tuple(SIDES)], ids=str)
def test_what_is_done_is_left_alone(studio: Studio, done: tuple[str, ...]) -> None:
    data = make.jpeg(600, 400)
    whole = {one.name: one for one in studio.render(data, "JPEG").variants}
    for name in SIDES:
        scratch_file(studio.folder, name).write_bytes(b"untouched")
    rendering = studio.render(data, "JPEG", done=done)
    assert {one.name: one for one in rendering.variants} == {n: one for n, one in whole.items() if n not in done}
    for name in SIDES:
        assert (studio.bytes_of(name) == b"untouched") == (name in done)
    assert bool(rendering.dominant_colour) == ("small" not in done)


# --- refusals


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("size", [(300, 200), (1700, 1300)], ids=str)
def test_truncated_pixels_are_unreadable(studio: Studio, form: str, share: float, size: tuple[int, int]) -> None:
    data = photo(form, size)
    cut = data[: int(len(data) * share)]
    for run in (studio.render, studio.preview):
        if run == studio.preview and form != "JPEG" and size == (1700, 1300):
            continue
        with pytest.raises(Unreadable, match=r"^The image can't be decoded: .+\.$"):
            run(cut, form)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"k\0\0" + b"\x78\x9cgarbage"),
        (b"zTXt", b"k\0\5unknown method"),
        (b"iTXt", b"k\0"),
        (b"eXIf", b"garbage"),
        (b"pHYs", b"x"),
        (b"gAMA", b""),
        (b"cHRM", b"x"),
        (b"sRGB", b""),
        (b"acTL", b"x"),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
def test_damaged_metadata_is_forgiven(studio: Studio, chunk: tuple[bytes, bytes], place: str) -> None:
    data, extra = make.encoded(make.quadrants(), "PNG"), make.png_chunk(*chunk)
    at = data.index(b"IDAT" if place == "before" else b"IEND") - 4
    studio.render(data[:at] + extra + data[at:])
    assert_upright(studio.variant())


def test_a_header_that_lies_is_unreadable(studio: Studio) -> None:
    data = bytearray(make.encoded(make.quadrants(320, 200), "JPEG"))
    second = make.encoded(make.quadrants(640, 400), "JPEG")
    frame, other = (text.index(b"\xff\xc0") for text in (bytes(data), second))
    data[frame:frame] = second[other : other + 19]
    with pytest.raises(Unreadable):
        studio.render(bytes(data), "JPEG")


def test_a_bomb_is_refused_before_it_is_decoded(studio: Studio) -> None:
    start = time.perf_counter()
    with pytest.raises(TooLarge, match=r"900\.0 megapixels"):
        studio.render(make.bomb())
    assert time.perf_counter() - start < 0.5


def test_a_deadline_that_has_passed_stops_the_run(studio: Studio) -> None:
    data, past = make.jpeg(600, 400), time.monotonic() - 1
    with pytest.raises(OutOfTime, match="stopped after decode"):
        studio.render(data, "JPEG", deadline=past)
    with pytest.raises(OutOfTime, match="stopped after decode"):
        studio.preview(data, "JPEG", deadline=past)
    assert [path.name for path in studio.folder.iterdir()] == ["source"]
    assert len(studio.render(data, "JPEG", deadline=time.monotonic() + 60).variants) == 3
