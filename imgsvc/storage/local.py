"""Variants as files in one folder: {root}/{bucket}/{key}."""

import errno
import os
import shutil
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from .base import HEALTH, LOCAL, Blob, NotStored, Original, PlaceTaken, StorageAway, StorageBusy, StorageError, Stored
from .bounded_threads import BoundedThreads
from .durable_files import DurableFolders, partial_of, sync_folder
from .hard_links import Link, link_all
from .instance_marker import MARKER, marker_of
from .keys import THROUGH_A_FILE, split_path
from .placing import CHUNK, Placed, place
from .reading_group import CLOSED_FOLDER_MODE, ReadingGroup

PIECE_BYTES = 1024 * 1024  # the most that one call in a thread reads
THREADS = 16
LISTED = 500  # files that one call in a thread lists
OWN_FILES = (MARKER, partial_of(Path(MARKER)).name)
LINGER_SECONDS = 2.0  # how long a cancelled change is waited for: the disk may not respond


class LocalStorage:
    """Storage in a local folder. `put` and `remove` are durable once they return.

    Raises StorageAway, and changes nothing, if the folder's ID is not `instance` (None: not checked). The root folder
    is never created here: on an unmounted disk that would create it on the wrong disk.
    """

    name = LOCAL

    def __init__(self, root: Path, instance: str | None = None, gid: int | None = None) -> None:
        """`gid`: the group that may read variants."""
        self._root = root
        self._instance = instance
        self._group = None if gid is None else ReadingGroup(gid, root)
        self._closed_folders = self._open_folders = DurableFolders(root)
        if self._group:
            self._closed_folders = DurableFolders(root, CLOSED_FOLDER_MODE)
            self._open_folders = DurableFolders(root, CLOSED_FOLDER_MODE, self._group.admit_folder)
        self._threads = BoundedThreads(THREADS)

    async def put(self, bucket: str, key: str, source: Path) -> None:
        await self._put_all(bucket, {key: source}, linked=False)

    async def put_all(self, bucket: str, sources: Mapping[str, Path]) -> None:
        """Store several files in one visit to a thread, by a second name (link(2)) where that can be."""
        await self._put_all(bucket, sources, linked=True)

    async def _put_all(self, bucket: str, sources: Mapping[str, Path], *, linked: bool) -> None:
        left = threading.Event()  # set once the caller has gone: the file then keeps its temporary name

        def put() -> None:
            self._write(bucket, sources, partial(place, left=left), linked=linked)

        try:
            await self._threads.run(put, linger_seconds=LINGER_SECONDS)
        except OSError as error:
            raise _not_stored(error, bucket) from error
        except BaseException:
            left.set()
            raise

    async def copy(self, bucket: str, key: str, original: Original) -> None:
        await self.copy_all(bucket, {key: original})

    async def copy_all(self, bucket: str, originals: Mapping[str, Original]) -> None:
        """Link the files (link(2)) in one visit to a thread: both names of each are of the same bytes."""
        left = threading.Event()

        def write(files: Sequence[Placed]) -> None:
            both = zip(files, originals.values(), strict=True)
            link_all([Link(one.source, one.target, original, one.set_mode) for one, original in both], left)

        def copy() -> None:
            sources = {key: _path(self._root, one.bucket, one.key) for key, one in originals.items()}
            self._write(bucket, sources, write)

        try:
            await self._threads.run(copy, linger_seconds=LINGER_SECONDS)
        except FileNotFoundError:
            raise NotStored(", ".join(one.key for one in originals.values())) from None
        except OSError as error:
            raise _not_stored(error, bucket) from error
        except BaseException:
            left.set()
            raise

    def _write(
        self,
        bucket: str,
        sources: Mapping[str, Path],
        write: Callable[[Sequence[Placed]], None],
        *,
        linked: bool = False,
    ) -> None:
        """Call `write` with where each {key: source} goes to, whose folders are there, and what sets its mode."""
        self._require_marker()
        files = [self._placed(bucket, key, source, linked=linked) for key, source in sources.items()]
        try:
            self._make_folders(files)
            write(files)
        except FileNotFoundError:
            self._closed_folders.forget()
            self._open_folders.forget()
            if not all(source.exists() for source in sources.values()):
                raise
            self._make_folders(files)
            write(files)

    def _placed(self, bucket: str, key: str, source: Path, *, linked: bool) -> Placed:
        set_mode, is_open = None, False
        if self._group:
            is_open = self._group.may_read(bucket, key)
            set_mode = self._group.admit_file if is_open else self._group.close_file
        return Placed(source, _path(self._root, bucket, key), set_mode, is_open=is_open, linked=linked)

    def _make_folders(self, files: Sequence[Placed]) -> None:
        for one in files:
            (self._open_folders if one.is_open else self._closed_folders).make(one.target.parent)

    async def remove(self, bucket: str, key: str) -> bool:
        def remove() -> bool:
            self._require_marker()  # a file not found here may be on a disk that is not mounted
            return _remove(self._root, bucket, key)

        try:
            return await self._threads.run(remove, linger_seconds=LINGER_SECONDS)
        except OSError as error:
            raise StorageError(f"removing failed: {error.strerror}") from error

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        def read() -> tuple[bytes, BinaryIO | None]:
            try:
                return _read_first(self._root, bucket, key, start, length)
            except FileNotFoundError:
                self._require_marker()
                raise

        try:
            first, stream = await self._threads.run(read, dispose=_close)
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
                chunk = await self._threads.run(partial(stream.read, min(CHUNK, left)))
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk

    async def size(self, bucket: str, key: str) -> int | None:
        def size() -> int | None:
            found = _size(self._root, bucket, key)
            if found is None:
                self._require_marker()
            return found

        try:
            return await self._threads.run(size)
        except OSError as error:
            raise StorageError(f"reading the size failed: {error.strerror}") from error

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:  # noqa: ARG002
        def fetch() -> None:
            try:
                _fetch(self._root, bucket, key, target)
            except FileNotFoundError:
                self._require_marker()
                raise

        try:
            await self._threads.run(fetch, linger_seconds=LINGER_SECONDS)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and error.filename == str(self._root / bucket / key):
                raise NotStored(key) from None
            raise StorageError(f"copying failed: {error.strerror}") from error

    async def everything(self) -> AsyncIterator[Stored]:
        files = files_below(self._root)
        while page := await self._threads.run(partial(self._page, files)):
            for one in page:
                yield one

    def _require_marker(self) -> None:
        if self._instance is None:
            if not self._root.is_dir():
                raise StorageAway(f"{self._root} does not exist")
            return
        found = marker_of(self._root)
        if found != self._instance:
            words = f"has the id {found}" if found else "has no id"
            raise StorageAway(f"{self._root} {words} instead of this service's, {self._instance}")

    def _page(self, files: Iterator[tuple[str, os.stat_result]]) -> list[Stored]:
        try:
            if self._instance is not None:
                self._require_marker()
            return [self._stored(path, found) for path, found in islice(files, LISTED)]
        except OSError as error:
            raise StorageError(f"listing failed: {error.strerror}") from error

    def _stored(self, path: str, found: os.stat_result) -> Stored:
        bucket, key = split_path(os.path.relpath(path, self._root))
        return Stored(bucket, key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _not_stored(error: OSError, bucket: str) -> StorageError:
    kind = StorageError
    if error.errno in (errno.EMFILE, errno.ENFILE):
        kind = StorageBusy
    elif error.errno in (errno.ENOTDIR, errno.EEXIST) and THROUGH_A_FILE.search(bucket):
        kind = PlaceTaken
    return kind(f"writing failed: {error.strerror}")


def _path(root: Path, bucket: str, key: str) -> Path:
    """Resolve the path. Blocks: it looks at every folder on the way from the root."""
    path = os.path.join(root, bucket, key)  # noqa: PTH118, half the cost of pathlib, four times for each image
    if _is_plain(str(root), path):
        return Path(path)
    if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(root), "")):  # noqa: PTH118
        raise StorageError("the key leads out of the storage folder")
    return Path(path)


