"""Bytes of a variant: conditional requests and single ranges (RFC 9110), cacheable as long as its URL is good."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..storage.base import Blob, Storage
from .parameters import Headers, parsed
from .problems import precondition_failed, range_not_satisfiable

IMMUTABLE = "public, max-age=31536000, immutable"
RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})")


def _named(name: str, words: str) -> Any:
    return Field(alias=name, description=words)


class ByteHeaders(Headers):
    """What does not have the form that it should is ignored, as RFC 9110 wants it."""

    match: Annotated[str | None, _named("If-Match", "Only if it is one of these (412).")] = None
    none_match: Annotated[str | None, _named("If-None-Match", "Not if it is one of these (304).")] = None
    modified_since: Annotated[str | None, _named("If-Modified-Since", "Only if it is newer (304).")] = None
    unmodified_since: Annotated[str | None, _named("If-Unmodified-Since", "Not if it is newer (412).")] = None
    range: Annotated[str | None, _named("Range", "One range of bytes.")] = None
    if_range: Annotated[str | None, _named("If-Range", "The range only if it is still this.")] = None


@dataclass(frozen=True, slots=True)
class Served:
    """A stored variant: its size in bytes, its SHA-256 in hex, and when it was made (RFC 3339)."""

    bucket: str
    key: str
    size_bytes: int
    digest: str
    modified: str

    @property
    def etag(self) -> str:
        return f'"{self.digest[:32]}"'

    @property
    def last_modified(self) -> datetime:
        return datetime.fromisoformat(self.modified).replace(microsecond=0)


async def refer(request: Request, served: Served, address: Callable[[], Awaitable[str]], seconds: int) -> Response:
    """To the storage itself, at an address that is good for so many seconds; a condition is decided here.

    Half of that time the referral may be kept: whoever follows it then has the other half to fetch the bytes.
    """
    unchanged = _unchanged(parsed(request, ByteHeaders), served, seconds)
    if unchanged:
        return unchanged
    return Response(
        status_code=307, headers={"Location": await address(), "Cache-Control": f"private, max-age={seconds // 2}"}
    )


async def serve(request: Request, storage: Storage, served: Served, left: int | None = None) -> Response:
    """`left`: for how many seconds more this URL is good; None: for ever."""
    wanted = parsed(request, ByteHeaders)
    unchanged = _unchanged(wanted, served, left)
    if unchanged:
        return unchanged
    headers = {**_headers(served, left), "Content-Type": "image/webp"}
    start, length = (0, served.size_bytes) if request.method == "HEAD" else _range(wanted, served)
    status = 200
    if length < served.size_bytes:
        status = 206
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{served.size_bytes}"
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    blob = await storage.read(served.bucket, served.key, start, length)
    if len(blob.first) == length:
        return Response(blob.first, status, headers)
    return StreamingResponse(_all(blob), status, headers)


def _headers(served: Served, left: int | None) -> dict[str, str]:
    return {
        "ETag": served.etag,
        "Last-Modified": format_datetime(served.last_modified, usegmt=True),
        "Cache-Control": IMMUTABLE if left is None else f"private, max-age={left}",
        "Accept-Ranges": "bytes",
    }


def _unchanged(wanted: ByteHeaders, served: Served, left: int | None) -> Response | None:
    """304 where a condition says that the client has it already. Raises Problem (412)."""
    if _outdated(wanted, served):
        raise precondition_failed()
    return Response(status_code=304, headers=_headers(served, left)) if _not_modified(wanted, served) else None


async def _all(blob: Blob) -> AsyncIterator[bytes]:
    yield blob.first
    async for chunk in blob.rest:
        yield chunk


def _outdated(wanted: ByteHeaders, served: Served) -> bool:
    """RFC 9110 section 13.2.2: If-Match decides alone where it is sent."""
    tags = wanted.match
    if tags is not None:
        return tags.strip() != "*" and served.etag not in (tag.strip() for tag in tags.split(","))
    since = _date(wanted.unmodified_since or "")
    return since is not None and served.last_modified > since


def _not_modified(wanted: ByteHeaders, served: Served) -> bool:
    """RFC 9110 section 13.2.2: If-None-Match decides alone where it is sent."""
    tags = wanted.none_match
    if tags is not None:
        return tags.strip() == "*" or any(tag.strip().removeprefix("W/") == served.etag for tag in tags.split(","))
    since = _date(wanted.modified_since or "")
    return since is not None and served.last_modified <= since


def _range(wanted: ByteHeaders, served: Served) -> tuple[int, int]:
    """(start, length) of the bytes to send. A range of an unknown form is ignored; one outside is refused (416)."""
    whole = (0, served.size_bytes)
    match = RANGE.fullmatch((wanted.range or "").strip())
    if match is None or not any(match.groups()) or not _range_applies(wanted, served):
        return whole
    first, last = match.groups()
    if not first:
        start = max(0, served.size_bytes - int(last))
        end = served.size_bytes - 1 if int(last) else -1
    else:
        start, end = int(first), min(int(last or served.size_bytes), served.size_bytes - 1)
        if last and int(last) < start:
            return whole
    if start >= served.size_bytes or end < start:
        raise range_not_satisfiable(served.size_bytes)
    return start, end - start + 1


def _range_applies(wanted: ByteHeaders, served: Served) -> bool:
    """If-Range: an entity tag or a date that must match exactly (RFC 9110 section 13.1.5)."""
    condition = wanted.if_range
    return condition is None or condition == served.etag or _date(condition) == served.last_modified


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else None
