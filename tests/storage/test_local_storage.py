import grp
import os
import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from imgsvc.settings import SettingsError
from imgsvc.storage import durable_files, local
from imgsvc.storage.base import StorageAway, StorageError
from imgsvc.storage.instance_marker import MARKER, mark
from imgsvc.storage.local import LocalStorage
from imgsvc.storage.reading_group import group_id
from tests.support.speed import within
from tests.support.stored import KEY, read, source


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return local_storage(tmp_path)


def local_storage(tmp_path: Path) -> LocalStorage:
    (tmp_path / "storage").mkdir()
    return LocalStorage(tmp_path / "storage")


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


async def test_listing_goes_on_beside_removals_and_shows_what_was_left_half(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LISTED", 3)
    for number in range(20):
        await storage.put("a", f"processed/large/{number}.webp", source(tmp_path, b"x"))
    (tmp_path / "storage/a/processed/large/.7.webp.partial").write_bytes(b"half")
    seen = []
    async for one in storage.everything():
        seen.append(one.key)
        await storage.remove(one.bucket, one.key)
    assert "processed/large/.7.webp.partial" in seen or "processed/large/7.webp" in seen
    assert [one async for one in storage.everything()] == []


async def test_fetch_that_fails_leaves_no_file(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put("a", KEY, source(tmp_path, b"x" * 100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            await storage.fetch("a", KEY, tmp_path / "copy", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "copy").exists()


async def test_event_loop_does_not_look_at_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on a network disk that hangs would make every request wait."""
    storage, looked = local_storage(tmp_path), set[int]()
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    lstat = os.lstat

    def seen(*arguments: Any, **options: Any) -> os.stat_result:
        looked.add(threading.get_ident())
        return lstat(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", seen)
        await storage.put("a/b", "key", source)
        assert await storage.size("a/b", "key") == 5
        await storage.fetch("a/b", "key", tmp_path / "copy", 0)
        assert (await storage.read("a/b", "key", 0, 5)).first == b"bytes"
        assert await storage.remove("a/b", "key")
    assert looked and threading.get_ident() not in looked


async def test_file_that_has_become_shorter_is_an_error_and_not_an_answer_without_its_bytes(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await storage.put("a/b", KEY, source(tmp_path, b"0123456789"))
    os.truncate(tmp_path / "storage/a/b" / KEY, 0)
    with pytest.raises(StorageError, match="shorter"):
        await storage.read("a/b", KEY, 0, 10)


async def test_folder_that_another_put_is_making_is_synced_before_it_is_used(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first put is held in its sync of the entry of the bucket: the second may not trust that entry."""
    root, held, go = tmp_path / "storage", threading.Event(), threading.Event()
    synced = list[Path]()
    sync_folder = durable_files.sync_folder

    def slowly(folder: Path) -> None:
        if folder == root and not held.is_set():
            held.set()
            assert go.wait(30)
        sync_folder(folder)
        synced.append(folder)

    monkeypatch.setattr(durable_files, "sync_folder", slowly)
    data = source(tmp_path, b"x")
    async with anyio.create_task_group() as group:
        group.start_soon(storage.put, "bucket", "first", data)
        await anyio.to_thread.run_sync(held.wait, 30)
        await storage.put("bucket", "second", data)
        assert root in synced
        go.set()


async def test_folder_that_was_removed_is_made_again(storage: LocalStorage, tmp_path: Path) -> None:
    data = source(tmp_path, b"x")
    await storage.put("a/b", KEY, data)
    shutil.rmtree(tmp_path / "storage/a")
    await storage.put("a/b", KEY, data)
    assert await read(storage, 0, 1) == b"x"


async def test_storage_folder_is_never_made(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "mount" / "storage")
    with pytest.raises(StorageAway):
        await storage.put("a", KEY, source(tmp_path, b"x"))
    assert not (tmp_path / "mount").exists()


async def test_folder_of_another_service_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    root, data = tmp_path / "storage", source(tmp_path, b"x")
    mark(root, "ours")
    ours, theirs = LocalStorage(root, "ours"), LocalStorage(root, "theirs")
    await ours.put("a", KEY, data)
    with pytest.raises(StorageAway):
        await theirs.put("a", KEY, data)
    with pytest.raises(StorageAway):
        await theirs.remove("a", KEY)
    with pytest.raises(StorageAway):
        assert [one async for one in theirs.everything()]
    assert [one.key async for one in ours.everything()] == [KEY]
    (root / MARKER).unlink()
    with pytest.raises(StorageAway):
        await ours.size("a", "nothing")
    assert await ours.size("a", KEY) == 1


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Syncing the file hangs until the test is over, as on a disk that does not answer; set once one does."""
    begun, over, fsync = threading.Event(), threading.Event(), os.fsync

    def hang(descriptor: int) -> None:
        begun.set()
        assert over.wait(30)
        fsync(descriptor)

    monkeypatch.setattr(local, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(os, "fsync", hang)
    yield begun
    over.set()


async def test_put_that_hangs_is_left_behind_and_its_file_gets_no_name(
    storage: LocalStorage, tmp_path: Path, hung: threading.Event
) -> None:
    folder = tmp_path / "storage/a/processed/large"
    folder.mkdir(parents=True)
    storage._closed_folders._synced.update(folder.parents, [folder])
    with within(10):
        async with anyio.create_task_group() as group:
            group.start_soon(storage.put, "a", KEY, source(tmp_path, b"x"))
            await anyio.to_thread.run_sync(hung.wait, 10)
            group.cancel_scope.cancel()
    assert not (folder / "x_large.webp").exists()


async def test_group_may_read_variants_and_pass_through_their_folders(tmp_path: Path) -> None:
    """Whatever the umask says; a source, a probe and what is stored without a group stay as closed as they are."""
    (tmp_path / "storage").mkdir(mode=0o700)
    storage = LocalStorage(tmp_path / "storage", gid=os.getegid())
    before = os.umask(0)
    try:
        for bucket, key in (("a/b", KEY), ("a/b", "sources/x.jpg"), (".health/n", KEY)):
            await storage.put(bucket, key, source(tmp_path, b"x"))
    finally:
        os.umask(before)
    root = tmp_path / "storage"
    found = {str(path.relative_to(root)): oct(path.stat().st_mode & 0o777)[2:] for path in [root, *root.rglob("*")]}
    assert found == {
        ".": "710",
        **dict.fromkeys(("a", "a/b", "a/b/processed", "a/b/processed/large"), "710"),
        f"a/b/{KEY}": "640",
        "a/b/sources": "700",
        "a/b/sources/x.jpg": "600",
        **dict.fromkeys((".health", ".health/n", ".health/n/processed", ".health/n/processed/large"), "700"),
        f".health/n/{KEY}": "600",
    }


def test_group_must_exist_and_be_one_of_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"\[storage\] group .* no such group"):
        group_id("no-such-group")
    name = grp.getgrgid(os.getegid()).gr_name
    assert group_id(name) == os.getegid()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", list)
    with pytest.raises(SettingsError, match="is not in it"):
        group_id(name)


def test_root_that_is_there_is_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that made it may have been killed before it synced the parent."""
    synced, sync = list[Path](), os.fsync
    (tmp_path / "root").mkdir()

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    durable_files.make_root(tmp_path / "root")
    assert synced == [tmp_path]


async def test_key_that_leads_out_of_the_folder_is_refused(storage: LocalStorage, tmp_path: Path) -> None:
    """By a link, which somebody else has put there, or by its words. A link to somewhere inside is followed."""
    root, outside, data = tmp_path / "storage", tmp_path / "outside", source(tmp_path, b"x")
    outside.mkdir()
    await storage.put("a/b", KEY, data)
    (root / "out").symlink_to(outside)
    (root / "a/in").symlink_to(root / "a/b")
    for bucket in ("out", "out/deeper", "../outside", str(outside)):
        with pytest.raises(StorageError, match="leads out"):
            await storage.put(bucket, KEY, data)
        with pytest.raises(StorageError, match="leads out"):
            await storage.size(bucket, KEY)
    assert not list(outside.iterdir())
    assert await storage.size("a/in", KEY) == 1
