"""What a worker says and leaves is compared with the task and with the source, before anything is published."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.header import Header
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.jobs.lanes.messages import Rendered, VariantMade
from imgsvc.jobs.rendered_files import Untrue, check_answer, copy_checked, source_header

RECIPE = Recipe((Variant("small", 150, 85, 4),), max_pixels=10_000_000, max_frames=10)
SOURCE = Header("JPEG", 640, 480, channels=3)
SMALL = (150, 113)


def made(data: bytes, size: tuple[int, int] = SMALL) -> VariantMade:
    width, height = size
    digest = hashlib.sha256(data).hexdigest()
    return VariantMade(
        name="small", width=width, height=height, size_bytes=len(data), sha256=digest, format="webp", seconds=0
    )


def rendered(size: tuple[int, int] = (640, 480), *, frames: int = 1, small: tuple[int, int] | None = None) -> Rendered:
    variants = (made(b"x", small or fit(size, 150)),)
    width, height = size
    return Rendered(width=width, height=height, dominant_colour="", frames=frames, variants=variants, thumbhash="")


@pytest.mark.parametrize("answer", [rendered(), rendered((480, 640))], ids=["upright", "turned"])
def test_answer_of_the_source_s_sides_is_believed(answer: Rendered) -> None:
    check_answer(answer, RECIPE, {"small"}, SOURCE)
    check_answer(answer.model_copy(update={"frames": 7}), RECIPE, {"small"}, replace(SOURCE, frames=7))


@pytest.mark.parametrize(
    "answer",
    [
        rendered((1280, 240)),
        rendered((640, 479)),
        rendered((1, 1)),
        rendered(frames=2),
        rendered(small=(150, 150)),
        rendered(small=(113, 150)),
        rendered(small=(16383, 16383)),
    ],
    ids=["same pixels", "a row less", "one pixel", "more frames", "square", "turned alone", "huge"],
)
def test_answer_that_the_source_contradicts_is_untrue(answer: Rendered) -> None:
    with pytest.raises(Untrue):
        check_answer(answer, RECIPE, {"small"}, SOURCE)


def test_answer_without_a_variant_names_no_size() -> None:
    nothing = rendered().model_copy(update={"variants": ()})
    with pytest.raises(Untrue, match="another size"):
        check_answer(nothing, RECIPE, (), SOURCE)
    check_answer(nothing.model_copy(update={"width": 0, "height": 0}), RECIPE, (), SOURCE)


def test_header_is_the_accepted_file_s(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(make.jpeg(640, 480))
    assert source_header(source, "image/jpeg", 640 * 480).pixels == 640 * 480
    with pytest.raises(Untrue, match="another file"):
        source_header(source, "image/jpeg", 640 * 481)
    with pytest.raises(Untrue, match="no header"):
        source_header(source, "image/png", 640 * 480)
    (tmp_path / "link").symlink_to(source)
    os.mkfifo(tmp_path / "fifo")
    for other in ("link", "fifo"):
        with pytest.raises(Untrue, match="else than a file"):
            source_header(tmp_path / other, "image/jpeg", 640 * 480)
    with pytest.raises(FileNotFoundError):
        source_header(tmp_path / "gone", "image/jpeg", 640 * 480)


def webp(size: tuple[int, int] = SMALL, **options: object) -> bytes:
    return make.encoded(make.photo(*size), "WEBP", **options)


@pytest.mark.parametrize(
    "data",
    [
        webp((150, 112)),
        make.one_colour_webp(16383, 16383),
        make.encoded(make.photo(*SMALL), "PNG"),
        webp(exif=make.exif()),
        webp()[:-2],
        webp() + b"\0\0",
        make.animation("WEBP"),
    ],
    ids=["a row less", "one colour of 16383 pixels", "PNG", "metadata", "half", "trailing bytes", "animation"],
)
def test_file_is_read_again(tmp_path: Path, data: bytes) -> None:
    """Described truly but for its contents: its length and digest are those of the answer."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "small.webp").write_bytes(webp())
    copy_checked(scratch, [made(webp())], tmp_path / "first")
    (scratch / "small.webp").write_bytes(data)
    with pytest.raises(Untrue):
        copy_checked(scratch, [made(data)], tmp_path / "second")
