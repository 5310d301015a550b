"""What a worker says and leaves is compared with the task and with the source, before anything is published."""

import fcntl
import hashlib
import io
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fixtures import containers, make
from imgsvc.imaging.animated_webp import AnimatedWebp
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.header import Header
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.jobs import rendered_files
from imgsvc.jobs.lanes.files import open_files
from imgsvc.jobs.lanes.messages import Rendered, VariantMade
from imgsvc.jobs.rendered_files import (
    Untrue,
    check_answer,
    check_received,
    checked_file,
    received_at,
    source_header,
    take_checked,
)
from tests.support.render_task import render_task

RECIPE = Recipe((Variant("small", 150, 85, 4),), max_pixels=10_000_000, max_frames=10)
SOURCE = Header("JPEG", 640, 480, channels=3)
SMALL = (150, 113)


def made(data: bytes, size: tuple[int, int] = SMALL, frames: int = 1) -> VariantMade:
    width, height = size
    digest = hashlib.sha256(data).hexdigest()
    return VariantMade(
        name="small",
        width=width,
        height=height,
        size_bytes=len(data),
        sha256=digest,
        format="webp",
        frames=frames,
        seconds=0,
    )


def rendered(size: tuple[int, int] = (640, 480), *, frames: int = 1, small: tuple[int, int] | None = None) -> Rendered:
    variants = (made(b"x", small or fit(size, 150)),)
    width, height = size
    return Rendered(
        width=width, height=height, dominant_colour="", frames=frames, variants=variants, thumbhash="", source=None
    )


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
    take_checked(scratch, [made(webp())], tmp_path / "first", 0)
    (scratch / "small.webp").write_bytes(data)
    with pytest.raises(Untrue):
        take_checked(scratch, [made(data)], tmp_path / "second", 0)
    received = checked_file(tmp_path / "received", "small")
    received.write_bytes(webp())
    check_received([made(webp())], tmp_path / "received", 0)
    received.write_bytes(data)
    with pytest.raises(Untrue):
        check_received([made(data)], tmp_path / "received", 0)


def test_received_file_is_compared_with_the_answer(tmp_path: Path) -> None:
    received = checked_file(tmp_path / "received", "small")
    received.write_bytes(webp())
    told = made(webp())
    for untrue, why in (("sha256", "other bytes"), ("size_bytes", "another size")):
        other = told.model_copy(update={untrue: "0" * 64 if untrue == "sha256" else 1})
        with pytest.raises(Untrue, match=why):
            check_received([other], tmp_path / "received", 0)
    received.rename(tmp_path / "kept")
    with pytest.raises(FileNotFoundError):
        check_received([told], tmp_path / "received", 0)
    received.symlink_to(tmp_path / "kept")
    with pytest.raises(Untrue, match="a file of its own"):
        check_received([told], tmp_path / "received", 0)
    received.unlink()
    received.hardlink_to(tmp_path / "kept")
    with pytest.raises(Untrue, match="a file of its own"):
        check_received([told], tmp_path / "received", 0)


def test_two_tasks_of_a_run_receive_nothing_under_the_same_name(tmp_path: Path) -> None:
    first = render_task(tmp_path, make.jpeg(8, 8), RECIPE)
    again = replace(first, id="another")
    assert first.folder == again.folder and received_at(first) != received_at(again)


@pytest.fixture(scope="module")
def leases(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether this system can tell that no process writes to a file."""
    path = tmp_path_factory.mktemp("leases") / "file"
    path.touch()
    with path.open("rb") as stream:
        try:
            fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except (OSError, AttributeError):
            return False
        return True


@contextmanager
def held_open(path: Path) -> Iterator[None]:
    with path.open("r+b"):
        yield


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    with path.open("r+b") as stream:
        found = mmap.mmap(stream.fileno(), 0)
    with found:
        yield


@contextmanager
def let_go(path: Path) -> Iterator[None]:
    with path.open("r+b"):
        pass
    yield


@pytest.mark.parametrize(("holding", "moved"), [(held_open, False), (mapped, False), (let_go, True)])
def test_file_is_moved_if_no_process_can_write_to_it_and_else_copied(
    tmp_path: Path, leases: bool, holding: Callable[[Path], AbstractContextManager[None]], moved: bool
) -> None:
    task = render_task(tmp_path, make.jpeg(8, 8), RECIPE)
    open_files(task).close()
    written, taken, data = Path(task.folder) / "small.webp", checked_file(tmp_path / "checked", "small"), webp()
    written.write_bytes(data)
    with holding(written):
        take_checked(Path(task.folder), [made(data)], tmp_path / "checked", 0)
        assert written.exists() is not (moved and leases)
        if written.exists():
            written.write_bytes(b"x")
    assert taken.read_bytes() == data
    (tmp_path / "new").touch()  # the stored file may be this one, which others may read where the umask lets them
    assert taken.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_taking_can_be_repeated(tmp_path: Path) -> None:
    """An attempt that found no free file may have moved some; a file that is nowhere is gone."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/small.webp").write_bytes(webp())
    for _ in range(2):
        take_checked(tmp_path / "scratch", [made(webp())], tmp_path / "checked", 0)
    with pytest.raises(Untrue, match="another size"):
        take_checked(tmp_path / "scratch", [made(webp() + b"x")], tmp_path / "checked", 0)
    with pytest.raises(FileNotFoundError):
        take_checked(tmp_path / "scratch", [made(webp())], tmp_path / "other", 0)


