import time

import pytest

from fixtures import make
from imgsvc.imaging.errors import OutOfTime, TooLarge, Unreadable
from tests.support.rendering import FORMS, Studio, assert_upright, photo


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("size", [(300, 200), (1700, 1300)], ids=str)
def test_truncated_pixels_are_unreadable(studio: Studio, form: str, share: float, size: tuple[int, int]) -> None:
    data = photo(form, size)
    cut = data[: int(len(data) * share)]
    for run in (studio.render, studio.preview):
        if run == studio.preview and form != "JPEG" and size == (1700, 1300):
            continue
        with pytest.raises(
            Unreadable, match=r"^(The image can't be decoded: .+|The picture ends after \d+ of \d+ rows)\.$"
        ):
            run(cut, form)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"k\0\0" + b"\x78\x9cgarbage"),
        (b"zTXt", b"k\0\5unknown method"),
        (b"iTXt", b"k\0"),
        (b"eXIf", b"garbage"),
        (b"pHYs", b"x"),
        (b"gAMA", b""),
        (b"cHRM", b"x"),
        (b"sRGB", b""),
        (b"acTL", b"x"),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
def test_damaged_metadata_is_forgiven(studio: Studio, chunk: tuple[bytes, bytes], place: str) -> None:
    data, extra = make.encoded(make.quadrants(), "PNG"), make.png_chunk(*chunk)
    at = data.index(b"IDAT" if place == "before" else b"IEND") - 4
    studio.render(data[:at] + extra + data[at:])
    assert_upright(studio.variant())


def test_a_header_that_lies_is_unreadable(studio: Studio) -> None:
    data = bytearray(make.encoded(make.quadrants(320, 200), "JPEG"))
    second = make.encoded(make.quadrants(640, 400), "JPEG")
    frame, other = (text.index(b"\xff\xc0") for text in (bytes(data), second))
    data[frame:frame] = second[other : other + 19]
    with pytest.raises(Unreadable):
        studio.render(bytes(data), "JPEG")


def test_a_bomb_is_refused_before_it_is_decoded(studio: Studio) -> None:
    start = time.perf_counter()
    with pytest.raises(TooLarge, match=r"900\.0 megapixels"):
        studio.render(make.bomb())
    assert time.perf_counter() - start < 0.5


def test_a_deadline_that_has_passed_stops_the_run(studio: Studio) -> None:
    data, past = make.jpeg(600, 400), time.monotonic() - 1
    with pytest.raises(OutOfTime, match="stopped after decode"):
        studio.render(data, "JPEG", deadline=past)
    with pytest.raises(OutOfTime, match="stopped after decode"):
        studio.preview(data, "JPEG", deadline=past)
    assert [path.name for path in studio.folder.iterdir() if path.stat().st_size] == ["source"]
    assert len(studio.render(data, "JPEG", deadline=time.monotonic() + 60).variants) == 3
