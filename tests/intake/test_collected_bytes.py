"""What uploads may hold in memory before a thread writes them."""

from contextlib import AsyncExitStack
from pathlib import Path

from fixtures import make
from imgsvc.intake.staging import CHUNK, LARGE_CHUNK, ROOM, CollectedBytes, StagedFile
from imgsvc.jobs.staging_area import StagingArea
from imgsvc.settings import Settings

TINY = make.jpeg(64, 48)


def staged(area: StagingArea, collected: CollectedBytes, number: int) -> StagedFile:
    return StagedFile(f"{number}", area, collected, Settings().images.recipe, ["image/jpeg"], 2 * LARGE_CHUNK)


async def test_a_usual_photo_is_written_once_and_many_at_once_within_the_room(tmp_path: Path) -> None:
    area, collected = StagingArea(tmp_path, tmp_path / "orphaned"), CollectedBytes()
    async with AsyncExitStack() as stack:
        uploads = [await stack.enter_async_context(staged(area, collected, n)) for n in range(ROOM // LARGE_CHUNK + 2)]
        for one in uploads:
            await one.feed(TINY + bytes(LARGE_CHUNK - len(TINY) - 1))
        # Each one collects while there is room; what is beyond it was written.
        assert len(list(tmp_path.glob("*.part"))) == 2
        await uploads[0].feed(bytes(1))
        assert len(list(tmp_path.glob("*.part"))) == 3  # a full one is written, and gives its room back
        assert collected.require(0, LARGE_CHUNK - 1)
        assert not collected.require(0, CHUNK)
        collected.release(LARGE_CHUNK - 1)
        for one in uploads[1:3]:
            assert (await one.finish()).width == 64
            one.keep()
    assert collected.require(0, ROOM)  # all of it is given back, however an upload ended
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert (tmp_path / "1").read_bytes() == TINY + bytes(LARGE_CHUNK - len(TINY) - 1)
