"""The cage changes no picture: every outcome and every byte of each file are those of a worker without it."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from fixtures import coded, make
from imgsvc.imaging.recipe import SOURCE, Recipe
from tests.support.corpus import RECIPE, RICH, Made, Source, damaged, lane, made, odd, sound
from tests.torture.test_attacks import sources

pytestmark = [pytest.mark.torture, pytest.mark.process]

LARGEST = (8660, 5773)  # 50 MP
PLACES = [
    {"LC_ALL": "C", "TZ": ""},
    {"LC_ALL": "C.UTF-8", "TZ": ":/etc/localtime"},
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns"},
    {"LC_ALL": "de_DE.ISO-8859-1", "LANG": "ja_JP.EUC-JP", "TZ": "Nowhere/At_All"},
    {"LC_ALL": "nonsense", "TZ": ":/nonexistent"},
]


Difference = tuple[str, Made, Made]  # the task, what it made in the cage and without


async def differences(
    folder: Path, pictures: Iterable[Source], recipe: Recipe = RECIPE
) -> tuple[dict[str, int], list[Difference]]:
    """The number of files by the name of their variant, and each task whose outcome or files differ in the cage."""
    counts: dict[str, int] = {}
    found: list[Difference] = []
    async with lane("best", folder / "path-caged") as caged, lane("off", folder / "path-free") as free:
        for source in pictures:
            results = []
            for one in (caged, free):
                results.append(await made(one, source, folder / "work", recipe))
                shutil.rmtree(folder / "work", ignore_errors=True)
            for kind in results[1]:
                for name in results[1][kind].files:
                    counts[name] = counts.get(name, 0) + 1
                if results[0][kind] != results[1][kind]:
                    found.append((f"{kind} of {source.name}", results[0][kind], results[1][kind]))
    return counts, found


async def test_each_kind_of_picture(tmp_path: Path) -> None:
    counts, different = await differences(tmp_path, [*sound(), *odd()])
    assert different == []
    assert sum(counts.values()) > 200


async def test_each_kind_of_variant(tmp_path: Path) -> None:
    counts, different = await differences(tmp_path, [*sound(), *odd()], RICH)
    assert different == []
    names = {"thumbnail", "square", "mail", "sharp", "original", "poster", SOURCE}
    assert set(counts) == {f"{name}.webp" for name in names} and min(counts.values()) >= 10, counts


async def test_damaged_pictures(tmp_path: Path) -> None:
    counts, different = await differences(tmp_path, damaged(1_500))
    assert different == []
    assert sum(counts.values()) > 1_000


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_each_locale_and_time_zone(
    tmp_path: Path, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    counts, different = await differences(tmp_path, [*sound(), *damaged(40)], RICH)
    assert different == []
    assert sum(counts.values()) > 200


@pytest.mark.parametrize("size", [LARGEST, (50_000, 1_000), (4, 20_000)], ids=str)
async def test_largest_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    """Under the memory that is reserved for them: the cage counts what they use in another way, too."""
    for name, (image, form, options) in sources(size).items():
        if form == "WEBP" and max(size) > 16_383:
            continue
        image.save(tmp_path / "picture", form, **options)
        source = Source(name, f"image/{form.lower()}", (tmp_path / "picture").read_bytes())
        _, different = await differences(tmp_path / name, [source])
        assert different == []


def largest_coded() -> Iterator[Source]:
    image = make.photo(400, 300).resize(LARGEST, Image.Resampling.BILINEAR)
    yield Source("HEIC", "image/heic", coded.heic(image, quality=30))
    yield Source("HEIC in tiles", "image/heic", coded.heic(image, quality=30, tile_size=512))
    yield Source("AVIF", "image/avif", coded.avif(image, quality=30, speed=10))
    yield Source("GIF", "image/gif", make.encoded(image.quantize(64, method=Image.Quantize.FASTOCTREE), "GIF"))
    yield Source("JPEG", "image/jpeg", make.encoded(image, "JPEG"))


async def test_largest_pictures_of_newer_formats_and_into_them(tmp_path: Path) -> None:
    counts, different = await differences(tmp_path, largest_coded(), RICH)
    assert different == []
    assert counts["sharp.webp"] == counts["original.webp"] == 5
