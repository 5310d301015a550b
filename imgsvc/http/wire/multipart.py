"""Reads an upload's body once: the file's bytes go to disk as they arrive, each field is checked as soon as it ends.

multipart/form-data is RFC 7578, parsed by python-multipart's streaming callbacks; any other body is the file itself.
"""

from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from ...intake.limits import UploadLimits
from ...intake.staging import StagedFile
from .body_rate import MinimumBodyRate
from .problems import Problem, upload_too_large, validation
from .upload_fields import BUCKET, METADATA, METADATA_BYTES, field_value

ENVELOPE_BYTES = 128 * 1024  # boundaries, part headers and fields around a file of the largest size
MAX_PARTS = 20
FIELDS = ("bucket", "metadata")
MAX_FILENAME = 255  # characters kept of a client's file name


def safe_filename(name: str) -> str:
    """The last component of a client's path, without control characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(character for character in last if character.isprintable())[:MAX_FILENAME]


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
    """Bucket and metadata of an upload whose file has been fed to `staged`."""

    def __init__(self, bucket: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        self.bucket = bucket
        self.metadata = metadata
        self.filename = ""


async def read_raw(chunks: AsyncIterator[bytes], staged: StagedFile) -> None:
    async for chunk in chunks:
        await staged.feed(chunk)


async def read_multipart(
    chunks: AsyncIterator[bytes], content_type: str, staged: StagedFile, allowance: UploadLimits
) -> Form:
    """Feed the part `file` to `staged`, whatever the order of the parts. Raises Problem, and what `feed` raises."""
    reader = _Multipart(content_type, allowance)
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

    def __init__(self, content_type: str, allowance: UploadLimits) -> None:
        self._allowance = allowance
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise _malformed("the multipart boundary is missing")
        self.form = Form()
        self._file_data: list[bytes] = []
        self._seen: set[str] = set()
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
            )
        except FormParserError:
            raise _malformed("the multipart boundary is too long") from None

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _malformed("the multipart body is malformed") from None

    def take(self) -> list[bytes]:
        taken, self._file_data = self._file_data, []
        return taken

    def finish(self) -> None:
        """End the body. Raises Problem (422) if it is truncated or lacks a part."""
        if not self._ended:
            raise _malformed("the multipart body ends before its last boundary")
        missing = [name for name in ("file", "bucket") if name not in self._seen]
        if missing:
            raise validation(*((("body", name), "Field required", "missing") for name in missing))
        if self.form.metadata is None:
            self.form.metadata = {}

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise validation((("body",), f"at most {MAX_PARTS} parts are allowed", "too_many_parts"))
        self._disposition = b""

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _named(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        self._field = bytearray()
        if self._part in ("file", *FIELDS):
            if self._part in self._seen:
                raise validation((("body", self._part), "must be sent once", "duplicate"))
            self._seen.add(self._part)
        if self._part == "file":
            self.form.filename = safe_filename(options.get(b"filename", b"").decode("utf-8", "replace"))

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
        else:
            self.form.metadata = field_value(METADATA, text, "metadata")

    def _finished(self) -> None:
        self._ended = True


def _malformed(reason: str) -> Problem:
    return validation((("body",), reason, "multipart_invalid"))
