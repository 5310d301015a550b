"""What may stand where the EOI of a JPEG should be: a picture with all its rows is shown, another one is not."""

import struct

import pytest

from fixtures import containers as c
from fixtures import make
from imgsvc.imaging.errors import Unreadable
from tests.support.rendering import Studio, same_as

PHOTOS = {
    "baseline": make.jpeg(640, 480),
    "progressive": make.jpeg(640, 480, progressive=True),
    "grey": make.encoded(make.photo(500, 380).convert("L"), "JPEG"),
    "restarts": make.jpeg(640, 480, restart_marker_blocks=7),
}
COMMENT = bytes(c.Segment(0xFE, b"ab"))
ENDS = {
    "a second picture": make.jpeg(64, 48),
    "a second picture's start": b"\xff\xd8",
    "a marker for extensions": b"\xff\xf7",
    "a reserved marker": b"\xff\x02\x00\x04ab",
    "a hierarchical marker": b"\xff\xdf\x00\x03\x11",
    "a second frame": bytes(c.Segment(0xC0, bytes(15))),
    "a cut comment": b"\xff\xfe\xff\xffab",
    "a comment without a length": b"\xff\xfe\x00",
    "a comment of an impossible length": b"\xff\xfe\x00\x01",
    "a cut table": b"\xff\xc4\x01\x00ab",
    "a cut scan header": b"\xff\xda\x00\x0c\x03",
    "a sound comment": COMMENT,
}
AMONG_ROWS = {
    "a comment": COMMENT,
    "DNL": bytes(c.Segment(0xDC, struct.pack(">H", 480))),
    "a bare marker": b"\xff\x01",
    "a cut comment": b"\xff\xfe\xff\xffab",
    "the start of a picture": b"\xff\xd8",
}


@pytest.mark.parametrize("behind", [b"", c.END], ids=["", "EOI"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("kind", PHOTOS)
def test_all_rows_are_there(studio: Studio, kind: str, end: bytes, behind: bytes) -> None:
    sound = PHOTOS[kind]
    same_as(studio, sound.removesuffix(c.END) + end + behind, sound, "JPEG")


@pytest.mark.parametrize("behind", [b"", c.END, bytes(3000)], ids=["cut", "closed", "zeroed"])
@pytest.mark.parametrize("marker", AMONG_ROWS.values(), ids=AMONG_ROWS.keys())
@pytest.mark.parametrize("kind", PHOTOS)
def test_rows_are_missing_behind_a_marker(studio: Studio, kind: str, marker: bytes, behind: bytes) -> None:
    sound = PHOTOS[kind]
    with pytest.raises(Unreadable, match=r"ends (after \d+ of \d+ rows|before its last scan)\."):
        studio.render(sound[: len(sound) * 6 // 10] + marker + behind, "JPEG")


def test_restart_marker_without_an_interval_ends_the_rows(studio: Studio) -> None:
    sound = PHOTOS["baseline"]
    middle = len(sound) * 6 // 10
    with pytest.raises(Unreadable, match=r"ends after \d+ of 480 rows"):
        studio.render(sound[:middle] + b"\xff\xd3" + sound[middle:], "JPEG")


@pytest.mark.parametrize("change", ["lost", "doubled", "of another number"])
def test_one_wrong_restart_marker_loses_no_rows(studio: Studio, change: str) -> None:
    sound = PHOTOS["restarts"]
    at = sound.index(b"\xff\xd3", len(sound) // 3)
    marker = {"lost": b"", "doubled": b"\xff\xd3\xff\xd3", "of another number": b"\xff\xd5"}[change]
    assert studio.render(sound[:at] + marker + sound[at + 2 :], "JPEG").height == 480
