"""Variants as files under one folder: {root}/{bucket}/{key}."""

import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from .base import Blob, NotStored, StorageBusy, StorageError, Stored

CHUNK = 256 * 1024  # bytes; most variants are one chunk, and so cost one visit to a thread
THREADS = 16
LISTED = 500  # files that one visit to a thread lists
HEALTH = ".health"


class LocalStorage:
    name = "local"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = anyio.CapacityLimiter(THREADS)

    async def put(self, bucket: str, key: str, source: Path) -> None:
        try:
            await anyio.to_thread.run_sync(_put, self._root, bucket, key, source, limiter=self._threads)
        except OSError as error:
            kind = StorageBusy if error.errno in (errno.EMFILE, errno.ENFILE) else StorageError
            raise kind(f"writing failed: {error.strerror}") from error

    async def remove(self, bucket: str, key: str) -> bool:
        try:
            return await anyio.to_thread.run_sync(_remove, self._root, bucket, key, limiter=self._threads)
        except OSError as error:
            raise StorageError(f"removing failed: {error.strerror}") from error

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        try:
            first, stream = await anyio.to_thread.run_sync(
                _read_first, self._root, bucket, key, start, length, limiter=self._threads
            )
        except FileNotFoundError:
            raise NotStored(key) from None
        except OSError as error:
            raise StorageError(f"reading failed: {error.strerror}") from error
        return Blob(first, self._rest(stream, length - len(first)))

    async def _rest(self, stream: BinaryIO | None, left: int) -> AsyncIterator[bytes]:
        if stream is None:
            return
        with stream:
            while left > 0:
                chunk = await anyio.to_thread.run_sync(stream.read, min(CHUNK, left), limiter=self._threads)
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk

    async def size(self, bucket: str, key: str) -> int | None:
        try:
            return await anyio.to_thread.run_sync(_size, self._root, bucket, key, limiter=self._threads)
        except OSError as error:
            raise StorageError(f"looking failed: {error.strerror}") from error

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:  # noqa: ARG002
        try:
            await anyio.to_thread.run_sync(_fetch, self._root, bucket, key, target, limiter=self._threads)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and error.filename == str(self._root / bucket / key):
                raise NotStored(key) from None
            raise StorageError(f"copying failed: {error.strerror}") from error

    async def everything(self) -> AsyncIterator[Stored]:
        files = _files(self._root)
        while page := await anyio.to_thread.run_sync(self._page, files, limiter=self._threads):
            for one in page:
                yield one

    async def services(self) -> list[str]:
        """A folder is one service's."""
        return []

    def _page(self, files: Iterator[tuple[str, os.stat_result]]) -> list[Stored]:
        try:
            return [self._stored(path, found) for path, found in islice(files, LISTED)]
        except OSError as error:
            raise StorageError(f"listing failed: {error.strerror}") from error

    def _stored(self, path: str, found: os.stat_result) -> Stored:
        """A bucket may have several segments: the key begins with the last `processed` in the path."""
        name = os.path.relpath(path, self._root)
        bucket, mark, rest = name.rpartition("/processed/")
        if not mark:
            bucket, _, rest = name.rpartition("/")
        return Stored(bucket, f"{mark[1:]}{rest}", found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _path(root: Path, bucket: str, key: str) -> Path:
    """Not on the event loop: it looks at every folder on the way."""
    path = root / bucket / key
    if not path.resolve().is_relative_to(root.resolve()):
        raise StorageError("the key leads out of the storage folder")
    return path


def _put(root: Path, bucket: str, key: str, source: Path) -> None:
    """Temporary name, write, fsync, rename, fsync the folder; after a failed fsync nothing of the file is kept."""
    target = _path(root, bucket, key)
    _make_folders(target.parent, root)
    partial = _partial(target)
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            shutil.copyfileobj(reader, writer, CHUNK)
            writer.flush()
            os.fsync(writer.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _make_folders(folder: Path, root: Path) -> None:
    """Create `folder` and its parents, each durable in its own parent before it is used."""
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(folder.parent, root)
    folder.mkdir(exist_ok=True, parents=folder == root)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(target: Path) -> Path:
    """Named after the target, so that a replay of an interrupted put overwrites it and nothing stays behind."""
    return target.with_name(f".{target.name}.partial")


def _remove(root: Path, bucket: str, key: str) -> bool:
    target, found = _path(root, bucket, key), False
    for path in (_partial(target), target):
        try:
            path.unlink()
            found = True
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            continue
    if found:
        sync_folder(target.parent)
    return found


def _read_first(root: Path, bucket: str, key: str, start: int, length: int) -> tuple[bytes, BinaryIO | None]:
    stream = _path(root, bucket, key).open("rb")
    try:
        stream.seek(start)
        first = stream.read(min(CHUNK, length))
    except BaseException:
        stream.close()
        raise
    if len(first) == length or not first:
        stream.close()
        return first, None
    return first, stream


def _size(root: Path, bucket: str, key: str) -> int | None:
    try:
        found = _path(root, bucket, key).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _fetch(root: Path, bucket: str, key: str, target: Path) -> None:
    with _path(root, bucket, key).open("rb") as reader, target.open("xb") as writer:
        try:
            shutil.copyfileobj(reader, writer, CHUNK)
            writer.flush()
        except BaseException:
            target.unlink()
            with suppress(OSError):
                writer.close()  # what a full disk left in the buffer
            raise


def _files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below `root`, whatever comes and goes meanwhile; no folder is held in memory."""
    folders = [str(root)]
    while folders:
        folder = folders.pop()
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if folder != str(root) or entry.name != HEALTH:
                        folders.append(entry.path)
                    continue
                with suppress(FileNotFoundError):
                    yield entry.path, entry.stat(follow_symlinks=False)
