"""image_storage_bytes is what lies in the storage: over restarts, deletions, and while the first sum is still made."""

from collections import Counter
from contextlib import AsyncExitStack

import aiosqlite
import anyio
import pytest

from fixtures import make
from imgsvc.jobs import stored, table
from imgsvc.jobs.database import READERS
from tests.conftest import Service, Starter
from tests.traffic import Told, told, told_when

PICTURES = [make.jpeg(640, 480), make.jpeg(1300, 900, seed=2), make.jpeg(200, 300, seed=3)]


def lying(s: Service) -> dict[str, int]:
    """{variant: bytes} of the files in the storage folder."""
    found: Counter[str] = Counter()
    for name in s.stored():
        found[name.split("/")[-2]] += (s.settings.storage.path / name).stat().st_size
    return dict(found)


def counted(now: Told) -> dict[str, int]:
    """What is told; variants of which there are none are left out."""
    return {dict(labels)["size"]: int(n) for (name, labels), n in now.items() if name == "image_storage_bytes" and n}


async def told_to_be_lying(s: Service) -> dict[str, int]:
    """What is told once it is what lies there: a commit is seen by other readers a moment before it is counted."""
    return counted(await told_when(s, lambda now: counted(now) == lying(s)))


def known(now: Told) -> bool:
    return any(name == "image_storage_bytes" for name, _ in now)


async def upload_all(s: Service) -> list[str]:
    return [(await s.completed(picture))["image_id"] for picture in PICTURES]


async def delete(s: Service, image_id: str) -> None:
    assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200


@pytest.mark.parametrize("page", [1, 2, 5000])
async def test_exact_over_restarts_and_deletions(start: Starter, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(stored, "PAGE", page)
    async with start() as s:
        first, second, _ = await upload_all(s)
        assert await told_to_be_lying(s) == lying(s) != {}
        await delete(s, first)
        assert await told_to_be_lying(s) == lying(s)
        before = lying(s)
    async with start() as s:
        assert counted(await told_when(s, known)) == lying(s) == before
        await delete(s, second)
        await s.completed(PICTURES[0])
        assert await told_to_be_lying(s) == lying(s) != before


class Held:
    """The real sum, made only when it is let."""

    def __init__(self) -> None:
        self.begun, self.go = anyio.Event(), anyio.Event()

    async def sum(self, db: aiosqlite.Connection) -> Counter[str]:
        self.begun.set()
        await self.go.wait()
        return await stored.sum_stored(db)


async def test_exact_although_images_come_and_go_meanwhile(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as s:
        first, *_ = await upload_all(s)
    held = Held()
    monkeypatch.setattr(table, "sum_stored", held.sum)
    async with start() as s:
        await held.begun.wait()
        assert not known(await told(s)), "half a sum was told"
        with anyio.fail_after(5):  # every reader can be had at once: the sum has none of them
            async with AsyncExitStack() as borrowed:
                for _ in range(READERS):
                    await borrowed.enter_async_context(s.parts.table._readers.lend())
        await s.completed(make.jpeg(500, 400, seed=7))
        await delete(s, first)
        passing = await s.completed(make.jpeg(400, 400, seed=8))
        await delete(s, passing["image_id"])
        held.go.set()
        assert await told_to_be_lying(s)
        assert (await s.sql("PRAGMA wal_checkpoint(TRUNCATE)"))[0][0] == 0, "the snapshot is still open"


async def test_service_stops_although_the_sum_is_not_made(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    monkeypatch.setattr(table, "sum_stored", held.sum)
    with anyio.fail_after(20):
        async with start() as s:
            await held.begun.wait()
            assert (await s.http.get("/info")).status_code == 200


async def test_sum_that_fails_stops_nothing(start: Starter) -> None:
    async with start() as s:
        image_id = (await upload_all(s))[0]
        await s.sql("UPDATE processing_jobs SET processing_metadata = 'nonsense' WHERE image_id = ?", image_id)
    async with start() as s:
        await s.completed(PICTURES[0])
        assert not known(await told(s))


async def test_variant_that_is_made_no_more_still_counts(start: Starter) -> None:
    async with start(images={"sizes": {"old": 100, "large": 300}}) as s:
        await s.completed(PICTURES[0])
    async with start(images={"sizes": {"large": 300}}) as s:
        assert counted(await told_when(s, known)).keys() == {"old", "large"}