def test_file_that_is_not_the_one_that_was_opened_is_untrue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    written, usual = tmp_path / "scratch/small.webp", os.replace
    written.write_bytes(webp())

    def swapped(source: str, target: Path, **options: int) -> None:
        written.unlink()
        written.write_bytes(webp())
        usual(source, target, **options)

    monkeypatch.setattr(os, "replace", swapped)
    monkeypatch.setattr(rendered_files, "_is_final", lambda _source: True)
    with pytest.raises(Untrue, match="another file"):
        take_checked(tmp_path / "scratch", [made(webp())], tmp_path / "checked", 0)


@pytest.mark.parametrize("holding", [held_open, let_go])
def test_checked_file_takes_the_place_of_what_an_attempt_before_has_left(
    tmp_path: Path, holding: Callable[[Path], AbstractContextManager[None]]
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/small.webp").write_bytes(webp())
    copy, other = checked_file(tmp_path / "checked", "small"), tmp_path / "other"
    other.write_bytes(b"kept")
    copy.symlink_to(other)
    with holding(tmp_path / "scratch/small.webp"):
        take_checked(tmp_path / "scratch", [made(webp())], tmp_path / "checked", 0)
    assert (copy.read_bytes(), copy.is_symlink(), other.read_bytes()) == (webp(), False, b"kept")


MOVING = replace(RECIPE, variants=(replace(RECIPE.variants[0], animated=True),), frames=3)


@pytest.mark.parametrize(
    ("recipe", "frames", "believed"),
    [
        (MOVING, 1, True),
        (MOVING, 3, True),
        (MOVING, 4, False),
        (RECIPE, 2, False),
        (replace(MOVING, frames=1), 2, False),
    ],
)
def test_animation_is_believed_only_where_it_was_asked_for(recipe: Recipe, frames: int, believed: bool) -> None:
    answer = rendered().model_copy(update={"variants": (made(b"x", frames=frames),)})
    with nullcontext() if believed else pytest.raises(Untrue, match="an animation that was not asked for"):
        check_answer(answer, recipe, {"small"}, SOURCE)


Chunks = list[containers.Chunk]
CANVAS = (64, 48)


def animation() -> Chunks:
    """What this service writes: VP8X, ANIM and three frames that replace what is there."""
    output = io.BytesIO()
    file = AnimatedWebp(RECIPE.variants[0], output, 0, 1 << 20)
    for colour in (make.RED, make.GREEN, make.BLUE):
        file.add(Image.new("RGB", CANVAS, colour), 100)
    file.finish()
    return containers.webp_parts(output.getvalue())


def changed(at: int, place: int, value: bytes) -> Chunks:
    parts = animation()
    kind, body = parts[at]
    parts[at] = kind, body[:place] + value + body[place + len(value) :]
    return parts


def with_inner(*inner: containers.Chunk) -> bytes:
    """The second frame's body with these chunks behind its header."""
    head = animation()[3][1][:16]
    return head + b"".join(struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) & 1) for kind, body in inner)


PICTURE = (b"VP8L", containers.webp_parts(make.one_colour_webp(*CANVAS))[0][1])
HUGE = (b"VP8L", containers.webp_parts(make.one_colour_webp(16_383, 16_383))[0][1])
WRONG = {
    "metadata": [*animation(), (b"EXIF", b"GPS")],
    "XMP announced": changed(0, 0, b"\x06"),
    "a profile announced": changed(0, 0, b"\x22"),
    "another canvas": changed(0, 4, b"\xff"),
    "a background": changed(1, 0, b"\xff"),
    "a frame less": animation()[:-1],
    "a frame more": [*animation(), animation()[-1]],
    "a frame beside the canvas": changed(3, 0, b"\x09"),
    "a frame that is disposed of": changed(3, 15, b"\x01"),
    "a first frame of a part": changed(2, 6, b"\x01"),
    "a frame before its header": [animation()[0], *animation()[2:], animation()[1]],
    "a still": [(b"VP8L", PICTURE[1])],
    "a frame of nothing": [*animation()[:3], (b"ANMF", with_inner()), animation()[4]],
    "a frame of 16383 pixels": [*animation()[:3], (b"ANMF", with_inner(HUGE)), animation()[4]],
    "two pictures in a frame": [*animation()[:3], (b"ANMF", with_inner(PICTURE, PICTURE)), animation()[4]],
    "metadata in a frame": [*animation()[:3], (b"ANMF", with_inner(PICTURE, (b"XMP ", b"x"))), animation()[4]],
}


@pytest.mark.parametrize("parts", [None, *WRONG.values()], ids=["sound", *WRONG])
def test_animation_is_read_again(tmp_path: Path, parts: Chunks | None) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    data = containers.webp_file(parts or animation())
    (scratch / "small.webp").write_bytes(data)
    said = made(data, CANVAS, frames=3)
    with nullcontext() if parts is None else pytest.raises(Untrue):
        take_checked(scratch, [said], tmp_path / "checked", 1000)


def test_animation_is_at_most_as_long_as_its_source_allows(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    data = bytes(3 << 20)
    (scratch / "small.webp").write_bytes(data)
    for frames, words in ((1, "too large"), (3, "too large")):
        with pytest.raises(Untrue, match=words):
            take_checked(scratch, [made(data, CANVAS, frames)], tmp_path / str(frames), 1000)
