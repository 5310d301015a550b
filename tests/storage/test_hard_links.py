"""Several files that get a second name together."""

import hashlib
from pathlib import Path

import pytest

from imgsvc.storage.base import Differs, NotStored, Original
from imgsvc.storage.durable_files import partial_of
from imgsvc.storage.local import LocalStorage

NAMES = ("thumbnail", "medium", "large")


@pytest.fixture
async def storage(tmp_path: Path) -> LocalStorage:
    (tmp_path / "storage").mkdir()
    stored = LocalStorage(tmp_path / "storage")
    for name in NAMES:
        (tmp_path / name).write_text(name)
        await stored.put("a", name, tmp_path / name)
    return stored


def originals(**others: str) -> dict[str, Original]:
    """{new key: what is in the bucket "a"}, or is said to be."""
    said = {name: others.get(name, name).encode() for name in NAMES}
    return {
        f"{name}-2": Original("a", name, len(data), hashlib.sha256(data).hexdigest()) for name, data in said.items()
    }


def names(tmp_path: Path, bucket: str) -> list[str]:
    return sorted(path.name for path in (tmp_path / "storage" / bucket).glob("*"))


async def test_all_are_names_of_the_same_files(storage: LocalStorage, tmp_path: Path) -> None:
    for _ in range(2):  # the second time both are names of one file already, and rename(2) does nothing
        await storage.copy_all("b", originals())
        assert names(tmp_path, "b") == sorted(f"{name}-2" for name in NAMES)
    for name in NAMES:
        assert (tmp_path / "storage/b" / f"{name}-2").samefile(tmp_path / "storage/a" / name)


async def test_what_a_crash_has_left_is_replaced(storage: LocalStorage, tmp_path: Path) -> None:
    left = partial_of(tmp_path / "storage/b/large-2")
    left.parent.mkdir()
    left.hardlink_to(tmp_path / "storage/a/medium")
    await storage.copy_all("b", originals())
    assert (tmp_path / "storage/b/large-2").read_text() == "large"
    assert (tmp_path / "storage/a/medium").read_text() == "medium"
    assert not left.exists()


async def test_one_that_differs_keeps_all_from_being_named(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(Differs):
        await storage.copy_all("b", originals(medium="median"))
    assert names(tmp_path, "b") == []


async def test_one_that_is_gone_keeps_all_from_being_named(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.remove("a", "large")
    with pytest.raises(NotStored, match="large"):
        await storage.copy_all("b", originals())
    assert names(tmp_path, "b") == []
