"""What a file may cost is known before it is decoded: by its header, its scans and its length."""

import io
import random
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from PIL import Image, ImageFile

from fixtures import hostile, make, profiles
from imgsvc.imaging import limits, pipeline, png_chunks
from imgsvc.imaging.errors import ImageError, OutOfTime, TooLarge, Unreadable
from imgsvc.imaging.essentials import read_essentials
from imgsvc.imaging.exif import orientation
from imgsvc.imaging.header import Header
from imgsvc.imaging.jpeg_segments import FILL, read_scans
from imgsvc.imaging.limits import SAMPLES_PER_PIXEL, has_cheap_preview
from imgsvc.imaging.pieces import Pieces, Span
from tests.conftest import Starter
from tests.support.rendered_paths import open_image, probe
from tests.support.rendering import RECIPE, Studio, assert_upright, photo

MAX_PIXELS = RECIPE.max_pixels
SECONDS = 0.5  # of the processor: each of these took 2 to 200 before, and takes milliseconds


@contextmanager
def quick() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


def probed(studio: Studio, data: bytes, mime: str = "image/jpeg") -> Header:
    return probe(studio.place(data), mime, max_pixels=MAX_PIXELS)


# Scans


async def test_scans_that_cost_more_than_a_picture_are_refused_at_upload(start: Starter) -> None:
    async with start() as s:
        refused = await s.upload(hostile.empty_scans(6700, 6700, 200))
        assert (refused.status_code, refused.json()["code"]) == (422, "image_too_large")
        detail = refused.json()["detail"]
        assert "200 scans of 6700 x 6700 pixels" in detail
        assert "8988.7 million samples" in detail and "at most 1500 million" in detail
        assert s.staged() == []


@pytest.mark.parametrize("components", [1, 3])
def test_the_limit_is_on_pixels_times_scans(studio: Studio, components: int) -> None:
    with quick(), pytest.raises(TooLarge, match="samples to decode"):
        probed(studio, hostile.empty_scans(7000, 7000, 31, components))
    assert probed(studio, hostile.empty_scans(7000, 7000, 30, components)).coded <= MAX_PIXELS * SAMPLES_PER_PIXEL


@pytest.mark.parametrize(
    ("mode", "options", "scans", "per_pixel"),
    [
        ("L", {}, 1, 1),
        ("RGB", {}, 1, 1.5),
        ("RGB", {"subsampling": 0}, 1, 3),
        ("RGB", {"progressive": True}, 10, 8),
        ("RGB", {"progressive": True, "subsampling": 0}, 10, 14),
        ("CMYK", {"progressive": True, "subsampling": 0}, 18, 24),
    ],
)
def test_what_encoders_write_is_priced_far_below(
    mode: str, options: dict[str, object], scans: int, per_pixel: float
) -> None:
    data = make.encoded(make.photo(320, 240).convert(mode), "JPEG", **options)
    found = read_scans(io.BytesIO(data))
    assert (found.count, found.samples, found.end) == (scans, per_pixel * 320 * 240, len(data))
    assert per_pixel < SAMPLES_PER_PIXEL


@pytest.mark.parametrize("place", ["behind the end", "in a segment", "in a segment among the scans"])
def test_only_scans_of_the_picture_count(studio: Studio, place: str) -> None:
    data, many = make.jpeg(640, 480, progressive=True), b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 300
    other = hostile.segment(0xEB, many)
    at = {"behind the end": len(data), "in a segment": 2, "in a segment among the scans": data.rindex(b"\xff\xda")}[
        place
    ]
    data = data[:at] + (many if place == "behind the end" else other) + data[at:]
    assert probed(studio, data).scans == 10
    assert studio.render(data, "JPEG").width == 640


