"""The trace ID of a request, and the headers that every response has."""

import os
import re

from ...access.issued_secrets import ISSUED
from .head import Head

TRACE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
SECRET = re.compile(ISSUED.pattern.encode())  # never in a log, whatever header it came in
TRACE_HEADERS = ("X-Trace-ID", "X-Correlation-ID")
SENT_AS = [name.lower().encode() for name in TRACE_HEADERS]
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),  # images say cross-origin
)
IDS_AT_ONCE, UUID_BYTES = 64, 16


class TraceIds:
    """The ID that the client sent, or a new UUID 4 (RFC 9562). Random bytes are fetched for many at once."""

    def __init__(self) -> None:
        self._random = b""

    def of(self, head: Head) -> str:
        for name in SENT_AS:
            value = head.get(name)
            if value is not None and TRACE_ID.fullmatch(value) and not SECRET.search(value):
                return value.decode()
        return self._new()

    def _new(self) -> str:
        if not self._random:
            self._random = os.urandom(IDS_AT_ONCE * UUID_BYTES)
        text, self._random = self._random[:UUID_BYTES].hex(), self._random[UUID_BYTES:]
        variant = "89ab"[int(text[16], 16) & 3]
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def standard_headers(headers: list[tuple[bytes, bytes]], trace_id: str) -> list[tuple[bytes, bytes]]:
    """The trace ID, and of ALWAYS what a response with these headers has not set itself."""
    value, there = trace_id.encode(), dict(headers)
    return [(SENT_AS[0], value), (SENT_AS[1], value), *[one for one in ALWAYS if one[0] not in there]]
