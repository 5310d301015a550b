import io
import random
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from PIL import Image

from fixtures import make, profiles
from imgsvc.imaging.any_header import read_header
from imgsvc.imaging.errors import ImageError, TooLarge, Unreadable, Unsupported
from imgsvc.imaging.header import MAX_SEGMENTS, Header, Truncated
from imgsvc.imaging.limits import check_limits

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"
SIZE = (61, 43)
PICTURE = make.quadrants(*SIZE)
CLEAR = PICTURE.convert("RGBA")
CLEAR.putalpha(100)
PALETTE = make.palette_with_transparency()


def read(data: bytes, mime: str, *, count_frames: bool = True) -> Header:
    return read_header(io.BytesIO(data), mime, count_frames=count_frames)


def raw_png(bits: int, colour: int, samples: int) -> bytes:
    row = bytes(1 + (SIZE[0] * bits * samples + 7) // 8)
    return make.png(*SIZE, bits, colour, row * SIZE[1])


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    return make.encoded(PICTURE.convert(mode), "JPEG", **options)


def webp(image: Image.Image = PICTURE, **options: object) -> bytes:
    return make.encoded(image, "WEBP", **options)


KINDS: list[tuple[str, bytes, str, dict[str, object]]] = [
    ("baseline", jpeg(), JPEG, {"channels": 3, "whole": False, "coefficients": 1.5}),
    ("progressive", jpeg(progressive=True), JPEG, {"channels": 3, "whole": True}),
    ("444", jpeg(subsampling=0), JPEG, {"channels": 3, "coefficients": 3.0}),
    ("422", jpeg(subsampling=1), JPEG, {"channels": 3, "coefficients": 2.0}),
    ("cmyk", jpeg("CMYK"), JPEG, {"channels": 4, "alpha": False}),
    ("grey", jpeg("L"), JPEG, {"channels": 1, "coefficients": 1.0}),
    ("profile", jpeg(icc_profile=profiles.display_p3()), JPEG, {"profile": True}),
    ("leaky", make.leaky_jpeg(), JPEG, {"profile": True}),
    ("rgb", make.encoded(PICTURE, "PNG"), PNG, {"channels": 3, "bits": 8, "indirect": False, "profile": False}),
    ("rgba", make.encoded(CLEAR, "PNG"), PNG, {"channels": 4, "alpha": True}),
    ("palette", make.encoded(PICTURE.quantize(16), "PNG"), PNG, {"channels": 3, "indirect": True}),
    ("tRNS", PALETTE, PNG, {"channels": 4, "alpha": True, "indirect": True}),
    ("key", make.encoded(PICTURE, "PNG", transparency=make.RED), PNG, {"channels": 4, "indirect": True}),
    ("1 bit", raw_png(1, 0, 1), PNG, {"channels": 1, "bits": 1, "indirect": True}),
    ("16-bit grey", make.grey_16_bit(), PNG, {"channels": 1, "bits": 16}),
    ("16-bit grey and alpha", raw_png(16, 4, 2), PNG, {"channels": 2, "bits": 16, "alpha": True}),
    ("16-bit rgb", raw_png(16, 2, 3), PNG, {"channels": 3, "bits": 16}),
    ("png profile", make.encoded(PICTURE, "PNG", icc_profile=profiles.srgb()), PNG, {"profile": True}),
    ("apng", make.animation("PNG"), PNG, {"channels": 3, "frames": 3}),
    ("lossy", webp(), WEBP, {"channels": 3, "frames": 1}),
    ("lossless", webp(lossless=True), WEBP, {"channels": 3}),
    ("lossless alpha", webp(CLEAR, lossless=True), WEBP, {"channels": 4, "alpha": True}),
    ("lossy alpha", webp(CLEAR), WEBP, {"channels": 4}),
    ("webp profile", webp(icc_profile=profiles.srgb()), WEBP, {"profile": True}),
    ("animated", make.animation("WEBP"), WEBP, {"frames": 3}),
]
FILES = [pytest.param(data, mime, id=name) for name, data, mime, _ in KINDS]


def end_of_header(data: bytes, mime: str) -> int:
    if mime == JPEG:
        return data.index(b"\xff\xda") + 2
    if mime == PNG:
        return data.index(b"IDAT") + 4
    return {b"VP8 ": 30, b"VP8L": 25, b"VP8X": 30}[data[12:16]]


@pytest.mark.parametrize(("data", "mime", "expected"), [pytest.param(*kind[1:], id=kind[0]) for kind in KINDS])
def test_what_a_header_says(data: bytes, mime: str, expected: dict[str, object]) -> None:
    header = read(data, mime)
    with Image.open(io.BytesIO(data)) as image:
        assert (header.format, header.width, header.height) == (image.format, *image.size)
    assert {name: getattr(header, name) for name in expected} == expected


@pytest.mark.parametrize(("data", "mime"), FILES)
def test_a_prefix_with_the_header_is_enough(data: bytes, mime: str) -> None:
    start = read(data[: end_of_header(data, mime)], mime, count_frames=False)
    assert start == read(data, mime, count_frames=False)
    assert start.frames == 1


@pytest.mark.parametrize(("data", "mime"), FILES)
def test_every_shorter_prefix_is_truncated(data: bytes, mime: str) -> None:
    for length in range(end_of_header(data, mime)):
        with pytest.raises(Truncated):
            read(data[:length], mime)


@pytest.mark.parametrize(("data", "mime"), FILES)
def test_damage_raises_nothing_else(data: bytes, mime: str) -> None:
    source, longest = random.Random(7), 0.0
    whole = data[: end_of_header(data, mime) + 200]
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(source.choice((1, 2, 8))):
            damaged[source.randrange(len(damaged))] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
        start = time.perf_counter()
        with suppress(ImageError):
            header = read(bytes(damaged), mime)
            assert header.width > 0 and header.height > 0 and header.frames > 0
        longest = max(longest, time.perf_counter() - start)
    assert longest < 0.5


@pytest.mark.parametrize("mime", [JPEG, PNG, WEBP])
def test_noise_raises_nothing_else(mime: str) -> None:
    source = random.Random(3)
    for length in range(300):
        with pytest.raises(ImageError):
            read(source.randbytes(length), mime)


@pytest.mark.parametrize(("data", "mime"), FILES)
def test_one_format_is_not_read_as_another(data: bytes, mime: str) -> None:
    for other in {JPEG, PNG, WEBP} - {mime}:
        with pytest.raises(Unreadable):
            read(data, other)


def riff(*chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WEBP" + b"".join(chunks)


def vp8x(flags: int = 0, length: int = 10) -> bytes:
    return b"VP8X" + struct.pack("<I", length) + bytes((flags, 0, 0, 0)) + bytes((60, 0, 0, 42, 0, 0))


PNG_START = make.png(*SIZE, 8, 2, b"")[:33]
TINY_PNG = make.png_chunk(b"teXt", b"")
ENDLESS = {
    "empty segments": (b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000, JPEG),
    "bodiless markers": (b"\xff\xd8" + b"\xff\xd0" * 1_000_000, JPEG),
    "fill bytes": (b"\xff\xd8" + b"\xff" * 4_000_000, JPEG),
    "empty chunks": (PNG_START + TINY_PNG * 300_000, PNG),
    "empty webp chunks": (riff(vp8x(2), b"JUNK\0\0\0\0" * 500_000), WEBP),
    "empty frames": (riff(vp8x(2), b"ANMF\0\0\0\0" * 500_000), WEBP),
}


@pytest.mark.parametrize(("data", "mime"), ENDLESS.values(), ids=ENDLESS.keys())
def test_endless_headers_are_refused_at_once(data: bytes, mime: str) -> None:
    start = time.perf_counter()
    with pytest.raises(Unreadable) as refused:
        read(data, mime)
    assert not isinstance(refused.value, Truncated)
    assert time.perf_counter() - start < 0.5


def test_as_many_segments_as_allowed_are_read() -> None:
    data = jpeg()
    assert read(data[:2] + b"\xff\xfe\0\2" * (MAX_SEGMENTS - 20) + data[2:], JPEG).width == SIZE[0]
    assert read(data[:2] + b"\xff" * 50 + data[2:], JPEG).width == SIZE[0]


def frame(marker: int = 0xC0, bits: int = 8, width: int = 61, height: int = 43, components: int = 3) -> bytes:
    body = struct.pack(">BHHB", bits, height, width, components) + b"\1\x11\0" * components
    return b"\xff\xd8\xff" + bytes((marker,)) + struct.pack(">H", len(body) + 2) + body + b"\xff\xda"


def lossy(width: int, height: int) -> bytes:
    return riff(b"VP8 \x0a\0\0\0" + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height))


@pytest.mark.parametrize("make_file", [frame, lossy, lambda width, height: make.png(width, height, 8, 2, b"")])
@pytest.mark.parametrize(("width", "height"), [(0, 43), (61, 0), (0, 0)])
def test_zero_sizes_are_refused(make_file: Callable[..., bytes], width: int, height: int) -> None:
    mime = {b"\xff": JPEG, b"\x89": PNG, b"R": WEBP}[make_file(width=61, height=43)[:1]]
    assert read(make_file(width=61, height=43), mime).pixels == 61 * 43
    with pytest.raises(Unreadable, match=f"{width} x {height}"):
        read(make_file(width=width, height=height), mime)


@pytest.mark.parametrize(("marker", "bits"), [(0xC0, 12), (0xC1, 12), (0xC2, 12), (0xC3, 8), (0xC7, 8), (0xCB, 8)])
def test_rare_jpegs_are_unsupported(marker: int, bits: int) -> None:
    with pytest.raises(Unsupported, match=f"frame type {marker - 0xC0}, {bits} bits"):
        read(frame(marker, bits), JPEG)


DAMAGED = {
    "no frame": (b"\xff\xd8\xff\xda", JPEG),
    "ends at once": (b"\xff\xd8\xff\xd9", JPEG),
    "two components": (frame(components=2), JPEG),
    "no components": (frame(components=0), JPEG),
    "impossible length": (b"\xff\xd8\xff\xe0\0\1", JPEG),
    "short frame": (b"\xff\xd8\xff\xc0\0\4\x08\0", JPEG),
    "stray bytes": (b"\xff\xd8\xff\xfe\0\2" + b"stray" * 20_000, JPEG),
    "no pixels": (PNG_START + make.png_chunk(b"IEND", b""), PNG),
    "no IHDR": (PNG_START[:8] + TINY_PNG, PNG),
    "colour type": (make.png(*SIZE, 8, 5, b""), PNG),
    "huge chunk": (PNG_START + b"\xff\xff\xff\xffteXt", PNG),
    "chunk": (riff(b"JUNK\0\0\0\0"), WEBP),
    "no key frame": (riff(b"VP8 \x0a\0\0\0" + bytes(10)), WEBP),
    "signature": (riff(b"VP8L\x05\0\0\0" + bytes(5)), WEBP),
}


@pytest.mark.parametrize(("data", "mime"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_headers_are_unreadable(data: bytes, mime: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(data, mime)
    assert not isinstance(refused.value, Truncated)


@pytest.mark.parametrize("length", [0, 1, 9, 0xFFFFFFFF])
def test_an_odd_vp8x_length_does_no_harm(length: int) -> None:
    assert read(riff(vp8x(2, length), b"ANMF\0\0\0\0"), WEBP).frames >= 1


def test_a_bomb_is_too_large() -> None:
    bomb = make.bomb()
    assert len(bomb) < 4096
    with pytest.raises(TooLarge, match=r"30000 x 30000 = 900\.0 megapixels; at most 50 megapixels"):
        check_limits(read(bomb, PNG), max_pixels=50_000_000)


def test_limits_are_inclusive() -> None:
    header = Header("PNG", 100, 100, 3)
    check_limits(header, max_pixels=10_000)
    with pytest.raises(TooLarge, match="100 x 100"):
        check_limits(header, max_pixels=9_999)


@pytest.mark.parametrize(("claimed", "read_as"), [(0, 1), (2000, 2000), (0x7FFFFFFF, 0x7FFFFFFF), (0xFFFFFFFF, 1)])
def test_claimed_frames_are_noted_and_an_impossible_number_is_not(claimed: int, read_as: int) -> None:
    data = make.png(8, 8, 8, 2, bytes(200), make.png_chunk(b"acTL", struct.pack(">II", claimed, 0)))
    assert read(data, PNG).frames == read_as
