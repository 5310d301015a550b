"""A second name for a stored file, so that its bytes are neither rendered nor written again."""

import hashlib
import os
import stat
import threading
from pathlib import Path

from .base import Differs, Original
from .durable_files import SetMode, partial_of, sync_folder


def link(source: Path, target: Path, original: Original, left: threading.Event, set_mode: SetMode | None) -> None:
    """Link `source` under a temporary name, compare it with `original`, rename it to `target`, and sync the folder.

    Both names are of one file from then on, which is never written into. Nothing is renamed once `left` is set. Raises
    Differs, FileNotFoundError if one of the two is missing, or OSError.
    """
    unnamed = partial_of(target)
    unnamed.unlink(missing_ok=True)
    os.link(source, unnamed, follow_symlinks=False)
    try:
        _compare(unnamed, original, set_mode)
        if left.is_set():
            raise TimeoutError
        unnamed.replace(target)
    finally:
        unnamed.unlink(missing_ok=True)  # rename(2) leaves it if both are names of the same file already
    sync_folder(target.parent)


def _compare(path: Path, original: Original, set_mode: SetMode | None) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:  # noqa: PTH123
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != original.size_bytes:
            raise Differs(original.key)
        if hashlib.file_digest(stream, "sha256").hexdigest() != original.sha256:
            raise Differs(original.key)
        if set_mode:
            set_mode(descriptor)
        os.fsync(descriptor)  # a file that was restored by hand may be in memory only
