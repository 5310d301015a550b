"""The id of the service that a folder belongs to, in a file of that folder.

A storage folder without it is no folder of ours: most likely the disk is not mounted that should lie there.
"""

import os
from pathlib import Path

from .durable_files import make_root, write_file

MARKER = ".instance"
LONGEST = 256  # bytes that are read of it


def read_id(path: Path) -> str | None:
    """The first line of the file; None where there is no such file, or nothing in it. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(descriptor, LONGEST).decode("ascii", errors="replace").split("\n")[0].strip() or None
    finally:
        os.close(descriptor)


def marker_of(root: Path) -> str | None:
    """The id in a storage folder; None where there is none. Raises OSError."""
    return read_id(root / MARKER)


def mark(root: Path, instance: str) -> None:
    """Write the id into a storage folder, which is made if it is not there; durable. Raises OSError."""
    make_root(root)
    write_file(root / MARKER, f"{instance}\n".encode())
