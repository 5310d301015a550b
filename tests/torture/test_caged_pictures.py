"""The cage changes no picture: every outcome and every byte of each variant are those of a worker without it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.corpus import Made, Source, damaged, lane, made, odd, sound
from tests.torture.test_attacks import sources

pytestmark = [pytest.mark.torture, pytest.mark.process]

PLACES = [
    {"LC_ALL": "C", "TZ": ""},
    {"LC_ALL": "C.UTF-8", "TZ": ":/etc/localtime"},
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns"},
    {"LC_ALL": "de_DE.ISO-8859-1", "LANG": "ja_JP.EUC-JP", "TZ": "Nowhere/At_All"},
    {"LC_ALL": "nonsense", "TZ": ":/nonexistent"},
]


Difference = tuple[str, Made, Made]  # the task, what it made in the cage and without


async def differences(folder: Path, pictures: Iterable[Source]) -> tuple[int, list[Difference]]:
    """The number of variants that were made, and each task whose outcome or files differ in the cage."""
    count = 0
    found: list[Difference] = []
    async with lane("best") as caged, lane("off") as free:
        for source in pictures:
            results = []
            for one in (caged, free):
                results.append(await made(one, source, folder / "work"))
                shutil.rmtree(folder / "work", ignore_errors=True)
            for kind in results[1]:
                count += len(results[1][kind].files)
                if results[0][kind] != results[1][kind]:
                    found.append((f"{kind} of {source.name}", results[0][kind], results[1][kind]))
    return count, found


async def test_each_kind_of_picture(tmp_path: Path) -> None:
    count, different = await differences(tmp_path, [*sound(), *odd()])
    assert different == []
    assert count > 200


async def test_damaged_pictures(tmp_path: Path) -> None:
    count, different = await differences(tmp_path, damaged(1_500))
    assert different == []
    assert count > 1_000


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_each_locale_and_time_zone(
    tmp_path: Path, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    count, different = await differences(tmp_path, [*sound(), *damaged(40)])
    assert different == []
    assert count > 100


@pytest.mark.parametrize("size", [(8660, 5773), (50_000, 1_000), (4, 20_000)], ids=str)
async def test_largest_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    """Under the memory that is reserved for them: the cage counts what they use in another way, too."""
    for name, (image, form, options) in sources(size).items():
        if form == "WEBP" and max(size) > 16_383:
            continue
        image.save(tmp_path / "picture", form, **options)
        source = Source(name, f"image/{form.lower()}", (tmp_path / "picture").read_bytes())
        _, different = await differences(tmp_path, [source])
        assert different == []
