"""The id of the service that a folder belongs to, in a file of that folder.

A storage folder without it is no folder of ours: most likely the disk is not mounted that should lie there.
"""

from contextlib import suppress
from pathlib import Path

from .durable_files import make_root, write_file

MARKER = ".instance"


def read_id(path: Path) -> str | None:
    """The first line of the file; None where there is no such file, or nothing in it. Raises OSError."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.read_text("ascii", errors="replace").split("\n")[0].strip() or None
    return None


def marker_of(root: Path) -> str | None:
    """The id in a storage folder; None where there is none. Raises OSError."""
    return read_id(root / MARKER)


def mark(root: Path, instance: str) -> None:
    """Write the id into a storage folder, which is made if it is not there; durable. Raises OSError."""
    make_root(root)
    write_file(root / MARKER, f"{instance}\n".encode())
