"""What uploads may hold in memory before a thread writes them."""

import hashlib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.imaging.errors import Unreadable
from imgsvc.intake.staging import CHUNK, PART, ROOM, SMALL, WHOLE, CollectedBytes, StagedFile
from imgsvc.jobs.staging_area import StagingArea
from imgsvc.settings import Settings

TINY = make.tiny()
PHOTO = TINY + bytes(WHOLE - len(TINY))


def staged(area: StagingArea, collected: CollectedBytes, number: int, announced: int = WHOLE) -> StagedFile:
    recipe = Settings().images.recipe
    return StagedFile(f"{number}", area, collected, recipe, ["image/jpeg"], 2 * WHOLE, announced)


async def stored(one: StagedFile) -> None:
    if one.storing:
        await one.storing.result()


async def test_a_usual_photo_is_written_once_and_many_at_once_within_the_room(tmp_path: Path) -> None:
    area, collected = StagingArea(tmp_path, tmp_path / "orphaned"), CollectedBytes()
    fitting = ROOM // WHOLE
    async with AsyncExitStack() as stack:
        uploads = [await stack.enter_async_context(staged(area, collected, n)) for n in range(fitting + 2)]
        for one in uploads:
            await one.feed(PHOTO[:-1])
        # Each one collects while there is room; what is beyond it was written.
        assert len(list(tmp_path.glob("*.part"))) == 2
        assert not collected.require(0, CHUNK)
        for one in uploads[:2]:
            await one.feed(PHOTO[-1:])
            assert (await one.finish()).width == 80
            await stored(one)
            one.keep()
    assert collected.require(0, ROOM)  # all of it is given back, however an upload ended
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert (tmp_path / "1").read_bytes() == PHOTO


async def test_larger_uploads_are_written_in_parts_as_they_come(tmp_path: Path) -> None:
    area, collected = StagingArea(tmp_path, tmp_path / "orphaned"), CollectedBytes()
    async with staged(area, collected, 1, announced=WHOLE + 1) as one:
        await one.feed(PHOTO[: PART - 1])
        assert not (tmp_path / "1.part").exists() and not collected.require(0, ROOM)
        await one.feed(PHOTO[PART - 1 : PART])
        assert (tmp_path / "1.part").exists()
        assert collected.require(0, ROOM)


async def test_larger_uploads_are_written_at_once_where_there_is_no_room(tmp_path: Path) -> None:
    area, collected = StagingArea(tmp_path, tmp_path / "orphaned"), CollectedBytes()
    assert collected.require(0, ROOM)
    async with staged(area, collected, 1, announced=WHOLE + 1) as one:
        await one.feed(PHOTO[:CHUNK])
        assert (tmp_path / "1.part").exists()


async def test_only_an_accepted_picture_gets_the_name_that_a_restart_keeps(tmp_path: Path) -> None:
    """It is written while it is inspected; a whole file without a row would be set aside and kept for days."""
    area, collected = StagingArea(tmp_path, tmp_path / "orphaned"), CollectedBytes()
    costly = TINY[:-2] + b"\xff" * CHUNK + bytes(CHUNK)
    async with staged(area, collected, 1) as one:
        await one.feed(costly)
        with pytest.raises(Unreadable, match="fill bytes"):
            await one.finish()
        await stored(one)
        assert [path.name for path in tmp_path.iterdir()] == ["1.part"]
        assert (tmp_path / "1.part").read_bytes() == costly
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, SMALL - 1, SMALL, 3 * SMALL + 1, WHOLE])
@pytest.mark.parametrize("announced", [WHOLE, WHOLE + 1], ids=["collected", "as they come"])
async def test_pieces_of_any_size(tmp_path: Path, size: int, announced: int) -> None:
    """Many small ones are joined: each would be an object of its own until they are written."""
    area, photo = StagingArea(tmp_path, tmp_path / "orphaned"), TINY + bytes(range(256)) * 800
    async with staged(area, CollectedBytes(), 1, announced) as one:
        for at in range(0, len(photo), size):
            await one.feed(memoryview(photo)[at : at + size] if at % 2 else photo[at : at + size])
            assert len(one._received) <= 1 + len(photo) // SMALL
        assert (await one.finish()).width == 80
        await stored(one)
        one.keep()
        assert one.sha256 == hashlib.sha256(photo).hexdigest()
    assert (tmp_path / "1").read_bytes() == photo
