import os
from pathlib import Path

import pytest

from imgsvc.storage.base import NotStored, StorageError
from imgsvc.storage.local import CHUNK, LocalStorage

KEY = "processed/large/x_large.webp"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


def source(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data)
    return path


async def read(storage: LocalStorage, start: int, length: int) -> bytes:
    blob = await storage.read("a/b", KEY, start, length)
    return blob.first + b"".join([chunk async for chunk in blob.rest])


async def test_what_is_put_can_be_read_in_parts_and_removed(storage: LocalStorage, tmp_path: Path) -> None:
    data = os.urandom(CHUNK * 2 + 5)
    await storage.put("a/b", KEY, source(tmp_path, data))
    assert await read(storage, 0, len(data)) == data
    assert await read(storage, CHUNK - 3, CHUNK + 6) == data[CHUNK - 3 : 2 * CHUNK + 3]
    assert await storage.remove("a/b", KEY)
    assert not await storage.remove("a/b", KEY)
    with pytest.raises(NotStored):
        await read(storage, 0, 1)


async def test_put_replaces(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put("a/b", KEY, source(tmp_path, b"old"))
    await storage.put("a/b", KEY, source(tmp_path, b"newer"))
    assert await read(storage, 0, 5) == b"newer"


async def test_failed_put_leaves_the_old_and_nothing_half(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put("a/b", KEY, source(tmp_path, b"old"))
    with pytest.raises(StorageError):
        await storage.put("a/b", KEY, tmp_path / "missing")
    folder = tmp_path / "storage/a/b/processed/large"
    assert [path.name for path in folder.iterdir()] == ["x_large.webp"]
    assert await read(storage, 0, 3) == b"old"


async def test_remove_takes_what_an_interrupted_put_left(storage: LocalStorage, tmp_path: Path) -> None:
    folder = tmp_path / "storage/a/b/processed/large"
    folder.mkdir(parents=True)
    (folder / ".x_large.webp.partial").write_bytes(b"half")
    assert await storage.remove("a/b", KEY)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("bucket", ["..", "../..", "/etc"])
async def test_key_outside_the_folder_is_refused(storage: LocalStorage, tmp_path: Path, bucket: str) -> None:
    with pytest.raises(StorageError):
        await storage.put(bucket, KEY, source(tmp_path, b"x"))
