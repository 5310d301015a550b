"""What every storage backend must do: each test runs against all of them. A new backend is added to BACKENDS."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imgsvc.settings.storage import S3
from imgsvc.storage.base import Copying, Differs, NotStored, Original, SharedStorage, Storage, StorageError
from imgsvc.storage.instance_marker import mark
from imgsvc.storage.instrumented import InstrumentedStorage
from imgsvc.storage.instrumented import instrumented as instrumented_storage
from imgsvc.storage.local import LocalStorage
from imgsvc.storage.memory import MemoryStorage
from imgsvc.storage.placing import CHUNK
from imgsvc.storage.s3 import s3_storage
from tests.support.s3 import S3Server
from tests.support.stored import KEY, read_from, source

INSTANCE = "0" * 32
AWKWARD = (
    ("photos", KEY),
    ("a/b/c", KEY),
    ("processed", KEY),
    ("photos", "processed/Größe/ä ö_日本.webp"),
    ("photos", "processed/a+b/50%25_x&y=z.webp"),
)


@asynccontextmanager
async def local(folder: Path, _s3: Callable[[], S3Server]) -> AsyncIterator[Storage]:
    root = folder / "storage"
    root.mkdir()
    mark(root, INSTANCE)
    yield LocalStorage(root, INSTANCE)


@asynccontextmanager
async def memory(_folder: Path, _s3: Callable[[], S3Server]) -> AsyncIterator[Storage]:
    yield MemoryStorage()


@asynccontextmanager
async def instrumented(folder: Path, _s3: Callable[[], S3Server]) -> AsyncIterator[Storage]:
    (folder / "storage").mkdir()
    yield InstrumentedStorage(LocalStorage(folder / "storage"), lambda *_: None, lambda *_: None)


@asynccontextmanager
async def s3(_folder: Path, server: Callable[[], S3Server]) -> AsyncIterator[Storage]:
    running = server()
    async with s3_storage(S3(**running.settings(running.bucket()))) as storage:
        yield storage


Backend = Callable[[Path, Callable[[], S3Server]], AbstractAsyncContextManager[Storage]]
BACKENDS: tuple[Backend, ...] = (local, memory, instrumented, s3)


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    backend: Backend = request.param
    async with backend(tmp_path, lambda: request.getfixturevalue("s3")) as one:
        yield one


async def keys(storage: Storage) -> list[tuple[str, str]]:
    return sorted([(one.bucket, one.key) async for one in storage.everything()])


def test_backend_has_a_short_name(storage: Storage) -> None:
    assert storage.name.isidentifier()


@pytest.mark.parametrize(("bucket", "key"), AWKWARD)
async def test_put_stores_the_bytes_and_keeps_the_source(
    storage: Storage, tmp_path: Path, bucket: str, key: str
) -> None:
    data = os.urandom(1000)
    path = source(tmp_path, data)
    await storage.put(bucket, key, path)
    assert await storage.size(bucket, key) == len(data)
    assert await read_from(storage, bucket, key, 0, len(data)) == data
    assert await keys(storage) == [(bucket, key)]
    assert path.read_bytes() == data


async def test_what_is_stored_does_not_change_with_its_source(storage: Storage, tmp_path: Path) -> None:
    path = source(tmp_path, b"first")
    await storage.put("a", KEY, path)
    with path.open("r+b") as stream:
        stream.write(b"later")
    assert await read_from(storage, "a", KEY, 0, 5) == b"first"


async def test_put_replaces_and_can_be_repeated(storage: Storage, tmp_path: Path) -> None:
    await storage.put("a", KEY, source(tmp_path, b"the old and longer one"))
    for _ in range(2):
        await storage.put("a", KEY, source(tmp_path, b"newer"))
        assert await storage.size("a", KEY) == 5
        assert await read_from(storage, "a", KEY, 0, 5) == b"newer"
    assert await keys(storage) == [("a", KEY)]


async def test_any_range_can_be_read(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(CHUNK * 2 + 5)
    await storage.put("a/b", KEY, source(tmp_path, data))
    for start, length in ((0, 1), (0, CHUNK), (CHUNK - 3, CHUNK + 6), (len(data) - 2, 2), (0, len(data)), (7, 0)):
        assert await read_from(storage, "a/b", KEY, start, length) == data[start : start + length]


async def test_read_that_is_left_half_way_keeps_nothing_from_going_on(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(CHUNK * 8)
    await storage.put("a", KEY, source(tmp_path, data))
    for _ in range(20):
        blob = await storage.read("a", KEY, 0, len(data))
        assert blob.first == data[: len(blob.first)]
        async for _ in blob.rest:
            break
        if (close := getattr(blob.rest, "aclose", None)) is not None:
            await close()
    assert await read_from(storage, "a", KEY, 0, len(data)) == data


async def test_what_is_missing_is_said_to_be_missing(storage: Storage, tmp_path: Path) -> None:
    await storage.put("a/b", KEY, source(tmp_path, b"x"))
    for bucket, key in (("a/b", f"{KEY}.other"), ("a", KEY), ("b", KEY)):
        assert await storage.size(bucket, key) is None
        assert not await storage.remove(bucket, key)
        with pytest.raises(NotStored):
            await storage.read(bucket, key, 0, 1)
        with pytest.raises(NotStored):
            await storage.fetch(bucket, key, tmp_path / "target", 1)
        assert not (tmp_path / "target").exists()
    assert await storage.size("a/b", KEY) == 1


async def test_remove_takes_one_and_says_so_once(storage: Storage, tmp_path: Path) -> None:
    for bucket in ("a", "a/b"):
        await storage.put(bucket, KEY, source(tmp_path, b"x"))
    assert await storage.remove("a", KEY)
    assert not await storage.remove("a", KEY)
    assert await storage.size("a", KEY) is None
    assert await keys(storage) == [("a/b", KEY)]
    await storage.put("a", KEY, source(tmp_path, b"back"))
    assert await read_from(storage, "a", KEY, 0, 4) == b"back"


async def test_fetch_makes_a_new_file(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(CHUNK + 5)
    await storage.put("a/b", KEY, source(tmp_path, data))
    await storage.fetch("a/b", KEY, tmp_path / "copy", len(data))
    assert (tmp_path / "copy").read_bytes() == data


async def test_put_without_its_source_fails_and_changes_nothing(storage: Storage, tmp_path: Path) -> None:
    await storage.put("a", KEY, source(tmp_path, b"old"))
    with pytest.raises((StorageError, FileNotFoundError)):
        await storage.put("a", KEY, tmp_path / "missing")
    assert await read_from(storage, "a", KEY, 0, 3) == b"old"
    assert await keys(storage) == [("a", KEY)]


async def test_everything_but_the_health_check_is_listed_with_size_and_time(storage: Storage, tmp_path: Path) -> None:
    assert await keys(storage) == []
    places = {("a/b", KEY), ("a", KEY), ("processed", KEY), ("c", "loose")}
    for bucket, key in (*places, (".health", "probe")):
        await storage.put(bucket, key, source(tmp_path, b"12345"))
    found = [one async for one in storage.everything()]
    assert {(one.bucket, one.key) for one in found} == places
    assert len(found) == len(places)
    assert {one.size_bytes for one in found} == {5}
    assert all(abs(one.modified - datetime.now(UTC)) < timedelta(minutes=1) for one in found)


async def test_a_listing_goes_on_while_what_it_lists_is_removed(storage: Storage, tmp_path: Path) -> None:
    for number in range(8):
        await storage.put("a", f"processed/large/{number}.webp", source(tmp_path, b"x"))
    seen = []
    async for one in storage.everything():
        seen.append(one.key)
        await storage.remove(one.bucket, one.key)
    assert len(seen) == len(set(seen)) == 8
    assert await keys(storage) == []


async def test_puts_of_one_key_at_once_leave_one_of_them_whole(storage: Storage, tmp_path: Path) -> None:
    versions = [bytes([number]) * (200_000 + number) for number in range(6)]
    sources = [source(tmp_path, data, f"source-{number}") for number, data in enumerate(versions)]
    await asyncio.gather(*(storage.put("a", f"processed/{n}.webp", path) for n, path in enumerate(sources)))
    for number, data in enumerate(versions):
        assert await read_from(storage, "a", f"processed/{number}.webp", 0, len(data)) == data
    for path in sources:  # one after the other for one key, as the runs of a job do
        await storage.put("a", KEY, path)
    assert await storage.size("a", KEY) == len(versions[-1])
    assert await read_from(storage, "a", KEY, 0, len(versions[-1])) == versions[-1]


async def test_a_cancelled_read_or_put_can_be_done_again(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(CHUNK * 4)
    path = source(tmp_path, data)
    putting = asyncio.ensure_future(storage.put("a", KEY, path))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await storage.put("a", KEY, path)
    reading = asyncio.ensure_future(storage.read("a", KEY, 0, len(data)))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    assert await read_from(storage, "a", KEY, 0, len(data)) == data


async def test_services_that_share_a_storage_are_known_by_their_probes(storage: Storage, tmp_path: Path) -> None:
    await storage.put(f".health/{INSTANCE}", "probe", source(tmp_path, b"x"))
    for one in (storage, instrumented_storage(storage, lambda *_: None, lambda *_: None)):
        assert isinstance(one, SharedStorage) == (storage.name == "s3")
        if isinstance(one, SharedStorage):
            assert await one.services() == [INSTANCE]
            assert one.probe_interval > 0


def original(data: bytes, bucket: str = "a", key: str = KEY) -> Original:
    return Original(bucket, key, len(data), hashlib.sha256(data).hexdigest())


async def test_copy_has_the_same_bytes_and_lives_on_alone(storage: Storage, tmp_path: Path) -> None:
    """Whatever becomes of the original. A copy that is made again, or over another file, is the same."""
    assert isinstance(storage, Copying)
    data = os.urandom(300_000)
    await storage.put("a", KEY, source(tmp_path, data))
    await storage.put("b/c", KEY, source(tmp_path, b"before"))
    for _ in range(2):
        await storage.copy("b/c", KEY, original(data))
        assert await storage.size("b/c", KEY) == len(data)
    await storage.put("a", KEY, source(tmp_path, b"other"))
    assert await read_from(storage, "b/c", KEY, 0, len(data)) == data
    assert await storage.remove("a", KEY)
    assert await read_from(storage, "b/c", KEY, 5, 10) == data[5:15]
    assert sorted([(one.bucket, one.key) async for one in storage.everything()]) == [("b/c", KEY)]


@pytest.mark.parametrize(("bucket", "key"), AWKWARD)
async def test_copy_of_any_name(storage: Storage, tmp_path: Path, bucket: str, key: str) -> None:
    assert isinstance(storage, Copying)
    await storage.put(bucket, key, source(tmp_path, b"data"))
    await storage.copy(f"{bucket}/copy", key, original(b"data", bucket, key))
    assert await read_from(storage, f"{bucket}/copy", key, 0, 4) == b"data"


@pytest.mark.parametrize(("said", "error"), [(b"othr", Differs), (b"longer", Differs), (b"d", Differs)])
async def test_copy_of_other_bytes_than_said_is_refused(
    storage: Storage, tmp_path: Path, said: bytes, error: type[Exception]
) -> None:
    assert isinstance(storage, Copying)
    await storage.put("a", KEY, source(tmp_path, b"data"))
    with pytest.raises(error):
        await storage.copy("b", KEY, original(said))
    assert await read_from(storage, "a", KEY, 0, 4) == b"data"


async def test_copy_of_nothing(storage: Storage) -> None:
    assert isinstance(storage, Copying)
    with pytest.raises(NotStored):
        await storage.copy("b", KEY, original(b"data"))
    assert await storage.size("b", KEY) is None
