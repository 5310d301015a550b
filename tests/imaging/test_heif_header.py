"""What the headers of HEIC and AVIF say, and what is refused by them: pure Python, no decoder."""

import io
import struct
import time

import pytest

from fixtures import hostile_heif
from fixtures.hostile_heif import box, extents, file, full, grid, tile
from imgsvc.imaging import coded_samples
from imgsvc.imaging.any_header import read_header
from imgsvc.imaging.error_messages import is_ours
from imgsvc.imaging.errors import ImageError, TooLarge, Unreadable, Unsupported
from imgsvc.imaging.header import Truncated
from imgsvc.imaging.heif import essentials
from imgsvc.imaging.limits import probe

HEIC, AVIF = "image/heic", "image/avif"
OTHER: tuple[bytes, bytes, hostile_heif.Properties] = b"mime", b"", ()
Items = dict[int, tuple[bytes, bytes, hostile_heif.Properties]]
MOST = 50_000_000


def refusal(data: bytes, mime: str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        probe(io.BytesIO(data), mime, max_pixels=MOST)
    assert is_ours(caught.value.code, str(caught.value)), str(caught.value)
    return caught.value


WORDS = {
    "grid of 65,535 x 65,535": "The image has 65535 x 65535 = 4294.8 megapixels; at most 50 megapixels are allowed.",
    "10,000 tiles": "The picture has 10000 tiles; at most 1024 are allowed.",
    "cycle of grids": "The picture is not coded in HEVC, nor as a grid of such pictures.",
    "grid of itself": "The picture is not coded in HEVC, nor as a grid of such pictures.",
    "255 layers": "The picture has 255 layers; at most 8 are allowed.",
}
CODED = "The picture is coded as 16384 x 16384 = 268.4 megapixels; at most 50 megapixels are allowed."


@pytest.mark.parametrize("name", hostile_heif.NAMED)
def test_hostile_file_is_refused_by_its_header(name: str) -> None:
    data, mime = hostile_heif.NAMED[name]
    began = time.process_time()
    assert str(refusal(data, mime)) == WORDS.get(name, CODED)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("mime", [HEIC, AVIF])
def test_every_prefix_is_truncated_or_refused(mime: str) -> None:
    whole = coded_samples.HEIF if mime == HEIC else coded_samples.AVIF
    header = read_header(io.BytesIO(whole), mime)
    assert (header.width, header.height) == (64, 48)
    for end in range(len(whole)):
        with pytest.raises(Truncated):
            read_header(io.BytesIO(whole[:end]), mime)


@pytest.mark.parametrize("mime", [HEIC, AVIF])
def test_damage_gives_a_sentence_or_a_header(mime: str) -> None:
    whole = coded_samples.HEIF if mime == HEIC else coded_samples.AVIF
    said: set[tuple[str, str]] = set()
    for at in range(min(len(whole), 700)):
        for value in (0, 1, 0x7F, 0xFF):
            data = whole[:at] + bytes((value,)) + whole[at + 1 :]
            try:
                probe(io.BytesIO(data), mime, max_pixels=MOST)
                essentials(io.BytesIO(data), "HEIF" if mime == HEIC else "AVIF")
            except ImageError as error:
                said.add((error.code, str(error)))
    assert said
    assert [one for one in said if not is_ours(*one)] == []


def test_items_beyond_the_limit() -> None:
    items: Items = {1: tile(), **dict.fromkeys(range(2, 1002), OTHER)}
    assert str(refusal(file(items, brand=b"heic"), HEIC)) == "The file has 1001 items; at most 1000 are read."


def test_description_beyond_a_megabyte() -> None:
    data = box(b"ftyp", b"heic", bytes(4)) + struct.pack(">I4s", (1 << 20) + 9, b"meta") + bytes(1 << 20)
    assert str(refusal(data, HEIC)).startswith("The file describes its picture in 1048585 bytes; at most 1048576")


def test_deep_boxes_are_not_walked() -> None:
    """A thousand boxes in each other: what is not known is not opened."""
    deep = b""
    for _ in range(1000):
        deep = box(b"iprp", deep)
    data = box(b"ftyp", b"heic", bytes(4)) + full(b"meta", deep)
    assert str(refusal(data, HEIC)) == "The file names no primary picture."


def test_tiles_that_are_larger_than_their_picture_together() -> None:
    items = {1: (b"grid", grid(4, 4, 64, 64), (extents(64, 64),)), 2: tile(6_000, 6_000)}
    data = file(items, [(b"dimg", 1, [2] * 16)], brand=b"heic")
    assert "The tiles of the picture have 576.0 megapixels together" in str(refusal(data, HEIC))


def test_tiles_that_leave_a_hole() -> None:
    items = {1: (b"grid", grid(1, 2, 2_000, 512), (extents(2_000, 512),)), 2: tile(), 3: tile()}
    assert isinstance(refusal(file(items, [(b"dimg", 1, [2, 3])], brand=b"heic"), HEIC), Unreadable)


def test_items_that_share_their_bytes() -> None:
    """A megabyte that is a thousand tiles would be decoded a thousand times."""
    kind, data, properties = tile(64, 64)
    items: Items = {1: (b"grid", grid(20, 20, 1_000, 1_000), (extents(1_000, 1_000),))}
    items |= {number: (kind, data, tuple(properties)) for number in range(2, 402)}
    whole = file(items, [(b"dimg", 1, range(2, 402))], brand=b"heic")
    places, start = whole.index(b"iloc") + 12, whole.index(b"mdat") + 4
    shared = bytearray(whole)
    for number in range(401):
        struct.pack_into(">II", shared, places + 14 * number + 6, start, 12 if number == 0 else 2_000)
    assert str(refusal(bytes(shared), HEIC)) == "The pictures of the file share their bytes."


def test_essential_property_that_is_not_known() -> None:
    kind, data, properties = tile()
    items = {1: (kind, data, (*properties, box(b"what", b"ever")))}
    assert isinstance(refusal(file(items, brand=b"heic"), HEIC), Unsupported)


@pytest.mark.parametrize("kind", [b"jpeg", b"av01", b"iovl", b"iden", b"mski"])
def test_primary_picture_of_another_kind(kind: bytes) -> None:
    _, data, properties = tile()
    assert isinstance(refusal(file({1: (kind, data, properties)}, brand=b"heic"), HEIC), Unsupported)


def test_coded_size_within_the_limit_counts_for_the_estimate() -> None:
    header = read_header(io.BytesIO(hostile_heif.larger_than_said("AVIF", 2_048)), AVIF)
    assert (header.width, header.height, header.coded_pixels) == (16, 16, 2_048 * 2_048)


def test_larger_limit_lets_it_pass() -> None:
    data = hostile_heif.larger_than_said("HEIC")
    assert probe(io.BytesIO(data), HEIC, max_pixels=500_000_000).pixels == 256
    with pytest.raises(TooLarge):
        probe(io.BytesIO(data), HEIC, max_pixels=268_000_000)
