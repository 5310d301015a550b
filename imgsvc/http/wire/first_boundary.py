"""The start of a multipart body: any preamble, and spaces or tabs behind the first boundary (RFC 2046 section 5.1.1).

python-multipart refuses both. It does read padding behind the later boundaries.
"""

import re

MAX_PREAMBLE = 64 * 1024  # bytes before the first part, padding included


class PreambleTooLong(Exception):
    """The body has no boundary within the first MAX_PREAMBLE bytes."""


class FirstBoundary:
    """Drops everything before the first boundary, and the padding behind it."""

    def __init__(self, boundary: bytes) -> None:
        self.found = False
        self._line = b"\r\n--" + boundary
        self._whole = re.compile(re.escape(self._line) + rb"(?:(--)|[ \t]*(\r?\n))")
        self._padding = re.compile(rb"[ \t]*\r?|-")
        self._held = bytearray(b"\r\n")  # a boundary may be the first line
        self._empty = True
        self._received = 0

    def after(self, chunk: bytes) -> bytes:
        """What the chunk has for the parser, from the first boundary on. Raises PreambleTooLong."""
        if self.found:
            return chunk
        self._received += len(chunk)
        if self._empty:
            chunk = chunk.lstrip(b"\r\n")
            self._empty = not chunk
        self._held += chunk
        match = self._whole.search(self._held)
        behind = len(self._held) - match.start() if match else 0
        if self._received - behind > MAX_PREAMBLE:
            raise PreambleTooLong
        if match:
            self.found = True
            return bytes(self._line[2:] + (match[1] or match[2]) + self._held[match.end() :])
        self._drop_what_is_no_boundary()
        return b""

    def _drop_what_is_no_boundary(self) -> None:
        start = self._held.rfind(b"\r\n--")
        line = self._held[start:] if start >= 0 else b""
        begun = self._line.startswith(line) or self._padding.fullmatch(line, len(self._line))
        self._held = bytearray(line) if line and begun else self._held[-len(b"\r\n-") :]
