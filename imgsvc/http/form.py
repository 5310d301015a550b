"""An upload's body, read once: the file's bytes go to disk as they come, the fields are checked as soon as they end.

multipart/form-data is RFC 7578, parsed by python-multipart's streaming callbacks; any other body is the file itself.
"""

import json
import math
import re
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from ..staged import StagedFile
from .pace import Pace
from .problems import Problem, upload_too_large, validation

ENVELOPE_BYTES = 128 * 1024  # boundaries, part headers and fields around a file of the largest size
METADATA_BYTES = 16 * 1024
MAX_PARTS = 20
MAX_NESTING = 64  # levels of metadata; the answer that shows it again stops at 255
FIELDS = ("bucket", "metadata")
BUCKET_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_BUCKET_SEGMENTS = 5
MAX_FILENAME = 255  # characters kept of a client's file name


def checked_bucket(text: str, where: tuple[str, ...]) -> str:
    """The bucket, if it is one. Raises Problem (422)."""
    segments = text.split("/")
    valid = all(BUCKET_SEGMENT.fullmatch(segment) for segment in segments)
    if not valid or len(segments) > MAX_BUCKET_SEGMENTS or ".." in text:
        message = (
            f"must be 1 to {MAX_BUCKET_SEGMENTS} segments joined by '/', each of 1 to 63 characters out of "
            "letters, digits, '.', '_' and '-', beginning with a letter or digit, without '..'"
        )
        raise validation((where, message, "bucket_invalid"))
    return text


def checked_metadata(text: str, where: tuple[str, ...]) -> dict[str, Any]:
    """The client's metadata: a JSON object of at most 16 KiB. Raises Problem (422)."""
    if (size := len(text.encode("utf-8", "surrogatepass"))) > METADATA_BYTES:
        raise validation((where, f"must be at most {METADATA_BYTES} bytes, and has {size}", "metadata_too_large"))
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise validation((where, "must be valid JSON", "json_invalid")) from None
    if not isinstance(value, dict):
        raise validation((where, "must be a JSON object", "dict_type"))
    if _deeper_than(MAX_NESTING, value):
        raise validation((where, f"must not be nested deeper than {MAX_NESTING} levels", "metadata_too_deep"))
    try:
        json.dumps(value).encode("utf-8")
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        raise validation((where, "must not hold a lone surrogate", "json_invalid")) from None
    return value


def _deeper_than(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(levels - 1, one) for one in inner)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is beyond a double")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def safe_filename(name: str) -> str:
    """The last component of whatever path a client sent, without control characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(character for character in last if character.isprintable())[:MAX_FILENAME]


async def body_chunks(receive: Receive, pace: Pace) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises ClientDisconnect or Stalled."""
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

    def __init__(self) -> None:
        self.bucket: str | None = None
        self.metadata: dict[str, Any] | None = None
        self.filename = ""


async def read_raw(chunks: AsyncIterator[bytes], staged: StagedFile) -> None:
    async for chunk in chunks:
        await staged.feed(chunk)


async def read_multipart(chunks: AsyncIterator[bytes], content_type: str, staged: StagedFile, max_bytes: int) -> Form:
    """Feed the part `file` to `staged`, in whatever order the parts come. Raises Problem, and what `feed` raises."""
    reader = _Multipart(content_type)
    received = 0
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
    """Parser callbacks. What belongs to the file waits in `_file_data` until it is taken after each chunk."""

    def __init__(self, content_type: str) -> None:
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
        """Raises Problem (422) for a body that broke off or lacks a part."""
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
            self.form.bucket = checked_bucket(text, ("body", "bucket"))
        else:
            self.form.metadata = checked_metadata(text, ("body", "metadata"))

    def _finished(self) -> None:
        self._ended = True


def _malformed(reason: str) -> Problem:
    return validation((("body",), reason, "multipart_invalid"))
