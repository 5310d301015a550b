"""SHA-256 of each file, in the form that `sha256sum -c SHA256SUMS` reads."""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"


def write(folder: Path) -> Path:
    """Of all files in `folder`."""
    lines = []
    for file in sorted(folder.iterdir()):
        with file.open("rb") as opened:
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.name}\n")
    (folder / NAME).write_text("".join(lines))
    return folder / NAME
