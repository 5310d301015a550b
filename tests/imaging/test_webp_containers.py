"""A WebP whose container is wrong is shown if the chunk of its picture is whole."""

import struct
from collections.abc import Callable, Iterable

import pytest
from PIL import Image

from fixtures import containers as c
from fixtures import make
from imgsvc.imaging.errors import Unreadable
from tests.support.rendering import Studio, assert_upright, same_as

WIDTH, HEIGHT = 320, 200
ANIMATED, CLEAR = 0x02, 0x10  # flags of VP8X
EXIF = (b"EXIF", make.exif(1))


def coded(*, clear: bool = False, **options: object) -> list[c.Chunk]:
    """The chunks of a still, without VP8X."""
    image = make.quadrants(WIDTH, HEIGHT, "RGBA" if clear else "RGB")
    if clear:
        image.putalpha(Image.new("L", image.size, 200))
    return [part for part in c.webp_parts(make.encoded(image, "WEBP", **options)) if part[0] != b"VP8X"]


def sides(width: int, height: int) -> bytes:
    return (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def extended(flags: int, *chunks: c.Chunk, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    return c.webp_file([(b"VP8X", bytes((flags, 0, 0, 0)) + sides(*size)), *chunks])


def frame(chunks: Iterable[c.Chunk]) -> c.Chunk:
    inner = c.webp_file(chunks)[12:]
    return b"ANMF", bytes(6) + sides(WIDTH, HEIGHT) + (100).to_bytes(3, "little") + b"\0" + inner


def claiming(length: int, file: bytes) -> bytes:
    """A simple WebP whose only chunk says this length."""
    return file[:16] + struct.pack("<I", length) + file[20:]


(LOSSY,), (LOSSLESS,) = coded(), coded(lossless=True)
SIMPLE = c.webp_file([LOSSY])
ALPHA, BESIDE_ALPHA = coded(clear=True)
ANIM = (b"ANIM", bytes(6))
WRONG: dict[str, Callable[[], bytes]] = {
    "still said to be an animation": lambda: extended(ANIMATED, LOSSY),
    "lossless still said to be an animation": lambda: extended(ANIMATED | CLEAR, LOSSLESS),
    "still with an animation's head": lambda: extended(ANIMATED, ANIM, LOSSY),
    "all flags": lambda: extended(0xFF, LOSSY),
    "animation said to be a still": lambda: extended(0, ANIM, frame([LOSSY]), frame([LOSSY])),
    "animation without its head": lambda: extended(ANIMATED, frame([LOSSY]), frame([LOSSY])),
    "animation with a short head": lambda: extended(ANIMATED, (b"ANIM", b"\0"), frame([LOSSY])),
    "animation with its head behind": lambda: extended(ANIMATED, frame([LOSSY]), ANIM),
    "still behind an animation": lambda: extended(ANIMATED, ANIM, frame([LOSSY]), LOSSY),
    "canvas too large": lambda: extended(0, LOSSY, size=(WIDTH + 1, HEIGHT + 90)),
    "canvas too small": lambda: extended(0, LOSSLESS, size=(1, 1)),
    "canvas on its side": lambda: extended(0, LOSSY, EXIF, size=(HEIGHT, WIDTH)),
    "canvas of a thousand megapixels": lambda: extended(0, LOSSY, size=(1 << 14, 1 << 16)),
    "alpha behind the picture": lambda: extended(CLEAR, LOSSY, ALPHA),
    "alpha beside a lossless picture": lambda: extended(CLEAR, ALPHA, LOSSLESS),
    "length of the chunk one too large": lambda: claiming(len(LOSSY[1]) + 1, SIMPLE),
    "length of the chunk far too large": lambda: claiming(1_000_000, SIMPLE),
    "length of the chunk as large as can be": lambda: claiming(0xFFFFFFFF, SIMPLE),
    "length of a lossless chunk too large": lambda: claiming(len(LOSSLESS[1]) + 2, c.webp_file([LOSSLESS])),
}


@pytest.mark.parametrize("make_file", WRONG.values(), ids=WRONG.keys())
def test_picture_is_shown(studio: Studio, make_file: Callable[[], bytes]) -> None:
    rendering = studio.render(make_file(), "WEBP")
    assert (rendering.width, rendering.height) == (WIDTH, HEIGHT)
    assert_upright(studio.variant("medium"))


def test_alpha_is_kept_in_a_canvas_of_a_wrong_size(studio: Studio) -> None:
    chunks = (ALPHA, BESIDE_ALPHA)
    same_as(studio, extended(CLEAR, *chunks, size=(9, 9)), extended(CLEAR, *chunks), "WEBP")
    assert studio.variant("medium").convert("RGBA").getpixel((60, 40))[3] in range(195, 206)  # type: ignore[index]


@pytest.mark.parametrize("alpha", [b"", b"\0", b"\1" + b"\xff" * 20, bytes(100)])
def test_damaged_alpha_is_refused(studio: Studio, alpha: bytes) -> None:
    with pytest.raises(Unreadable):
        studio.render(extended(CLEAR, (b"ALPH", alpha), BESIDE_ALPHA), "WEBP")


def test_exif_behind_a_simple_file_does_not_count(studio: Studio) -> None:
    rendering = studio.render(c.webp_file([LOSSY, (b"EXIF", make.exif(6))]), "WEBP")
    assert (rendering.width, rendering.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("chunks", [[], [EXIF], [ALPHA]])
def test_container_without_a_picture_is_refused(studio: Studio, chunks: list[c.Chunk]) -> None:
    with pytest.raises(Unreadable, match="no picture"):
        studio.render(extended(0, *chunks), "WEBP")
