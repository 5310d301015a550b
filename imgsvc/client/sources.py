"""The bytes of an upload, from wherever they come, as a form that is sent in pieces."""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

PIECE = 64 * 1024
Progress = Callable[[int, int | None], None]  # called with (bytes sent, bytes in all; None: unknown)
Source = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | Iterable[bytes]


class Form:
    """A multipart form with one file (RFC 7578). `length` is None if the source does not say how long it is.

    `can_repeat`: it can be sent once more, from its start.
    """

    def __init__(self, source: Source, fields: Mapping[str, str], name: str | None, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        self.size, self.can_repeat = _size(source)
        boundary = secrets.token_hex(16)
        shown = (name or _name(source)).replace("\\", "%5C").replace('"', "%22").replace("\r", "").replace("\n", "")
        self._head = b"".join(_field(boundary, *field) for field in fields.items())
        self._head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._started = False

    @property
    def headers(self) -> dict[str, str]:
        length = {} if self.size is None else {"Content-Length": str(len(self._head) + self.size + len(self._tail))}
        return {"Content-Type": self.content_type, **length}

    def pieces(self) -> Iterator[bytes]:
        """The whole body, from the start. Raises OSError, or ValueError for a source that can't be read twice."""
        if self._started and not self.can_repeat:
            raise ValueError("the source of this upload can't be read a second time")
        self._started = True
        sent = 0
        yield self._head
        for piece in filter(None, _read(self._source)):
            yield piece
            sent += len(piece)
            if self._progress is not None:
                self._progress(sent, self.size)
        yield self._tail


def fields_of(bucket: str, metadata: Mapping[str, Any] | None, expires_in: int | None) -> dict[str, str]:
    """The fields of the form beside the file."""
    lifetime = {} if expires_in is None else {"expires_in": str(expires_in)}
    return {"bucket": bucket, "metadata": json.dumps(dict(metadata or {})), **lifetime}


def _size(source: Source) -> tuple[int | None, bool]:
    """Bytes, if known, and whether the source can be read again."""
    if isinstance(source, bytes | bytearray | memoryview):
        return len(source), True
    if isinstance(source, str | os.PathLike):
        return Path(source).stat().st_size, True
    if hasattr(source, "read"):
        stream = cast("IO[bytes]", source)
        if stream.seekable():
            start = stream.tell()
            size = stream.seek(0, os.SEEK_END) - start
            stream.seek(start)
            return size, True
    return None, False


def _read(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source)
        for at in range(0, len(view), PIECE):
            yield bytes(view[at : at + PIECE])
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as stream:
            yield from iter(lambda: stream.read(PIECE), b"")
    elif hasattr(source, "read"):
        opened = cast("IO[bytes]", source)
        start = opened.tell() if opened.seekable() else None
        yield from iter(lambda: opened.read(PIECE), b"")
        if start is not None:
            opened.seek(start)
    else:
        yield from source


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return Path(source).name
    name = getattr(source, "name", "")
    return Path(name).name if isinstance(name, str) and name else "upload"


def _field(boundary: str, name: str, value: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
