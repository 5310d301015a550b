"""GIFs: the reader of their blocks, and the first picture as every still shows it."""

import io
import time

import pytest

from fixtures import gifs, make
from fixtures.gifs import BLUE, GREEN, RED, control, descriptor, gif, loops, lzw, picture
from imgsvc.imaging.any_header import read_header
from imgsvc.imaging.errors import ImageError, TooLarge, Unreadable
from imgsvc.imaging.gif_blocks import read_blocks
from imgsvc.imaging.header import MAX_SEGMENTS, Header, Truncated
from imgsvc.imaging.limits import probe
from tests.support.rendering import Studio, near

COMMENT = b"!\xfe\x06SECRET\0"


def header(data: bytes, *, count_frames: bool = True) -> Header:
    return read_header(io.BytesIO(data), "image/gif", count_frames=count_frames)


@pytest.mark.parametrize(
    ("data", "size", "frames", "channels"),
    [
        (make.animation("GIF"), (64, 48), 3, 3),
        (make.encoded(make.quadrants(), "GIF"), (320, 200), 1, 3),
        (gif(20, 10, COMMENT, picture(20, 10, RED)), (20, 10), 1, 3),
        (gif(20, 10, control(transparent=0), picture(20, 10, RED)), (20, 10), 1, 4),
        (gif(20, 10, picture(5, 5, RED, at=(3, 3))), (20, 10), 1, 4),
        (gif(0, 0, picture(20, 10, RED)), (20, 10), 1, 3),
        (gif(20, 10, picture(30, 5, RED, at=(1, 8))), (31, 13), 1, 4),
        (gif(20, 10, descriptor(0, 5) + lzw(b""), picture(20, 10, RED)), (20, 10), 1, 3),
        (gif(20, 10, picture(20, 10, RED), picture(20, 10, BLUE), end=b""), (20, 10), 2, 3),
        (gif(20, 10, picture(20, 10, RED), picture(20, 10, BLUE)[:-9], end=b""), (20, 10), 1, 3),
        (gif(20, 10, picture(20, 10, RED), b"what?" + picture(20, 10, BLUE)), (20, 10), 1, 3),
        (b"GIF87a" + gif(20, 10, picture(20, 10, RED))[6:], (20, 10), 1, 3),
    ],
)
def test_header(data: bytes, size: tuple[int, int], frames: int, channels: int) -> None:
    found = header(data)
    assert ((found.width, found.height), found.frames, found.channels) == (size, frames, channels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GIF90a" + bytes(50), "The file does not begin like a GIF."),
        (gif(20, 10), "The GIF has no picture."),
        (gif(20, 10, COMMENT), "The GIF has no picture."),
        (gif(20, 10, COMMENT * 5_000), "The GIF has more than 4000 blocks before a picture."),
        (
            gif(20, 10, descriptor(20, 10) + b"\x03" + b"\x01x" * 50_000 + b"\0"),
            "The GIF's pixels are in more blocks than are read.",
        ),
    ],
)
def test_what_is_not_read(data: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        header(data)


def test_each_prefix_is_truncated_or_a_header() -> None:
    data = gif(20, 10, COMMENT, loops(3), control(transparent=0), picture(20, 10, RED))
    begins = data.index(b",") + 10
    for end in range(len(data)):
        try:
            found = header(data[:end], count_frames=False)
        except Truncated:
            assert end < begins
        else:
            assert (found.width, found.height) == (20, 10) and end >= begins


@pytest.mark.parametrize(
    ("blocks", "plays", "milliseconds"),
    [((), 1, [100]), ((loops(0),), 0, [100]), ((loops(2),), 3, [100]), ((control(hundredths=7),), 1, [70])]
    + [((control(hundredths=n),), 1, [100]) for n in (0, 1)]
    + [((control(hundredths=65_535), loops(65_535)), 65_536, [655_350])],
)
def test_loops_and_times(blocks: tuple[bytes, ...], plays: int, milliseconds: list[int]) -> None:
    found = read_blocks(io.BytesIO(gif(5, 5, *blocks, picture(5, 5, RED))), 9)
    assert (found.plays, [one.control.milliseconds for one in found.pictures]) == (plays, milliseconds)


def test_gif_of_65535_pixels_a_side_is_refused_by_its_200_bytes() -> None:
    data = gifs.huge()
    assert len(data) < 200
    with pytest.raises(TooLarge, match=r"65535 x 65535 = 4294\.8 megapixels"):
        probe(io.BytesIO(data), "image/gif", max_pixels=50_000_000)
    beyond = gif(9, 9, descriptor(65_535, 65_535) + lzw(bytes((RED,))))
    with pytest.raises(TooLarge):
        probe(io.BytesIO(beyond), "image/gif", max_pixels=50_000_000)


def test_gif_of_100000_pictures_is_read_as_far_as_its_limit() -> None:
    data = gifs.crowd()
    began = time.process_time()
    assert header(data).frames == MAX_SEGMENTS
    assert time.process_time() - began < 2


def test_blocks_are_passed_over_quickly() -> None:
    data = gif(20, 10, descriptor(20, 10) + b"\x03" + (b"\x20" + bytes(32)) * 300_000 + b"\0")
    began = time.process_time()
    assert header(data).frames == 1
    assert time.process_time() - began < 2


def test_still_shows_colours_and_clear_places(studio: Studio) -> None:
    data = gif(
        40, 20, COMMENT, control(transparent=GREEN), picture(20, 20, bytes([RED] * 200 + [GREEN] * 200), at=(10, 0))
    )
    rendering = studio.render(data, "GIF")
    assert (rendering.width, rendering.height, rendering.frames) == (40, 20, 1)
    image = studio.variant().convert("RGBA")
    assert near(image.getpixel((20, 4)), (*make.RED, 255))
    alpha = image.getchannel("A")
    for place in ((3, 4), (36, 4), (20, 16)):
        assert alpha.getpixel(place) == 0, place
    assert b"SECRET" not in studio.bytes_of("large")


def test_interlaced_rows_are_in_their_places(studio: Studio) -> None:
    order = [*range(0, 16, 8), *range(4, 16, 8), *range(2, 16, 4), *range(1, 16, 2)]
    rows = {y: bytes([RED if y < 8 else BLUE] * 16) for y in range(16)}
    studio.render(gif(16, 16, picture(16, 16, b"".join(rows[y] for y in order), interlaced=True)), "GIF")
    image = studio.variant().convert("RGB")
    assert all(near(image.getpixel((5, y)), make.RED if y < 8 else make.BLUE, 30) for y in (1, 6, 9, 14))


def test_transparent_grey_palette(studio: Studio) -> None:
    greys = gifs.palette([(n * 36, n * 36, n * 36) for n in range(8)])
    studio.render(gif(8, 8, control(transparent=2), picture(8, 8, bytes([2, 6] * 32)), colours=greys), "GIF")
    image = studio.variant().convert("RGBA")
    assert (image.getchannel("A").getpixel((0, 0)), image.getpixel((1, 0))) == (0, (216, 216, 216, 255))


@pytest.mark.parametrize("left", [0, 20, 399])
def test_rows_that_are_missing_are_no_picture(studio: Studio, left: int) -> None:
    data = gif(20, 20, descriptor(20, 20) + lzw(bytes([RED] * left)))
    with pytest.raises(ImageError):
        studio.render(data, "GIF")
