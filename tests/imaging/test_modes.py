import struct

import pytest
from PIL import Image

from fixtures import make
from tests.support.rendering import QUADRANTS, Studio, assert_upright, near


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


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("alphas", [(0, 255, 255), (255, 0, 255), (255, 255, 0), (255, 128, 0)], ids=str)
def test_a_palette_of_any_depth_keeps_alpha(studio: Studio, bits: int, alphas: tuple[int, ...]) -> None:
    palette = make.png_chunk(b"PLTE", bytes(value for colour in QUADRANTS[:3] for value in colour))
    found = bars_of(studio, three_bars(bits, 3, ((0,), (1,), (2,)), palette, make.png_chunk(b"tRNS", bytes(alphas))))
    assert all(abs(pixel[3] - alpha) <= 2 for pixel, alpha in zip(found, alphas, strict=True)), found
    assert all(near(found[i][:3], QUADRANTS[i], 24) for i in range(3) if alphas[i]), found


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("clear", [0, 1, 2])
def test_a_colour_key_clears_that_colour_only(studio: Studio, bits: int, clear: int) -> None:
    scale = 0x0101 if bits == 16 else 1
    bars = tuple(tuple(value * scale + (bits == 16) for value in colour) for colour in QUADRANTS[:3])
    key = make.png_chunk(b"tRNS", struct.pack(">3H", *bars[clear]))
    found = bars_of(studio, three_bars(bits, 2, bars, key))
    assert [pixel[3] for pixel in found] == [0 if index == clear else 255 for index in range(3)]
    assert all(near(found[i][:3], QUADRANTS[i], 24) for i in range(3) if i != clear), found
