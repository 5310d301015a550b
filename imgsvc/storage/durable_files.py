"""Files and folders that survive a power failure: each is synced, and so is the folder entry that names it."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

# What fsync of a folder says where a file system has none (CIFS, FUSE, virtiofs): its entries are as durable as that
# file system makes them. EIO and the like stay errors.
NOT_SYNCED = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP)
SYNC_FILE_RANGE_WRITE = 2
REMEMBERED = 10_000  # folders; clients choose bucket names, so the number of remembered folders must be limited


SetMode = Callable[[int], None]  # of the file with this descriptor

_warned: set[int] = set()  # devices


def begin_writing(descriptor: int) -> None:
    """Let the disk begin with the bytes of a file that is looked at before its fsync, which then waits for less.

    sync_file_range(2) makes nothing durable, and nothing depends on it: a failure to write is reported by the fsync.
    """
    if (begin := _sync_file_range()) is not None:
        begin(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    import ctypes  # which a command that only asks the service should not load

    try:
        function = ctypes.CDLL(None).sync_file_range
    except AttributeError:  # not Linux
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


def sync_folder(folder: Path) -> None:
    """Make the entries of `folder` durable, with one warning where its file system can't. Raises OSError."""
    if not syncs_folders(folder) and (device := folder.stat().st_dev) not in _warned:
        _warned.add(device)
        words = "a power failure may lose the last files that were stored, renamed or removed there"
        import structlog  # with rich, which a command that only asks the service should not load

        structlog.get_logger().warning("folder_not_synced", folder=str(folder), reason=words)


def syncs_folders(folder: Path) -> bool:
    """Sync `folder`; False if its file system has no such thing. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SYNCED:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def ownership(path: Path) -> str:
    """Who this process is, and whose the path is, or the nearest folder that this process may look at."""
    groups = ",".join(map(str, sorted({os.getegid(), *os.getgroups()})))
    this = f"this is user {os.geteuid()} with the groups {groups}"
    for one in (path, *path.absolute().parents):
        try:
            found = one.stat()
        except OSError:
            continue
        return f"{this}; {one} belongs to user {found.st_uid} and group {found.st_gid}, mode {found.st_mode & 0o7777:o}"
    return this


def partial_of(path: Path) -> Path:
    """The temporary name, derived from the target, so that a repeated write overwrites it and leaves nothing behind."""
    return path.with_name(f".{path.name}.partial")


def write_file(path: Path, data: bytes) -> None:
    """Replace the file atomically and durably, readable by its owner only. Raises OSError."""
    partial = partial_of(path)
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def make_root(folder: Path, mode: int = 0o777) -> None:
    """Create `folder` and its missing parents, each durable in its own parent. Raises OSError.

    One that is there is synced too, where the parent may be read: a process may have been killed before it did that.
    """
    if folder.is_dir():
        with suppress(PermissionError):
            sync_folder(folder.parent)
        return
    make_root(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


class DurableFolders:
    """Creates folders below `root` durably, and remembers those that are.

    An existing folder may not be durable yet: another thread may just have created it without syncing its parent.
    """

    def __init__(self, root: Path, mode: int = 0o777, admit: Callable[[Path], None] | None = None) -> None:
        """`mode` of new folders; `admit` is called with each folder, new or not, before it is remembered."""
        self._root = root
        self._mode = mode
        self._admit = admit
        self._synced: set[Path] = set()

    def make(self, folder: Path) -> None:
        """Create `folder` and its parents below the root, each durable in its own parent. Raises OSError."""
        if folder == self._root or folder in self._synced:
            return
        self.make(folder.parent)
        folder.mkdir(self._mode, exist_ok=True)
        if self._admit:
            self._admit(folder)
        sync_folder(folder.parent)
        if len(self._synced) >= REMEMBERED:
            self._synced.clear()
        self._synced.add(folder)

    def forget(self) -> None:
        """Forget all folders, because one of them was removed."""
        self._synced.clear()