def _is_plain(root: str, path: str) -> bool:
    """Whether nothing below the root is a link or leads upwards, so that the path need not be resolved to be inside."""
    if not path.startswith(f"{root}/"):
        return False
    names = path[len(root) + 1 :].split("/")
    if ".." in names:
        return False
    at = root
    for name in names:
        at = f"{at}/{name}"
        try:
            if stat.S_ISLNK(os.lstat(at).st_mode):
                return False
        except OSError:  # nothing further down either
            return True
    return True


def _remove(root: Path, bucket: str, key: str) -> bool:
    target, found = _path(root, bucket, key), False
    for path in (partial_of(target), target):
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
        if os.fstat(stream.fileno()).st_size < start + length:
            raise StorageError("the file is shorter than it was")  # the announced Content-Length would be wrong
        stream.seek(start)
        first = stream.read(min(PIECE_BYTES, length))
    except BaseException:
        stream.close()
        raise
    if len(first) == length or not first:
        stream.close()
        return first, None
    return first, stream


def _close(found: tuple[bytes, BinaryIO | None]) -> None:
    if found[1]:
        found[1].close()


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
                writer.close()  # flushes the buffer, which fails on a full disk
            raise


def files_below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Walk `root` lazily. Entries that vanish during the walk are skipped."""
    folders = [str(root)]
    while folders:
        folder = folders.pop()
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if folder != str(root) or entry.name != HEALTH:
                        folders.append(entry.path)
                    continue
                if folder == str(root) and entry.name in OWN_FILES:
                    continue
                with suppress(FileNotFoundError):
                    yield entry.path, entry.stat(follow_symlinks=False)