class Counted(io.BytesIO):
    """Counts the bytes that are read."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


def test_a_preview_reads_the_coded_data_twice() -> None:
    source = Counted(make.encoded(make.photo(1600, 1200), "JPEG", quality=95))
    assert pipeline.preview(source, "image/jpeg", RECIPE, {RECIPE.preview.name: io.BytesIO()})
    assert source.total < 2.2 * len(source.getvalue())  # once for its scans, and once to decode it


PARTS = (b"\xff\0", b"\xff\xd3", b"\xff" * 5, b"\xff", bytes(4000), b"\xff\x01", hostile.segment(0xEB, b"x\xff\xd9"))
ENDS = (b"\xff\xd9", b"\xff\xd9more", b"", b"\xff", b"\0")


@pytest.mark.parametrize("seed", range(50))
def test_a_picture_in_memory_is_walked_as_one_in_a_file(seed: int) -> None:
    """Which is read in windows: parts lie across their ends."""
    chosen, data = random.Random(seed), make.tiny(progressive=True)
    scan = data.rindex(b"\xff\xda") + 12
    coded = b"".join(chosen.choices(PARTS, (9, 3, 1, 1, 9, 1, 1), k=seed * 2))
    data = data[:scan] + coded + chosen.choice(ENDS)
    assert read_scans(io.BytesIO(data)) == read_scans(cast(BinaryIO, io.BufferedReader(io.BytesIO(data))))


def test_narrow_pictures_are_priced_by_their_blocks() -> None:
    found = read_scans(io.BytesIO(hostile.empty_scans(1, 60_000, 200, 3)))
    assert found.samples == 200 * 8 * 60_000


def test_a_million_markers_among_the_pixels_are_refused(studio: Studio) -> None:
    data = make.jpeg(640, 480)
    at = data.index(b"\xff\xda") + 20
    with quick(), pytest.raises(Unreadable, match="segments among its scans"):
        probed(studio, data[:at] + b"\xff\x01" * 1_000_000 + data[at:])


def test_fill_bytes_among_the_pixels_are_refused(studio: Studio) -> None:
    with quick(), pytest.raises(Unreadable, match="fill bytes"):
        probed(studio, hostile.fill_bytes(9_000_000))
    assert probed(studio, hostile.fill_bytes(70)).scans == 1


@pytest.mark.parametrize("at", [90_000, 100_001, 120_007])
def test_shortest_run_of_fill_bytes_that_is_refused(at: int) -> None:
    data = make.tiny()[:-2]
    with pytest.raises(Unreadable, match="fill bytes"):
        read_scans(io.BytesIO(data + bytes(at) + FILL + bytes(400_000) + b"\xff\xd9"))
    assert read_scans(io.BytesIO(data + bytes(at) + FILL[1:] + bytes(400_000) + b"\xff\xd9")).count == 1


# The preview lane


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: hostile.empty_scans(7000, 7000, 29), id="large, many scans"),
        pytest.param(lambda: hostile.empty_scans(2000, 2000, 200), id="small, more scans"),
    ],
)
def test_a_dear_preview_is_left_to_the_render(studio: Studio, data: Callable[[], bytes]) -> None:
    assert not has_cheap_preview(probed(studio, data()))
    with quick():
        assert studio.preview(data(), "JPEG") is None


def test_a_preview_that_takes_several_decodes_is_left_to_the_render(studio: Studio) -> None:
    """The picture is grey, as rows are that a file lacks: only further decodes show that it lacks none."""
    assert studio.preview(hostile.empty_scans(1000, 1000, 30), "JPEG") is not None
    dear = hostile.empty_scans(1700, 1700, 33)
    assert has_cheap_preview(probed(studio, dear))
    assert studio.preview(dear, "JPEG") is None
    assert studio.render(dear, "JPEG").variants


def test_a_long_file_of_few_pixels_is_left_to_the_render(studio: Studio) -> None:
    data = hostile.empty_deflate_blocks(limits.SPARE_BYTES + 64 * 48 * 3)
    with quick():
        assert studio.preview(data) is None
    assert studio.preview(hostile.empty_deflate_blocks(limits.SPARE_BYTES))


@pytest.mark.parametrize(
    ("header", "cheap"),
    [
        (Header("JPEG", 8160, 6120, 3, coded=150_000_000), True),  # 50 megapixels, 4:4:4, one scan
        (Header("JPEG", 4000, 3000, 3, whole=True, scans=10, coded=96_000_000), True),  # 12, 4:2:0, progressive
        (Header("JPEG", 8160, 6120, 3, whole=True, scans=10, coded=400_000_000), False),
        (Header("JPEG", 8160, 6120, 3, arithmetic=True, coded=150_000_000), False),
        (Header("PNG", 1600, 1200, 4, length=4_000_000), True),
        (Header("PNG", 1600, 1200, 4, length=5_000_000), False),
        (Header("PNG", 800, 600, 3, length=2_000_000), False),
        (Header("WEBP", 800, 600, 3, length=1_400_000), True),
    ],
)
def test_what_is_cheap(header: Header, cheap: bool) -> None:
    assert has_cheap_preview(header) is cheap


def test_the_clock_is_looked_at_amid_a_decode(studio: Studio) -> None:
    source = studio.place(hostile.empty_deflate_blocks(2_000_000))
    header = probe(source, "image/png", max_pixels=MAX_PIXELS)
    began = time.monotonic()
    with pytest.raises(OutOfTime):
        open_image(source, header, 300, began + 0.01)
    assert time.monotonic() - began < SECONDS


# What never reaches a decoder


@pytest.mark.parametrize("index", range(3), ids=["PNG", "JPEG", "WebP"])
def test_exif_of_many_entries_costs_nothing(studio: Studio, index: int) -> None:
    mime, data = list(hostile.exif_bombs(20_000, 3_000_000))[index]
    form = mime.removeprefix("image/").upper()
    with quick():
        studio.preview(data, form)  # or None: so long a file of few pixels is left to the render
        assert studio.render(data, form)


@pytest.mark.parametrize("kind", [b"teXt", b"eXIf", b"iTXt", b"tRNS"])
def test_empty_chunks_behind_the_picture_cost_nothing(studio: Studio, kind: bytes) -> None:
    data = hostile.empty_chunks(300_000, kind)
    with quick():
        assert studio.render(data).width == 16


def test_empty_chunks_of_pixels_have_an_end(studio: Studio) -> None:
    data = hostile.empty_chunks(300_000, b"IDAT")
    with quick(), pytest.raises(Unreadable, match="more chunks than are read"):
        studio.render(data)


async def test_empty_chunks_of_pixels_are_refused_at_upload(start: Starter) -> None:
    async with start() as s:
        refused = await s.upload(hostile.empty_chunks(20_000, b"IDAT"))
        assert (refused.status_code, refused.json()["code"]) == (422, "image_unreadable")
        assert "more chunks than are read" in refused.json()["detail"]
        assert s.staged() == []


def test_pixels_in_many_chunks_are_read(studio: Studio) -> None:
    whole = make.encoded(make.quadrants(), "PNG")
    at = whole.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", whole[at : at + 4])
    data = whole[at + 8 : at + 8 + length]
    one_by_one = b"".join(
        make.png_chunk(b"IDAT", data[n : n + 1]) + make.png_chunk(b"IDAT", b"") for n in range(length)
    )
    assert length < 2000
    studio.render(whole[:at] + one_by_one + whole[at + 12 + length :])
    assert_upright(studio.variant())


def decoders_view(data: bytes, form: str) -> tuple[bytes, bytes | None, int]:
    stream = io.BytesIO(data)
    needed = read_essentials(stream, form)
    return Pieces(stream, needed.pieces).read(), needed.profile, needed.orientation


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_decoder_sees_the_picture_and_nothing_else(form: str) -> None:
    profile, secret = profiles.display_p3(), b"SECRET" * 1000
    options: dict[str, object] = {"exif": make.exif(6), "icc_profile": profile, "xmp": secret, "comment": secret}
    plain = make.encoded(make.quadrants(), form)
    seen, found, turn = decoders_view(make.encoded(make.quadrants(), form, **options) + secret, form)
    assert (found, turn) == (profile, 6)
    assert b"SECRET" not in seen and b"ICC" not in seen and b"iCCP" not in seen
    assert len(seen) <= len(plain) + 30
    assert (
        Image.open(io.BytesIO(seen)).convert("RGB").tobytes() == Image.open(io.BytesIO(plain)).convert("RGB").tobytes()
    )


def test_what_decides_colour_is_kept_and_each_has_a_limit() -> None:
    sound = {b"cICP": bytes(4), b"sRGB": b"\0", b"gAMA": bytes(4), b"cHRM": bytes(32)}
    transparent = make.png_chunk(b"tRNS", bytes(6))
    chunks = b"".join(make.png_chunk(kind, body) for kind, body in sound.items()) + transparent
    file = hostile.with_chunks(8, 8, before=chunks * 500)
    assert png_chunks.essentials(io.BytesIO(file)).colour == sound
    assert decoders_view(file, "PNG")[0].count(transparent) == 1
    long = b"".join(make.png_chunk(kind, body + bytes(9_999)) for kind, body in (*sound.items(), (b"tRNS", b"")))
    file = hostile.with_chunks(8, 8, before=long)
    assert png_chunks.essentials(io.BytesIO(file)).colour == {}
    assert b"tRNS" not in decoders_view(file, "PNG")[0]
    huge = make.png_chunk(b"iCCP", b"p\0\0" + bytes(2_000_000))
    assert decoders_view(hostile.with_chunks(8, 8, before=huge), "PNG")[1] is None


def test_a_multi_part_profile_is_put_together() -> None:
    profile = profiles.display_p3() + bytes(150_000)
    data = make.encoded(make.quadrants(), "JPEG", icc_profile=profile)
    assert data.count(b"ICC_PROFILE") == 3
    assert decoders_view(data, "JPEG")[1] == profile
    at = data.rindex(b"ICC_PROFILE") - 4
    (length,) = struct.unpack(">H", data[at + 2 : at + 4])
    assert decoders_view(data[:at] + data[at + 2 + length :], "JPEG")[1] is None


def test_a_simple_webp_is_its_first_chunk() -> None:
    plain = make.encoded(make.quadrants(), "WEBP", lossless=True)
    more = b"VP8X\x0a\0\0\0" + bytes(10) + b"EXIF\x06\0\0\0" + bytes(6)
    assert decoders_view(plain + more, "WEBP") == (plain, None, 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_profile_of_ten_thousand_steps_costs_nothing(studio: Studio, form: str) -> None:
    data = make.encoded(make.quadrants(), form, icc_profile=profiles.srgb_in_steps(10_000))
    with quick():
        assert studio.preview(data, form)
        assert studio.render(data, form)
    assert_upright(studio.variant())


# EXIF


def block(entry: bytes, order: str = "<", at: int = 8, entries: int = 1) -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "I", at) + bytes(at - 8) + struct.pack(order + "H", entries) + entry


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (block(struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)), 6),
        (b"Exif\0\0" + block(struct.pack(">HHIHH", 0x0112, 3, 1, 8, 0), ">"), 8),
        (block(struct.pack("<HHII", 0x0112, 4, 1, 3)), 3),
        (block(struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), at=500), 6),
        (block(struct.pack("<HHIHH", 0x0112, 3, 1, 9, 0)), 1),
        (block(struct.pack("<HHIHH", 0x0112, 3, 2, 6, 0)), 1),
        (block(struct.pack("<HHIHH", 0x0112, 2, 1, 6, 0)), 1),
        (block(struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)[:-3]), 1),
        (
            block(
                struct.pack("<HHIHH", 0x0100, 3, 1, 6, 0) * 600 + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), entries=601
            ),
            1,
        ),
        (b"II*\0\xff\xff\xff\xff", 1),
        (b"", 1),
        (b"Exif\0\0", 1),
    ],
)
def test_orientation(exif: bytes, expected: int) -> None:
    assert orientation(exif) == expected


# Lengths that lie


def test_a_damaged_length_is_unreadable(studio: Studio) -> None:
    for run in (studio.preview, studio.render):
        with quick(), pytest.raises(Unreadable, match="ends after 0 of 8 rows"):
            run(hostile.damaged_length())


def test_pieces_give_what_is_there(tmp_path: Path) -> None:
    stream = io.BytesIO(bytes(range(100)))
    file = Pieces(stream, [b"ab", Span(10, 5), b"", Span(90, 1000), b"z"])
    assert file.read(1 << 40) == b"ab" + bytes(range(10, 15)) + bytes(range(90, 100))
    file = Pieces(stream, [b"ab", Span(10, 5), b"", Span(90, 10), b"z"])
    assert file.read() == b"ab" + bytes(range(10, 15)) + bytes(range(90, 100)) + b"z"
    assert (file.seek(-3, io.SEEK_END), file.read(2), file.tell()) == (15, bytes((98, 99)), 17)
    assert (file.seek(1), file.read(3), file.seek(1, io.SEEK_CUR), file.read(2)) == (1, b"b\x0a\x0b", 5, b"\x0d\x0e")
    assert (file.seek(500), file.read(5)) == (500, b"")


# Pillow's switches


def test_decodes_in_threads_leave_each_other_and_the_host_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    sources = []
    for name, size in (("small", (60, 40)), ("large", (300, 200))):
        (tmp_path / name).write_bytes(make.encoded(make.quadrants(*size), "PNG"))
        sources.append((tmp_path / name, probe(tmp_path / name, "image/png", max_pixels=60_000)))
    (tmp_path / "cut").write_bytes(photo("PNG", (300, 200))[:-9000])
    cut = tmp_path / "cut", probe(tmp_path / "cut", "image/png", max_pixels=60_000)

    def decode(number: int) -> bool:
        path, header = cut if number % 50 == 0 else sources[number % 2]
        try:
            return open_image(path, header, 300).image.size == (header.width, header.height) and path != cut[0]
        except ImageError:
            return path == cut[0]

    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(decode, range(2000)))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (1000, True)
    assert warnings.filters == filters
