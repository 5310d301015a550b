"""Files that are wrong somewhere and that every viewer shows all the same; and pictures of which rows are missing."""

import random
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from fixtures import containers as c
from fixtures import make
from imgsvc.imaging.errors import Unreadable
from imgsvc.imaging.header import MAX_STRAY
from tests.support.rendering import Studio, assert_upright, near, same_as

WIDTH, HEIGHT = 320, 200
JPEGS = {
    "baseline": lambda **more: make.encoded(make.quadrants(WIDTH, HEIGHT), "JPEG", quality=90, **more),
    "progressive": lambda **more: make.encoded(make.quadrants(WIDTH, HEIGHT), "JPEG", progressive=True, **more),
    "photo": lambda **more: make.jpeg(640, 480, **more),
    "progressive photo": lambda **more: make.jpeg(640, 480, progressive=True, **more),
    "grey photo": lambda **more: make.encoded(make.photo(500, 380).convert("L"), "JPEG", **more),
    "full colour": lambda **more: make.jpeg(640, 480, subsampling=0, **more),
    "restarts": lambda **more: make.jpeg(640, 480, restart_marker_blocks=7, **more),
}


@pytest.mark.parametrize("marker", [0xDB, 0xC0, 0xC4, c.SOS])
@pytest.mark.parametrize("stray", [b"\0", b"ab", b"\xff\0", b"\xff" * 70, b"\xff\xff\0\xff", bytes(MAX_STRAY // 2)])
def test_stray_bytes_between_segments_are_skipped(studio: Studio, stray: bytes, marker: int) -> None:
    sound = JPEGS["baseline"]()
    same_as(studio, c.jpeg_file(c.before(c.jpeg_parts(sound), marker, stray)), sound, "JPEG")


def test_endless_stray_bytes_are_refused(studio: Studio) -> None:
    parts = c.jpeg_parts(JPEGS["baseline"]())
    with pytest.raises(Unreadable, match="stray bytes"):
        studio.render(c.jpeg_file(c.before(parts, 0xC0, bytes(MAX_STRAY + 10))), "JPEG")


@pytest.mark.parametrize("behind", [b"", bytes(512), bytes(300_000)], ids=["", "zeros", "many zeros"])
@pytest.mark.parametrize("cut", [2, 4, 10])
@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_without_its_last_bytes_is_completed(studio: Studio, kind: str, cut: int, behind: bytes) -> None:
    studio.render(JPEGS[kind]()[:-cut] + behind, "JPEG")
    if kind in ("baseline", "progressive"):
        assert_upright(studio.variant("medium"))


@pytest.mark.parametrize("end", [b"", b"\xff\xd9", bytes(5000)], ids=["cut", "closed", "zeroed"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
@pytest.mark.parametrize("kind", ["photo", "progressive photo", "grey photo", "full colour", "restarts"])
def test_jpeg_that_lost_rows_is_refused(studio: Studio, kind: str, share: float, end: bytes) -> None:
    if (kind, share, end) == ("progressive photo", 0.9, b"\xff\xd9"):
        pytest.skip("its last scan, closed by its own EOI, only lacks precision: to find that would cost every picture")
    sound = JPEGS[kind]()
    with pytest.raises(Unreadable, match=r"ends (after \d+ of \d+ rows|before its last scan)\.") as refused:
        studio.render(sound[: int(len(sound) * share)] + end, "JPEG")
    if "progressive" not in kind:
        _, _, _, _, rows, _, height, _ = str(refused.value).split()
        assert share - 0.15 < int(rows) / int(height) < share + 0.15


@pytest.mark.parametrize("size", [(640, 16), (16, 640), (24, 24), (640, 7)], ids=str)
def test_small_jpeg_that_lost_most_of_its_blocks_is_refused(studio: Studio, size: tuple[int, int]) -> None:
    head = c.jpeg_parts(make.jpeg(*size, quality=95))
    scan = head[-1]
    broken = c.jpeg_file([*head[:-1], c.Segment(scan.marker, scan.body, scan.data[: len(scan.data) // 3])])
    if size == (640, 16) or size == (640, 7):
        studio.render(broken, "JPEG")  # a part of its only row of blocks is there
    else:
        with pytest.raises(Unreadable, match="ends after"):
            studio.render(broken, "JPEG")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_grey_picture_is_not_taken_for_a_cut_one(studio: Studio, mode: str, progressive: bool) -> None:
    grey = Image.new("RGB", (WIDTH, HEIGHT), (128, 128, 128)).convert(mode)
    rendering = studio.render(make.encoded(grey, "JPEG", progressive=progressive), "JPEG")
    assert rendering.height == HEIGHT


MPF = b"MPF\0MM\0*\0\0\0\x08\0\x03" + bytes.fromhex(
    "b0000007000000043031303000b0010004000000010000000900b002000700000010000000320000000000"
)
BROKEN_SEGMENTS = {
    "MPF with too many pictures": c.Segment(0xE2, MPF + bytes(16)),
    "APP13 that stops": c.Segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
    "JFIF of a name": c.Segment(0xE0, b"JFIF\0"),
    "Adobe of a name": c.Segment(0xEE, b"Adobe"),
    "ICC of one byte": c.Segment(0xE2, b"ICC_PROFILE\0\1"),
    "EXIF of a name": c.Segment(0xE1, b"Exif\0\0"),
    "EXIF that points nowhere": c.Segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "empty APP1": c.Segment(0xE1),
    "empty comment": c.Segment(0xFE),
    "a scan's marker in an APP1": c.Segment(0xE1, b"\xff\xda" * 250),
}


@pytest.mark.parametrize("segment", BROKEN_SEGMENTS.values(), ids=BROKEN_SEGMENTS.keys())
def test_broken_segments_are_ignored(studio: Studio, segment: c.Segment) -> None:
    sound = JPEGS["baseline"]()
    parts = [part for part in c.jpeg_parts(sound) if part.marker != 0xE0]
    same_as(studio, c.jpeg_file(c.before(parts, 0xDB, segment)), sound, "JPEG")


@pytest.mark.parametrize("scan", [b"\xff\xda", b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"], ids=["markers", "scans"])
def test_what_follows_the_picture_is_not_read(studio: Studio, scan: bytes) -> None:
    sound = JPEGS["progressive"]()
    same_as(studio, sound + scan * 250 + b"ftypmp42" + bytes(1000), sound, "JPEG")


def webp(mode: str = "RGB", **options: object) -> bytes:
    return make.encoded(make.quadrants(WIDTH, HEIGHT, mode), "WEBP", **options)


def extended(file: bytes, *more: c.Chunk) -> list[c.Chunk]:
    sides = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    return [(b"VP8X", b"\x08\0\0\0" + sides), *c.webp_parts(file), *more]


WEBPS: dict[str, Callable[[], bytes]] = {
    "size one too large": lambda: c.webp_file(c.webp_parts(webp()), off_by=1),
    "size one too small": lambda: c.webp_file(c.webp_parts(webp()), off_by=-1),
    "size far too large": lambda: c.webp_file(c.webp_parts(webp()), off_by=1000),
    "size of nothing": lambda: c.webp_file(c.webp_parts(webp()), off_by=-1_000_000),
    "stray bytes behind": lambda: c.webp_file(c.webp_parts(webp()), tail=b"abc"),
    "last chunk cut": lambda: c.webp_file(extended(webp(), (b"EXIF", bytes(30))))[:-7],
    "last chunk without its padding": lambda: c.webp_file(extended(webp(), (b"EXIF", bytes(31))))[:-1],
    "lossless, size of nothing": lambda: c.webp_file(c.webp_parts(webp(lossless=True)), off_by=-1_000_000),
}


@pytest.mark.parametrize("make_file", WEBPS.values(), ids=WEBPS.keys())
def test_webp_with_a_wrong_container_is_shown(studio: Studio, make_file: Callable[[], bytes]) -> None:
    studio.render(make_file(), "WEBP")
    assert_upright(studio.variant("medium"))


@pytest.mark.parametrize("options", [{}, {"lossless": True}], ids=["lossy", "lossless"])
def test_webp_that_lost_pixels_is_refused(studio: Studio, options: dict[str, object]) -> None:
    data = make.encoded(make.photo(300, 200), "WEBP", **options)
    with pytest.raises(Unreadable):
        studio.render(data[: len(data) * 2 // 3], "WEBP")


PNGS: dict[str, Callable[[], bytes]] = {
    "RGB": lambda: make.encoded(make.photo(400, 200), "PNG"),
    "grey": lambda: make.encoded(make.photo(400, 200).convert("L"), "PNG"),
    "palette": lambda: make.encoded(make.photo(400, 200).convert("P"), "PNG"),
    "two colours": lambda: make.encoded(make.photo(401, 200).convert("1"), "PNG"),
}


def pixels(file: bytes) -> bytes:
    return c.pixels_of(file)


@pytest.mark.parametrize("kind", PNGS)
def test_png_whose_checksums_are_wrong_is_shown(studio: Studio, kind: str) -> None:
    sound = PNGS[kind]()
    packed = zlib.compress(pixels(sound))
    same_as(studio, c.with_pixels(sound, packed[:-4] + b"\1\2\3\4"), sound, "PNG")
    same_as(studio, c.with_pixels(sound, packed[:-4]), sound, "PNG")
    same_as(studio, c.with_pixels(sound, packed[:-4] + b"junk" * 1000), sound, "PNG")
    at = sound.index(b"IEND") - 4
    same_as(studio, sound[: at - 4] + b"\1\2\3\4" + sound[at:], sound, "PNG")  # the checksum of the last IDAT


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.995])
@pytest.mark.parametrize("kind", PNGS)
def test_png_of_too_few_rows_is_refused_in_words_that_count_them(studio: Studio, kind: str, share: float) -> None:
    sound = PNGS[kind]()
    rows = int(200 * share)
    length = len(pixels(sound)) // 200
    short = c.with_pixels(sound, zlib.compress(pixels(sound)[: rows * length]))
    with pytest.raises(Unreadable, match=rf"^The picture ends after {rows} of 200 rows\.$"):
        studio.render(short, "PNG")


@pytest.mark.parametrize("whole", [True, False])
def test_interlaced_png_of_too_few_rows_is_refused(studio: Studio, whole: bool) -> None:
    file = make.interlaced(41, 31)
    if whole:
        studio.render(file, "PNG")
        return
    with pytest.raises(Unreadable, match=r"ends after \d+ of 31 rows"):
        studio.render(c.with_pixels(file, zlib.compress(pixels(file)[:-60])), "PNG")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_black_picture_is_not_taken_for_a_cut_one(studio: Studio, mode: str) -> None:
    studio.render(make.encoded(Image.new(mode, (61, 43)), "PNG"), "PNG")


TRANSPARENCIES = {
    "grey with one byte": ("L", b"\0"),
    "grey with none": ("L", b""),
    "RGB with four": ("RGB", bytes(4)),
    "palette with 257": ("P", bytes(257)),
}


@pytest.mark.parametrize(("mode", "body"), TRANSPARENCIES.values(), ids=TRANSPARENCIES.keys())
def test_transparency_of_a_wrong_length_is_ignored(studio: Studio, mode: str, body: bytes) -> None:
    file = make.encoded(make.quadrants(mode=mode), "PNG")
    parts = c.png_parts(file)
    at = next(index for index, (kind, _) in enumerate(parts) if kind == b"IDAT")
    studio.render(c.png_file([*parts[:at], (b"tRNS", body), *parts[at:]]), "PNG")
    assert studio.variant("medium").mode == "RGB"
    if mode != "L":
        assert_upright(studio.variant("medium"))


def test_frames_that_are_not_decoded_refuse_nothing(studio: Studio) -> None:
    still = make.encoded(make.quadrants(), "PNG")
    rendering = studio.render(c.after_header(still, (b"acTL", struct.pack(">II", 2000, 0))), "PNG")
    assert rendering.frames == 2000
    assert_upright(studio.variant("medium"))
    many = [Image.new("RGB", (2, 2), (index % 256, index // 256, 9)) for index in range(1001)]
    data = make.encoded(many[0], "WEBP", save_all=True, append_images=many[1:], lossless=True)
    assert studio.render(data, "WEBP").frames == 1001


@pytest.mark.parametrize(("stored", "shown"), [(1216, 1201), (2416, 2401), (2416, 2405), (1216, 1209)])
def test_reduced_decode_shows_nothing_from_beyond_the_edge(studio: Studio, stored: int, shown: int) -> None:
    image = Image.new("RGB", (stored, stored), (255, 0, 0))
    image.paste((255, 255, 255), (0, 0, shown, shown))
    parts = c.jpeg_parts(make.encoded(image, "JPEG", quality=95))
    parts = [
        c.Segment(0xC0, part.body[:1] + struct.pack(">HH", shown, shown) + part.body[5:])
        if part.marker == 0xC0
        else part
        for part in parts
    ]
    studio.render(c.jpeg_file(parts), "JPEG")
    for name in ("small", "medium", "large"):
        found = studio.variant(name).convert("RGB")
        side = found.width - 1
        for place in ((side, side), (side, side // 2), (side // 2, side)):
            pixel = found.getpixel(place)
            assert near(pixel, (255, 255, 255), 6), (name, place, pixel)


@pytest.mark.parametrize("size", [(2401, 1601), (2407, 1603), (1999, 1333), (4801, 3201)], ids=str)
def test_reduced_decode_does_not_shift_the_picture(studio: Studio, size: tuple[int, int]) -> None:
    """A line at two thirds of the width is there in the thumbnail too, to a tenth of its pixels."""
    width, height = size
    image = Image.new("L", size, 0)
    image.paste(255, (width * 2 // 3, 0, width, height))
    studio.render(make.encoded(image, "JPEG", quality=95), "JPEG")
    for name in ("small", "medium"):
        found = studio.variant(name).convert("L")
        row = found.crop((0, found.height // 2, found.width, found.height // 2 + 1)).tobytes()
        bright = sum(row) / 255 / found.width
        assert abs(bright - (width - width * 2 // 3) / width) < 0.12 / found.width * 2, (name, bright)


def arithmetic(width: int = 2000, height: int = 1500) -> bytes:
    """A grey JPEG coded arithmetically, of 190 KB of noise: any bytes are coefficients to such a decoder.

    Each row of blocks is an interval of its own, so that the decoder reads on after one that it can't make sense of.
    """
    chance, rows = random.Random(1), -(-height // 8)
    coded = [chance.randbytes(1000).replace(b"\xff", b"\xfe") + bytes((0xFF, 0xD0 + row % 8)) for row in range(rows)]
    sound = c.jpeg_parts(make.encoded(make.photo(width, height).convert("L"), "JPEG"))
    parts = []
    for part in sound:
        if part.marker == 0xC0:
            parts += [c.Segment(0xC9, part.body), c.Segment(0xDD, struct.pack(">H", -(-width // 8)))]
        elif part.marker == c.SOS:
            parts.append(c.Segment(c.SOS, part.body, b"".join(coded)[:-2]))
        elif part.marker != 0xC4:
            parts.append(part)
    return c.jpeg_file(parts)


def test_arithmetic_coding_of_more_than_one_buffer_is_decoded(studio: Studio) -> None:
    data = arithmetic()
    assert len(data) > 2 * 65_536
    assert studio.render(data, "JPEG").width == 2000


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"></x:xmpmeta>'
)


def turned_by_words() -> dict[str, bytes]:
    text = b"Raw profile type exif\0\0\nexif\n      34\n" + make.exif(6).hex().encode() + b"\n"
    return {
        "JPEG": c.jpeg_file(
            c.before(c.jpeg_parts(JPEGS["baseline"]()), 0xDB, c.Segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP))
        ),
        "PNG": c.after_header(
            make.encoded(make.quadrants(), "PNG"),
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
            (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        ),
        "WEBP": make.encoded(make.quadrants(), "WEBP", xmp=XMP),
    }


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientation_in_xmp_or_text_turns_nothing(studio: Studio, form: str) -> None:
    rendering = studio.render(turned_by_words()[form], form)
    assert (rendering.width, rendering.height) == (320, 200)
    assert_upright(studio.variant("medium"))
