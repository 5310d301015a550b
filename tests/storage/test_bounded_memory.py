"""What the memory of reads forgets, and what was being fetched meanwhile."""

import pytest

from imgsvc.storage.bounded_memory import BoundedMemory


@pytest.mark.parametrize("forget", [lambda memory: memory.forget("key"), BoundedMemory.clear], ids=["one", "all"])
def test_a_fetch_that_began_before_is_not_kept(forget: object) -> None:
    memory = BoundedMemory(1000)
    with memory.fetch() as fetch:
        assert callable(forget)
        forget(memory)
        memory.put(fetch, "key", "old", 10)
    assert memory.get("key") is None and memory.held_bytes == 0
    with memory.fetch() as fetch:
        memory.put(fetch, "key", "new", 10)
    assert memory.get("key") == "new" and memory.held_bytes == 10
