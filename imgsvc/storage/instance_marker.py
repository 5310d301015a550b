"""The ID of the service that a folder belongs to, in a file of that folder.

A storage folder without the file is not ours: most likely the disk that belongs there is not mounted.
"""

import os
from pathlib import Path

from .durable_files import make_root, write_file

MARKER = ".instance"
LONGEST = 256  # bytes of the file that are read


def read_id(path: Path) -> str | None:
    """The first line of the file; None if there is no such file or it is empty. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(descriptor, LONGEST).decode("ascii", errors="replace").split("\n")[0].strip() or None
    finally:
        os.close(descriptor)


def marker_of(root: Path) -> str | None:
    """The ID in a storage folder; None if there is none. Raises OSError."""
    return read_id(root / MARKER)


def mark(root: Path, instance: str) -> None:
    """Write the ID into a storage folder, durably; the folder is created if it is missing. Raises OSError."""
    make_root(root)
    write_file(root / MARKER, f"{instance}\n".encode())
