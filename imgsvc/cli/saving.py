"""Bytes of an image, to a file or to standard output."""

import sys
from pathlib import Path

from ..storage.durable_files import partial_of
from .errors import CommandFailed


def save(content: bytes, output: Path | None) -> None:
    """Write to a file, which is whole or not there, or to standard output. Raises CommandFailed."""
    if output is None:
        sys.stdout.buffer.write(content)
        return
    draft = partial_of(output)
    try:
        draft.write_bytes(content)
        draft.rename(output)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CommandFailed(f"{output}: {error.strerror}") from None
