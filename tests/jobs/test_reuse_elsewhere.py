"""The same photo twice: storages that can't copy, and a first image that is deleted meanwhile."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.storage.base import StorageError
from imgsvc.storage.memory import MemoryStorage
from tests.conftest import Service, Starter
from tests.support.reuse import PHOTO, assert_right, reuse


class Plain:
    """A storage that can't copy."""

    name = "plain"

    def __init__(self) -> None:
        inner = MemoryStorage()
        self.put, self.remove, self.read = inner.put, inner.remove, inner.read
        self.size, self.fetch, self.everything = inner.size, inner.fetch, inner.everything


class Broken(MemoryStorage):
    async def copy(self, *_: object) -> None:
        raise StorageError("the store is away")


@pytest.mark.parametrize(
    ("storage", "status"),
    [(MemoryStorage, "reused"), (Plain, "error"), (Broken, "error")],
    ids=lambda value: str(value),
)
async def test_storages_that_copy_and_others(tmp_path: Path, storage: Callable[[], Any], status: str) -> None:
    settings = testing.settings_in(tmp_path)
    async with testing.serving(settings, storage=storage()) as (app, http):
        s = Service(app, settings, http)
        await s.completed(PHOTO)
        second = await s.completed(PHOTO)
        assert (second["attempts"], await reuse(s)) == (0, {status: 1})
        await assert_right(s, second["image_id"])


async def deleted_meanwhile(s: Service, rounds: int) -> dict[str, int]:
    """Delete the first image while the second is made, at another moment in each round."""
    for number in range(rounds):
        data = make.jpeg(96, 64, number)
        first = (await s.completed(data))["image_id"]
        second: list[httpx.Response] = []

        async def upload(data: bytes = data, second: list[httpx.Response] = second) -> None:
            second.append(await s.upload(data))

        async with anyio.create_task_group() as group:
            group.start_soon(upload)
            for _ in range(number * 7 % 60):
                await anyio.sleep(0.0005)
            answer = await s.http.delete(f"/api/v1/images/{first}", headers=s.bearer())
            assert answer.status_code == 200
        job = await s.ended(second[0])
        assert (job["status"], job["attempts"]) == ("completed", 0)
        await assert_right(s, job["image_id"])
        assert (await s.http.get(f"/api/v1/images/{first}/direct")).status_code == 404
        await s.http.delete(f"/api/v1/images/{job['image_id']}", headers=s.bearer())
        with suppress(FileNotFoundError):
            assert s.stored() == []
    return await reuse(s)


async def test_first_is_deleted_while_the_second_is_made(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 1_000_000}) as s:
        await deleted_meanwhile(s, 8)


@pytest.mark.torture
async def test_first_is_deleted_200_times_while_the_second_is_made(start: Starter) -> None:
    """Some take its files over, some find it gone."""
    async with start(rate_limit={"max_uploads": 1_000_000}) as s:
        found = await deleted_meanwhile(s, 200)
        assert found.get("reused", 0) > 10, found
