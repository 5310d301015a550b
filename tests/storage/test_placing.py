"""Files that are put together: linked where that can be, copied elsewhere, and all of them durable."""

import errno
import os
import threading
from pathlib import Path

import anyio
import pytest

from imgsvc.storage.base import StorageBusy, StorageError
from imgsvc.storage.instrumented import instrumented
from imgsvc.storage.local import LocalStorage
from tests.support.speed import within

KEYS = [f"processed/{name}/x_{name}.webp" for name in ("large", "medium", "small")]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    (tmp_path / "storage").mkdir()
    return LocalStorage(tmp_path / "storage")


def sources(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "made").mkdir(exist_ok=True)
    made = {key: tmp_path / "made" / key.split("/")[1] for key in KEYS}
    for key, path in made.items():
        path.write_bytes(key.encode())
    return made


def stored(tmp_path: Path) -> dict[str, bytes]:
    """Everything in the folder, also what has a temporary name."""
    root = tmp_path / "storage/a"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


WHOLE = {key: key.encode() for key in KEYS}


async def test_files_put_together_are_linked_and_can_be_put_again(storage: LocalStorage, tmp_path: Path) -> None:
    made = sources(tmp_path)
    for _ in range(2):  # the second time both names are of one file already, and rename(2) does nothing
        await storage.put_all("a", made)
        assert stored(tmp_path) == WHOLE
        assert all((tmp_path / "storage/a" / key).samefile(path) for key, path in made.items())
    for path in made.values():
        path.unlink()
    assert stored(tmp_path) == WHOLE


async def test_what_an_interrupted_put_has_left_is_never_written_into(storage: LocalStorage, tmp_path: Path) -> None:
    """It may be a second name of another image's file."""
    await storage.put_all("a", sources(tmp_path))
    other = tmp_path / "storage/a" / KEYS[0]
    left = other.with_name(".y_large.webp.partial")
    left.hardlink_to(other)
    new = tmp_path / "new"
    new.write_bytes(b"longer than what the other image has there")
    key = KEYS[0].replace("x_", "y_")
    await storage.put_all("a", {key: new})
    assert stored(tmp_path) == {**WHOLE, key: new.read_bytes()}


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
async def test_files_that_can_not_be_linked_are_copied(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    made = sources(tmp_path)
    await storage.put_all("a", made)
    assert stored(tmp_path) == WHOLE
    assert not any((tmp_path / "storage/a" / key).samefile(path) for key, path in made.items())


async def test_each_file_is_synced_before_the_first_has_its_name_and_each_folder_after(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        if not calls:  # one commit of the file system's journal then writes all of their names
            assert len([name for name in stored(tmp_path) if name.endswith(".partial")]) == len(KEYS)
        calls.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        calls.append(f"rename {target.name}")
        return replace(path, target)

    await storage.put_all("a", sources(tmp_path))  # makes the folders
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    await storage.put_all("a", sources(tmp_path))
    names = [key.rpartition("/")[2] for key in KEYS]
    folders = [key.split("/")[1] for key in KEYS]
    assert calls == [*(f".{name}.partial" for name in names), *(f"rename {name}" for name in names), *folders]


async def test_failed_sync_leaves_nothing_to_be_put_again(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, count = os.fsync, 0

    def fail_at_the_second(descriptor: int) -> None:
        nonlocal count
        count += Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(".partial")
        if count == 2:
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_at_the_second)
    made = sources(tmp_path)
    with pytest.raises(StorageError, match="Input/output error") as raised:
        await storage.put_all("a", made)
    assert not isinstance(raised.value, StorageBusy)
    assert stored(tmp_path) == {}
    with pytest.raises(StorageError):  # a second sync of that file would succeed, and its bytes be lost
        await storage.put_all("a", made)
    assert stored(tmp_path) == {}


async def test_folder_that_was_removed_is_made_again(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put_all("a", sources(tmp_path))
    for key in KEYS[1:]:
        (tmp_path / "storage/a" / key).unlink()
        (tmp_path / "storage/a" / key).parent.rmdir()
    await storage.put_all("a", sources(tmp_path))
    assert stored(tmp_path) == WHOLE


async def test_missing_source_is_an_error_that_leaves_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    made = sources(tmp_path)
    made[KEYS[2]].unlink()
    with pytest.raises(StorageError):
        await storage.put_all("a", made)
    assert stored(tmp_path) == {}


async def test_files_whose_caller_has_gone_get_no_name(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsvc.storage.local.LINGER_SECONDS", 0.01)
    reached, go_on, sync = threading.Event(), threading.Event(), os.fsync

    def wait(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(".partial"):
            reached.set()
            assert go_on.wait(20)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", wait)
    with within(20):
        async with anyio.create_task_group() as group:
            group.start_soon(storage.put_all, "a", sources(tmp_path))
            while not reached.is_set():
                await anyio.sleep(0.005)
            group.cancel_scope.cancel()
        go_on.set()
        while [name for name in stored(tmp_path) if name.endswith(".partial")]:
            await anyio.sleep(0.005)
    assert stored(tmp_path) == {}


async def test_each_of_the_files_is_counted_and_told_of(storage: LocalStorage, tmp_path: Path) -> None:
    counted: list[tuple[str, str, str]] = []
    changed: list[tuple[str, str, str]] = []
    watched = instrumented(
        storage, lambda *told: counted.append((told[0], told[1], told[2])), lambda *told: changed.append(told)
    )
    await watched.put_all("a", sources(tmp_path))  # type: ignore[attr-defined]
    assert counted == [("local", "put", "ok")] * 3
    assert sorted(changed) == [("local", "a", key) for key in KEYS]
