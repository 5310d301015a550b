"""GIF, HEIC and AVIF without metadata: the same pixels by the libraries' own decoders, and nothing else."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image, ImageSequence

from fixtures import coded, gifs, hostile_heif, make, mutations, profiles
from fixtures.gifs import BLUE, GREEN, RED, control, gif, loops, picture
from imgsvc.imaging import heif_bare, optional_codecs, strip
from imgsvc.imaging.any_header import READERS
from imgsvc.imaging.errors import ImageError, Unreadable
from imgsvc.imaging.heif_items import read_items
from imgsvc.imaging.heif_picture import CODECS
from imgsvc.imaging.pieces import Pieces
from imgsvc.imaging.strip import NotStripped
from imgsvc.imaging.stripped import BARE, CHECKS, check_stripped
from tests.imaging.test_heif import PICTURE, by_program, clear, own
from tests.support.rendering import Studio

SECRET = b"51.4778N 0.0014W Ann"
TEXT = b"!\xfe" + bytes((len(SECRET),)) + SECRET + b"\0"
UNKNOWN = b"!\xff\x0bXMP DataXMP" + bytes((len(SECRET),)) + SECRET + b"\0"
PARTS = (loops(3), control(hundredths=0, disposal=2), picture(64, 48, RED), control(transparent=1))
GIF = gif(64, 48, *PARTS, picture(9, 8, BLUE, at=(5, 6), interlaced=True), picture(64, 48, GREEN))
LEAKY_GIF = gif(64, 48, TEXT, *PARTS[:2], UNKNOWN, *PARTS[2:3], TEXT, *PARTS[3:], GIF[-1130:-1], UNKNOWN) + SECRET


@pytest.fixture(scope="module", autouse=True)
def codecs() -> dict[str, str]:
    return optional_codecs.load()


def bare(data: bytes, mime: str) -> bytes:
    clean = b"".join(strip.stripped(io.BytesIO(data), mime))
    check_stripped(io.BytesIO(clean), mime)
    assert b"".join(strip.stripped(io.BytesIO(clean), mime)) == clean
    return clean


def decoded(data: bytes) -> list[tuple[bytes, object, object]]:
    with Image.open(io.BytesIO(data)) as image:
        icc = image.info.get("icc_profile")
        return [(one.convert("RGBA").tobytes(), one.info.get("duration"), icc) for one in ImageSequence.Iterator(image)]


def leaky(form: str, image: Image.Image = PICTURE, **options: object) -> bytes:
    small = {"thumbnails": [64]} if form == "HEIC" else {}
    return own(form, image, exif=make.exif(6), xmp=SECRET, **small, **options)


def kinds(form: str) -> Iterator[bytes]:
    yield leaky(form)
    yield leaky(form, clear())
    yield leaky(form, PICTURE.convert("L"))
    yield leaky(form, icc_profile=profiles.display_p3())
    if form == "HEIC":
        yield coded.heic(make.quadrants(700, 500), quality=90, tile_size=256, xmp=SECRET)


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_coded_pictures_keep_their_pixels_and_lose_the_rest(studio: Studio, form: str) -> None:
    pytest.importorskip("pillow_heif" if form == "HEIC" else "pillow_avif")
    mime = f"image/{form.lower()}"
    for data in kinds(form):
        assert SECRET in data
        with pytest.raises(Unreadable):
            check_stripped(io.BytesIO(data), mime)
        clean = bare(data, mime)
        assert not any(one in clean for one in (SECRET, b"Exif", b"thmb", b"mime", b"cdsc"))
        assert decoded(clean) == decoded(data)
        expected = [one.sha256 for one in studio.render(data, form).variants]
        assert [one.sha256 for one in studio.render(clean, form).variants] == expected


@pytest.mark.parametrize(
    "command",
    [
        ("heif-enc", "-q", "90", "-b", "10", "-o", "OUT", "IN"),
        ("avifenc", "-s", "10", "-d", "10", "--irot", "1", "--imir", "0", "IN", "OUT"),
        ("avifenc", "-s", "10", "--grid", "2x2", "--cicp", "12/13/6", "IN", "OUT"),
        ("avifenc", "-s", "10", "-p", "IN", "OUT"),
    ],
    ids=" ".join,
)
def test_files_of_other_programs(studio: Studio, tmp_path: Path, command: tuple[str, ...]) -> None:
    form = "HEIC" if command[0] == "heif-enc" else "AVIF"
    pytest.importorskip("pillow_heif" if form == "HEIC" else "pillow_avif")
    image = make.quadrants(640, 400) if "-p" not in command else clear()
    data = by_program(tmp_path, *command, image=image)
    clean = bare(data, f"image/{form.lower()}")
    expected = [one.sha256 for one in studio.render(data, form).variants]
    assert [one.sha256 for one in studio.render(clean, form).variants] == expected
    assert decoded(clean) == decoded(data)


def with_units(data: bytes, form: str, more: bytes) -> bytes:
    """The same picture with further units before its own ones, in a container of our own."""
    stream = io.BytesIO(data)
    found = read_items(stream)
    item = found.item(found.primary)
    properties = [hostile_heif.box(one.kind, one.body) for one, _ in item.properties]
    units = Pieces(stream, item.data).read()
    brand = b"heic" if form == "HEIC" else b"avif"
    return hostile_heif.file({1: (item.kind, more + units, properties)}, brand=brand)


@pytest.mark.parametrize(
    ("form", "unit"),
    [
        ("HEIC", struct.pack(">I", 4 + len(SECRET)) + b"\x4e\x01\x05" + bytes((len(SECRET),)) + SECRET),
        ("AVIF", bytes((0x2A, 1 + len(SECRET), 4)) + SECRET),
        ("AVIF", bytes((0x7A, len(SECRET))) + SECRET),
        ("AVIF", bytes((0x12, len(SECRET))) + SECRET),
    ],
    ids=["SEI", "metadata", "padding", "delimiter"],
)
def test_messages_among_the_coded_bytes_go(form: str, unit: bytes) -> None:
    pytest.importorskip("pillow_heif" if form == "HEIC" else "pillow_avif")
    data = with_units(own(form), form, unit)
    assert SECRET in data
    clean = bare(data, f"image/{form.lower()}")
    assert SECRET not in clean
    assert decoded(clean) == decoded(data) == decoded(own(form))


def test_messages_in_the_decoder_s_configuration_go() -> None:
    unit = b"\x4e\x01\x05" + bytes((len(SECRET),)) + SECRET
    arrays = b"\xa7\0\1" + struct.pack(">H", len(unit)) + unit + b"\xa1\0\1\0\2ab"
    record, _ = heif_bare.CLEANERS["HEIF"](io.BytesIO(), bytes(21) + b"\x03\x02" + arrays, ())
    assert record == bytes(21) + b"\x03\x01\xa1\0\1\0\2ab"
    record, _ = heif_bare.CLEANERS["AVIF"](io.BytesIO(), b"\x81\0\x0c\0\x2a\x02ab\x0a\x01c", ())
    assert record == b"\x81\0\x0c\0\x0a\x01c" and set(heif_bare.CLEANERS) == set(CODECS)


def test_still_of_a_sequence_is_kept(studio: Studio) -> None:
    pytest.importorskip("pillow_avif")
    frames = [make.quadrants(320, 200).rotate(180) for _ in range(3)]
    data = coded.avif(PICTURE, save_all=True, append_images=frames, duration=100, quality=90)
    clean = bare(data, "image/avif")
    assert b"moov" in data and b"moov" not in clean and decoded(clean)[0][0] == decoded(data)[0][0]


@pytest.mark.parametrize("data", [GIF, LEAKY_GIF, make.animation("GIF", 4), gifs.crowd(300)], ids=len)
def test_gifs_keep_their_pictures_times_and_loops(data: bytes) -> None:
    clean = bare(data, "image/gif")
    assert SECRET not in clean and decoded(clean) == decoded(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(clean)) as after:
        assert before.info.get("loop") == after.info.get("loop") and "comment" not in after.info


def test_gif_of_palettes_of_its_own() -> None:
    """Also one whose screen is smaller than its first picture, and has a background and a ratio."""
    head = gif(8, 8, colours=b"", end=b"")
    own_colours = b"," + struct.pack("<HHHHB", 0, 0, 64, 48, 0x82) + gifs.palette() + gifs.lzw(bytes((RED,)) * 64 * 48)
    data = head[:11] + b"\x02\x31" + own_colours + own_colours + b";"
    clean = bare(data, "image/gif")
    assert clean[11:13] == b"\x02\x31" and len(clean) == len(data)
    assert [one[:2] for one in decoded(clean)] == [one[:2] for one in decoded(data)]


def test_gif_without_an_end_is_not_cleaned() -> None:
    with pytest.raises(NotStripped):
        bare(GIF[:200], "image/gif")


def added(clean: bytes, mime: str) -> Iterator[bytes]:
    yield clean + b"x"
    yield clean[:-1]
    if mime == "image/gif":
        yield clean[:-1] + TEXT + b";"
        yield clean[:13] + gifs.palette() + TEXT + clean[13 + 24 :]
        yield clean[:-1] + b";" + SECRET
        return
    note = hostile_heif.box(b"free", SECRET)
    yield clean + note
    yield note + clean
    at = clean.index(b"meta") - 4
    yield clean[:at] + note + clean[at:]
    size = int.from_bytes(clean[at : at + 4], "big")
    yield clean[:at] + struct.pack(">I", size + len(note)) + clean[at + 4 : at + size] + note + clean[at + size :]
    yield clean.replace(b"pict" + bytes(12), b"pict" + b"Ann was here")
    yield clean.replace(b"mif1", b"miaf", 1)


@pytest.mark.parametrize("mime", BARE)
def test_whatever_is_added_is_refused(mime: str) -> None:
    if mime == "image/gif":
        data = GIF
    else:
        pytest.importorskip("pillow_heif" if mime == "image/heic" else "pillow_avif")
        data = leaky(mime[6:].upper())
    for changed in added(bare(data, mime), mime):
        with pytest.raises(Unreadable):
            check_stripped(io.BytesIO(changed), mime)


def test_damage_gives_a_clean_file_of_the_same_pixels_or_none(studio: Studio) -> None:
    compared = 0
    for number in range(600):
        _, mime, data = mutations.one(17, number, caged=True)
        if mime not in BARE:
            continue
        with suppress(ImageError, NotStripped):
            clean = b"".join(strip.stripped(io.BytesIO(data), mime))
            check_stripped(io.BytesIO(clean), mime)
            form = mime.removeprefix("image/").upper()
            expected = [one.sha256 for one in studio.render(data, form).variants]
            assert [one.sha256 for one in studio.render(clean, form).variants] == expected
            compared += 1
        with suppress(ImageError):
            check_stripped(io.BytesIO(data), mime)
    assert compared > 20


@pytest.mark.parametrize("name", hostile_heif.NAMED)
def test_hostile_files_are_cleaned_or_not_within_a_moment(name: str) -> None:
    data, mime = hostile_heif.NAMED[name]
    with suppress(NotStripped):
        bare(data, mime)


def test_every_type_that_is_read_is_cleaned() -> None:
    assert set(strip.WRITERS) == set(CHECKS) == set(READERS)
