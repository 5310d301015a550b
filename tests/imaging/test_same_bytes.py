import io
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.imaging.any_header import read_header
from imgsvc.imaging.limits import has_cheap_preview
from imgsvc.imaging.recipe import scratch_file
from tests.support.rendering import FORMS, SIDES, Studio, photo


@pytest.mark.parametrize("form", FORMS)
def test_the_same_file_gives_the_same_bytes(tmp_path: Path, form: str) -> None:
    data = make.encoded(make.photo(500, 333), form)
    digests = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        digests.add(tuple(one.sha256 for one in Studio(folder).render(data, form).variants))
    assert len(digests) == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(30, 20), (333, 500), (1700, 1300)], ids=str)
def test_preview_and_render_make_the_same_thumbnail(studio: Studio, form: str, size: tuple[int, int]) -> None:
    data = photo(form, size)
    rendering = studio.render(data, form)
    rendered = studio.bytes_of("small")
    scratch_file(studio.folder, "small").unlink()
    first = studio.preview(data, form)
    if size == (1700, 1300) and form != "JPEG":
        assert first is None
        return
    assert first and studio.bytes_of("small") == rendered
    assert first.dominant_colour == rendering.dominant_colour
    assert first.thumbhash == rendering.thumbhash
    assert first.variants[0] in rendering.variants


def test_previews_are_only_made_where_they_are_cheap(studio: Studio) -> None:
    large = make.png(2000, 1001, 8, 2, bytes(6001 * 1001))
    assert not has_cheap_preview(read_header(io.BytesIO(large), "image/png"))
    assert studio.preview(large) is None
    assert len(studio.render(large).variants) == 3


@pytest.mark.parametrize("done", [("small",), ("large",), ("small", "medium"), tuple(SIDES)], ids=str)
def test_what_is_done_is_left_alone(studio: Studio, done: tuple[str, ...]) -> None:
    data = make.jpeg(600, 400)
    whole = {one.name: one for one in studio.render(data, "JPEG").variants}
    for name in SIDES:
        scratch_file(studio.folder, name).write_bytes(b"untouched")
    rendering = studio.render(data, "JPEG", done=done)
    assert {one.name: one for one in rendering.variants} == {n: one for n, one in whole.items() if n not in done}
    for name in SIDES:
        assert (studio.bytes_of(name) == b"untouched") == (name in done)
    assert bool(rendering.dominant_colour) == bool(rendering.thumbhash) == ("small" not in done)
