"""Files and folders that survive a loss of power: each is synced, and so is the entry that names it."""

import os
from pathlib import Path

REMEMBERED = 10_000  # folders; clients choose buckets, so the memory of them needs a bound


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_of(path: Path) -> Path:
    """Named after the target, so that a replay of an interrupted write overwrites it and nothing stays behind."""
    return path.with_name(f".{path.name}.partial")


def write_file(path: Path, data: bytes) -> None:
    """Replace the file in one step, durably, readable for its owner only. Raises OSError."""
    partial = partial_of(path)
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def make_root(folder: Path, mode: int = 0o777) -> None:
    """Create `folder` and what is missing above it, each durable in its own parent. Raises OSError."""
    if folder.is_dir():
        return
    make_root(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


class DurableFolders:
    """Folders below `root` that are known to be durable.

    That a folder is there says nothing: another thread may have made it a moment ago and not synced its parent yet.
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
        """Look again: a folder was removed by somebody else."""
        self._synced.clear()
