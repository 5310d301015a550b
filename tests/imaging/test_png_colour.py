"""What a PNG says of its colours decides how they come out, and of two descriptions the one that the standard prefers.

Expected values were worked out from the standards' formulae, not by the code under test.
"""

import struct
import zlib
from collections.abc import Sequence

import pytest
from PIL import Image

from fixtures import containers as c
from fixtures import make, profiles
from tests.support.rendering import Studio, near

FLAT = (128, 64, 32)
P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
P3_AS_SRGB = (138, 59, 22)


def gama(value: int) -> c.Chunk:
    return b"gAMA", struct.pack(">I", value)


def chrm(*values: float) -> c.Chunk:
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


def cicp(*values: int) -> c.Chunk:
    return b"cICP", bytes(values)


def iccp(profile: bytes) -> c.Chunk:
    return b"iCCP", b"a profile\0\0" + zlib.compress(profile)


SRGB_CHUNK = (b"sRGB", b"\0")


def shown(studio: Studio, *chunks: c.Chunk, colour: tuple[int, ...] = FLAT, mode: str = "RGB") -> tuple[int, ...]:
    flat = make.encoded(Image.new(mode, (64, 48), colour if len(colour) > 1 else colour[0]), "PNG")
    studio.render(c.after_header(flat, *chunks), "PNG")
    pixel = studio.variant("large").convert("RGB").getpixel((30, 20))
    assert isinstance(pixel, tuple)
    return pixel


DESCRIBED: dict[str, tuple[Sequence[c.Chunk], tuple[int, ...]]] = {
    "nothing": ((), FLAT),
    "linear": ((gama(100_000),), (188, 137, 99)),
    "gamma of an old Mac": ((gama(55_000),), (145, 81, 41)),
    "gamma of sRGB": ((gama(45_455),), FLAT),
    "sRGB and a gamma": ((SRGB_CHUNK, gama(100_000)), FLAT),
    "gamma 0": ((gama(0),), FLAT),
    "gamma beyond reason": ((gama(0xFFFFFFFF),), FLAT),
    "gamma of 3 bytes": (((b"gAMA", b"\0\0\1"),), FLAT),
    "P3 by chromaticities": ((gama(45_455), chrm(*P3)), P3_AS_SRGB),
    "P3 by chromaticities alone": ((chrm(*P3),), P3_AS_SRGB),
    "chromaticities of sRGB": ((gama(45_455), chrm(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)), FLAT),
    "chromaticities on a line": ((gama(45_455), chrm(0.3127, 0.329, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)), FLAT),
    "chromaticities of nothing": ((gama(45_455), chrm(0, 0, 0, 0, 0, 0, 0, 0)), FLAT),
    "P3 by code points": ((cicp(12, 13, 0, 1),), P3_AS_SRGB),
    "sRGB by code points": ((cicp(1, 13, 0, 1),), FLAT),
    "unknown code points": ((cicp(99, 13, 0, 1),), FLAT),
    "YCbCr by code points": ((cicp(12, 13, 1, 1),), FLAT),
    "narrow range by code points": ((cicp(12, 13, 0, 0),), FLAT),
    "code points before a profile": ((cicp(12, 13, 0, 1), iccp(profiles.adobe_rgb())), P3_AS_SRGB),
    "code points of sRGB before a profile": ((cicp(1, 13, 0, 1), iccp(profiles.display_p3())), FLAT),
    "profile before sRGB": ((iccp(profiles.display_p3()), SRGB_CHUNK), P3_AS_SRGB),
    "profile before gamma": ((iccp(profiles.display_p3()), gama(100_000)), P3_AS_SRGB),
    "broken profile before gamma": (((b"iCCP", b"x\0\0garbage"), gama(100_000)), (188, 137, 99)),
}


@pytest.mark.parametrize(("chunks", "expected"), DESCRIBED.values(), ids=DESCRIBED.keys())
def test_colour_comes_out_as_described(studio: Studio, chunks: Sequence[c.Chunk], expected: tuple[int, ...]) -> None:
    found = shown(studio, *chunks)
    assert near(found, expected, 3), found


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_other_kinds_of_png_are_described_too(studio: Studio, mode: str) -> None:
    flat = Image.new("RGB", (64, 48), FLAT)
    flat = flat.quantize(4) if mode == "P" else flat.convert(mode)
    studio.render(c.after_header(make.encoded(flat, "PNG"), cicp(12, 13, 0, 1)), "PNG")
    pixel = studio.variant("large").convert("RGB").getpixel((30, 20))
    assert near(pixel, P3_AS_SRGB, 3), pixel


def test_grey_has_its_curve_and_no_primaries(studio: Studio) -> None:
    assert near(shown(studio, gama(100_000), colour=(128,), mode="L"), (188, 188, 188), 3)
    assert near(shown(studio, gama(45_455), chrm(*P3), colour=(128,), mode="L"), (128, 128, 128), 1)
    assert near(shown(studio, cicp(9, 13, 0, 1), colour=(128,), mode="L"), (128, 128, 128), 1)


def sixteen_bits(*samples: float) -> bytes:
    row = b"\0" + b"".join(struct.pack(">3H", *(round(65535 * sample) for sample in samples)) for _ in range(64))
    return make.png(64, 48, 16, 2, row * 48)


def levels(studio: Studio, transfer: int, *samples: float) -> list[int]:
    found = []
    for sample in samples:
        studio.render(c.after_header(sixteen_bits(sample, sample, sample), cicp(9, transfer, 0, 1)), "PNG")
        pixel = studio.variant("large").convert("RGB").getpixel((30, 20))
        assert isinstance(pixel, tuple)
        assert max(pixel) - min(pixel) <= 2  # grey stays grey
        found.append(pixel[1])
    return found


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.5807), (18, 0.75)], ids=["PQ", "HLG"])
def test_hdr_is_brought_into_the_range_of_a_screen(studio: Studio, transfer: int, white: float) -> None:
    black, dark, middle, reference, peak = levels(studio, transfer, 0, white * 0.4, white * 0.7, white, 1)
    assert black == 0
    assert black < dark < middle < reference <= peak == 255
    assert 238 <= reference <= 252  # HDR reference white is nearly white
    assert 60 < middle < 215


def test_hdr_colours_keep_their_hue(studio: Studio) -> None:
    studio.render(c.after_header(sixteen_bits(0.5, 0.3, 0.2), cicp(9, 16, 0, 1)), "PNG")
    pixel = studio.variant("large").convert("RGB").getpixel((30, 20))
    assert isinstance(pixel, tuple)
    assert pixel[0] > pixel[1] + 60 > pixel[2] + 60
