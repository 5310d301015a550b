"""Files and folders that survive a power failure: each is synced, and so is the folder entry that names it."""

import os
from pathlib import Path

REMEMBERED = 10_000  # folders; clients choose bucket names, so the number of remembered folders must be limited


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    """Create `folder` and its missing parents, each durable in its own parent. Raises OSError."""
    if folder.is_dir():
        return
    make_root(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


class DurableFolders:
    """Creates folders below `root` durably, and remembers those that are.

    An existing folder may not be durable yet: another thread may just have created it without syncing its parent.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._synced: set[Path] = set()

    def make(self, folder: Path) -> None:
        """Create `folder` and its parents below the root, each durable in its own parent. Raises OSError."""
        if folder == self._root or folder in self._synced:
            return
        self.make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
        if len(self._synced) >= REMEMBERED:
            self._synced.clear()
        self._synced.add(folder)

    def forget(self) -> None:
        """Forget all folders, because one of them was removed."""
        self._synced.clear()
