"""Reads an upload's body once: the file's bytes go to disk as they arrive, each field is checked as soon as it ends.

multipart/form-data is RFC 7578, parsed by python-multipart's streaming callbacks; any other body is the file itself.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from ...intake.limits import UploadLimits
from ...intake.staging import StagedFile
from .body_rate import MinimumBodyRate
from .disposition import part_names
from .first_boundary import MAX_PREAMBLE, FirstBoundary, PreambleTooLong
from .moments import LIFETIME, MOMENT
from .problems import Problem, upload_too_large, validation
from .upload_fields import BUCKET, METADATA, METADATA_BYTES, field_value

ENVELOPE_BYTES = 128 * 1024  # boundaries, part headers and fields around a file of the largest size
MAX_PARTS = 20
FIELDS = ("bucket", "metadata", "expires_in", "expires_at")
MAX_PART_HEADERS = 32
MAX_SHOWN = 40  # characters of a field's name in an error
BARE_LF = "its lines end with LF alone; RFC 2046 wants CRLF at the end of each boundary and header"


async def body_chunks(receive: Receive, pace: MinimumBodyRate) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises ClientDisconnect or SlowClient."""
    while True:
        message = await pace.next(receive)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


class Form:
    """The fields of an upload whose file has been fed to `staged`."""

    def __init__(self, bucket: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        self.bucket = bucket
        self.metadata = metadata
        self.filename = ""
        self.expires_in: int | None = None
        self.expires_at: str | None = None


async def read_raw(chunks: AsyncIterator[bytes], staged: StagedFile) -> None:
    async for chunk in chunks:
        await staged.feed(chunk)


async def read_multipart(
    chunks: AsyncIterator[bytes],
    content_type: str,
    staged: StagedFile,
    allowance: UploadLimits,
    bucket: str | None = None,
) -> Form:
    """Feed the part `file` to `staged`, whatever the order of the parts. Raises Problem, and what `feed` raises.

    `bucket`: in place of the part, which may then be missing.
    """
    reader = _Multipart(content_type, allowance, bucket)
    received, max_bytes = 0, allowance.max_bytes
    async for chunk in chunks:
        received += len(chunk)
        if received > max_bytes + ENVELOPE_BYTES:
            raise upload_too_large(max_bytes, received)
        reader.write(chunk)
        for data in reader.take():
            await staged.feed(data)
    reader.finish()
    return reader.form


class _Multipart:
    """Callbacks of the parser. Bytes of the file are collected in `_file_data` and taken after each chunk."""

    def __init__(self, content_type: str, allowance: UploadLimits, bucket: str | None) -> None:
        self._allowance = allowance
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise _malformed("the multipart boundary is missing")
        self._opening = FirstBoundary(boundary)
        self._bare_lf_boundary = re.compile(
            rb"(?<!\r)\n--" + re.escape(boundary) + rb"|--" + re.escape(boundary) + rb"-*\n"
        )
        self._tail = b""  # the last bytes of the body
        self.form = Form(bucket)
        self._file_data: list[bytes] = []
        self._seen: set[str] = set()
        self._names: list[str] = []
        self._part = ""
        self._field = bytearray()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._parts = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._named,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finished,
                },
                max_header_count=MAX_PART_HEADERS,
            )
        except FormParserError:
            raise _malformed("the multipart boundary is too long") from None

    def write(self, chunk: bytes) -> None:
        keep = 2 * len(self._parser.boundary)
        self._tail = (self._tail + chunk[-keep:])[-keep:]
        try:
            parts = self._opening.after(chunk)
        except PreambleTooLong:
            raise _malformed(f"the multipart body has no boundary in its first {MAX_PREAMBLE} bytes") from None
        try:
            self._parser.write(parts)
        except MultipartParseError as error:
            raise _malformed(f"the multipart body is malformed{_cause(parts, error.offset)}") from None
        except FormParserError:
            raise _malformed("the multipart body is malformed") from None

    def take(self) -> list[bytes]:
        taken, self._file_data = self._file_data, []
        return taken

    def finish(self) -> None:
        """End the body. Raises Problem (422) if it is truncated or lacks a part."""
        if not self._ended and self._bare_lf_boundary.search(self._tail):
            raise _malformed(f"the multipart body is malformed: {BARE_LF}")
        if not self._ended:
            which = "last" if self._opening.found else "first"
            raise _malformed(f"the multipart body ends before its {which} boundary")
        given = self._seen | ({"bucket"} if self.form.bucket is not None else set())
        missing = [name for name in ("file", "bucket") if name not in given]
        if missing:
            raise validation(*((("body", name), "Field required", "missing") for name in missing), hint=self._found())
        if self.form.metadata is None:
            self.form.metadata = {}

    def _found(self) -> str:
        names = ", ".join(self._names)
        return f"found the field{'s' if len(self._names) > 1 else ''}: {names}" if names else "found no fields"

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise validation((("body",), f"at most {MAX_PARTS} parts are allowed", "too_many_parts"))
        self._disposition = b""

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        if b"\n" in value:
            raise _malformed(f"the multipart body is malformed: {BARE_LF}")
        self._header = (bytearray(), bytearray())

    def _named(self) -> None:
        self._part, filename = part_names(self._disposition)
        self._names.append(_shown(self._part))
        self._field = bytearray()
        if self._part in ("file", *FIELDS):
            if self._part in self._seen:
                raise validation((("body", self._part), "must be sent once", "duplicate"))
            self._seen.add(self._part)
        if self._part == "file":
            self.form.filename = filename

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._file_data.append(data[start:end])
        elif self._part in FIELDS:
            self._field.extend(data[start:end])
            if len(self._field) > METADATA_BYTES:
                message = f"must be at most {METADATA_BYTES} bytes"
                raise validation((("body", self._part), message, "too_long"))

    def _end(self) -> None:
        if self._part not in FIELDS:
            return
        try:
            text = self._field.decode("utf-8")
        except UnicodeDecodeError:
            raise validation((("body", self._part), "must be UTF-8", "string_unicode")) from None
        if self._part == "bucket":
            self.form.bucket = field_value(BUCKET, text, "bucket")
            self._allowance.check_bucket(self.form.bucket)
        elif self._part == "metadata":
            self.form.metadata = field_value(METADATA, text, "metadata")
        elif not text:
            pass  # a page's form sends an input that was left empty
        elif self._part == "expires_in":
            self.form.expires_in = field_value(LIFETIME, text, "expires_in")
        else:
            self.form.expires_at = field_value(MOMENT, text, "expires_at")

    def _finished(self) -> None:
        self._ended = True


def _shown(name: str) -> str:
    return "".join(character for character in name[:MAX_SHOWN] if character.isprintable()) or "(no name)"


def _cause(chunk: bytes, offset: int) -> str:
    """The cause of a parser error, if it can be seen: the line in which it is ends with LF alone."""
    line_end = re.search(rb"[\r\n]", chunk[max(0, offset) :])
    return f": {BARE_LF}" if line_end and line_end[0] == b"\n" else ""


def _malformed(reason: str) -> Problem:
    return validation((("body",), reason, "multipart_invalid"))
