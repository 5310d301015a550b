"""Sizes as tables, from the settings to the wire."""

import io
from pathlib import Path

import pytest
from PIL import Image

from fixtures import make
from imgsvc.settings import Settings, SettingsError
from imgsvc.settings.sizes import Size
from tests.conftest import Starter
from tests.support.invariants import Places, assert_sound

SIZES = {
    "thumbnail": 60,
    "hero": {"width": 300, "height": 100, "fit": "cover", "quality": 70},
    "print": {"width": 400, "format": "jpeg"},
    "original": 4096,
}


async def test_tables_from_upload_to_bytes(start: Starter) -> None:
    async with start(images={"sizes": SIZES}) as s:
        info = (await s.http.get("/info")).json()["processing"]
        assert info["image_sizes"] == {"thumbnail": 60, "hero": 300, "print": 400, "original": 4096}
        common = {"fit": "inside", "format": "webp", "quality": 85, "animated": False}
        assert info["variants"] == {
            "original": {"width": 4096, "height": 4096, "effort": 2, **common, "animated": True},
            "print": {"width": 400, "height": None, "effort": None, **common, "format": "jpeg"},
            "hero": {
                "width": 300,
                "height": 100,
                "effort": 4,
                **common,
                "fit": "cover",
                "quality": 70,
                "animated": True,
            },
            "thumbnail": {"width": 60, "height": 60, "effort": 4, **common},
        }
        image_id = (await s.completed(make.jpeg(640, 480)))["image_id"]
        body = (await s.http.get(f"/api/v1/images/{image_id}/all")).json()
        made = {
            name: (one["width"], one["height"], one["format"]) for name, one in body["metadata"]["variants"].items()
        }
        assert made == {
            "thumbnail": (60, 45, "webp"),
            "hero": (300, 100, "webp"),
            "print": (400, 300, "jpeg"),
            "original": (640, 480, "webp"),
        }
        assert body["urls"]["print"].endswith(f"processed/print/{image_id}_print.jpeg")
        answer = await s.http.get(body["urls"]["print"])
        assert answer.headers["Content-Type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert (image.format, image.size) == ("JPEG", (400, 300))
        assert (await s.http.get(f"/api/v1/images/{image_id}/direct?size=hero")).headers["Content-Type"] == "image/webp"
        await s.state.jobs.housekeeping.sweep()
        assert_sound(Places(s.settings.database.path, {"local": s.settings.storage.path}), "settled")


@pytest.mark.workers
async def test_worker_makes_them_in_its_cage(start: Starter) -> None:
    async with start(images={"sizes": SIZES}) as s:
        image_id = (await s.completed(make.jpeg(640, 480)))["image_id"]
        assert len(await s.variant(image_id, "hero")) > 100
        assert (await s.variant(image_id, "print")).startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("{}", "needs a width or a height"),
        ('{"fit": "cover", "width": 5}', "fit = cover needs a width and a height"),
        ('{"width": 0}', "width = 0: input should be greater than or equal to 1"),
        ('{"width": 5, "colour": 1}', "colour = 1: extra inputs are not permitted"),
        ('{"width": 5, "format": "gif"}', "format = 'gif': input should be"),
        ('{"width": 5, "format": "jpeg", "effort": 3}', "effort belongs to WebP"),
        ("70000", "input should be less than or equal to 16383"),
        ('"{said}"', "input should be a valid integer"),
    ],
)
def test_refused_tables(size: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as raised:
        Settings.load(environ={"IMAGE_SIZES": f'{{"hero": {size}}}'})
    assert words.lower() in str(raised.value).lower()
    assert str(raised.value).startswith("[images] sizes.hero (IMAGE_SIZES) = ")
    assert "\n" not in str(raised.value)


def test_table_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(
        '[images.sizes]\nsmall = 90\nhero = { width = 9, height = 5, fit = "cover" }\n'
    )
    assert Settings.load(environ={}).images.sizes == {"small": 90, "hero": Size(width=9, height=5, fit="cover")}
