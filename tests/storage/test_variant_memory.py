"""The memory of small variants."""

from pathlib import Path

import pytest

from imgsvc.storage.base import Blob, NotStored, Storage
from imgsvc.storage.bounded_memory import BoundedMemory
from imgsvc.storage.instrumented import instrumented
from imgsvc.storage.memory import MemoryStorage
from imgsvc.storage.variant_memory import SMALL_BYTES, VariantMemory

KEY = "processed/medium/x_medium.webp"
DATA, DIGEST = b"data", "of-data"


async def stored(memory: VariantMemory, tmp_path: Path) -> Storage:
    storage = instrumented(MemoryStorage(), lambda *_: None, memory.forget)
    await put(storage, tmp_path, DATA)
    return storage


async def put(storage: Storage, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "source").write_bytes(data)
    await storage.put("b", KEY, tmp_path / "source")


async def test_second_read_takes_no_storage(tmp_path: Path) -> None:
    memory = VariantMemory(BoundedMemory(1 << 20))
    storage = await stored(memory, tmp_path)
    assert memory.get(storage.name, "b", KEY, DIGEST) is None
    assert await memory.read(storage, "b", KEY, DIGEST, len(DATA)) == DATA
    assert memory.get(storage.name, "b", KEY, DIGEST) == DATA
    assert memory.get(storage.name, "b", KEY, "another") is None
    assert memory.get("another", "b", KEY, DIGEST) is None
    assert (memory.hits, memory.misses) == (1, 3)


@pytest.mark.parametrize("change", ["put", "remove"])
async def test_changed_file_is_forgotten(tmp_path: Path, change: str) -> None:
    memory = VariantMemory(BoundedMemory(1 << 20))
    storage = await stored(memory, tmp_path)
    await memory.read(storage, "b", KEY, DIGEST, len(DATA))
    if change == "put":
        await put(storage, tmp_path, b"else")
    else:
        await storage.remove("b", KEY)
    assert memory.get(storage.name, "b", KEY, DIGEST) is None
    assert memory.held_bytes == 0


async def test_file_that_changes_while_it_is_read_is_not_kept(tmp_path: Path) -> None:
    memory = VariantMemory(BoundedMemory(1 << 20))
    storage = await stored(memory, tmp_path)

    class Slow(MemoryStorage):
        """Reads, and then the file is removed before the answer is there."""

        async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
            blob = await storage.read(bucket, key, start, length)
            await storage.remove(bucket, key)
            return blob

    assert await memory.read(Slow(), "b", KEY, DIGEST, len(DATA)) == DATA
    assert memory.held_bytes == 0
    with pytest.raises(NotStored):
        await memory.read(storage, "b", KEY, DIGEST, len(DATA))


async def test_shorter_file_is_not_kept(tmp_path: Path) -> None:
    memory = VariantMemory(BoundedMemory(1 << 20))
    storage = await stored(memory, tmp_path)
    assert await memory.read(storage, "b", KEY, DIGEST, len(DATA) + 1) == DATA
    assert memory.held_bytes == 0


def test_what_is_kept() -> None:
    memory = VariantMemory(BoundedMemory(64 << 20))
    assert memory.takes(1) and memory.takes(SMALL_BYTES)
    assert not memory.takes(0) and not memory.takes(SMALL_BYTES + 1)
    assert not VariantMemory(BoundedMemory(0)).takes(1)


def test_least_recently_read_goes_first() -> None:
    memory = BoundedMemory(80)
    for number in range(10):
        with memory.fetch() as fetch:
            memory.put(fetch, number, str(number), 8)
    assert memory.held_bytes == 80
    assert memory.get(0) == "0"
    with memory.fetch() as fetch:
        memory.put(fetch, 10, "10", 10)
        memory.put(fetch, 11, "too large", 11)
    assert [number for number in range(12) if memory.get(number) is not None] == [0, 3, 4, 5, 6, 7, 8, 9, 10]
    memory.clear()
    assert memory.held_bytes == 0
