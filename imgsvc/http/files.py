"""Bytes of a variant: conditional requests and single ranges (RFC 9110), for ever cacheable."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..storage.base import Blob, Storage
from .problems import Problem, precondition_failed

IMMUTABLE = "public, max-age=31536000, immutable"
RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})")


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


async def serve(request: Request, storage: Storage, served: Served) -> Response:
    headers = {
        "ETag": served.etag,
        "Last-Modified": format_datetime(served.last_modified, usegmt=True),
        "Cache-Control": IMMUTABLE,
        "Accept-Ranges": "bytes",
        "Content-Type": "image/webp",
    }
    if _outdated(request, served):
        raise precondition_failed()
    if _not_modified(request, served):
        del headers["Content-Type"]
        return Response(status_code=304, headers=headers)
    start, length = _range(request, served)
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


async def _all(blob: Blob) -> AsyncIterator[bytes]:
    yield blob.first
    async for chunk in blob.rest:
        yield chunk


def _outdated(request: Request, served: Served) -> bool:
    """RFC 9110 section 13.2.2: If-Match decides alone where it is sent."""
    tags = request.headers.get("If-Match")
    if tags is not None:
        return tags.strip() != "*" and served.etag not in (tag.strip() for tag in tags.split(","))
    since = _date(request.headers.get("If-Unmodified-Since", ""))
    return since is not None and served.last_modified > since


def _not_modified(request: Request, served: Served) -> bool:
    """RFC 9110 section 13.2.2: If-None-Match decides alone where it is sent."""
    tags = request.headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or any(tag.strip().removeprefix("W/") == served.etag for tag in tags.split(","))
    since = _date(request.headers.get("If-Modified-Since", ""))
    return since is not None and served.last_modified <= since


def _range(request: Request, served: Served) -> tuple[int, int]:
    """(start, length) of the bytes to send. A range of an unknown form is ignored; one outside is refused (416)."""
    whole = (0, served.size_bytes)
    match = RANGE.fullmatch(request.headers.get("Range", "").strip())
    if request.method == "HEAD" or match is None or not any(match.groups()) or not _range_applies(request, served):
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
        raise Problem(
            416,
            "range_not_satisfiable",
            f"The range lies outside the {served.size_bytes} bytes of this variant.",
            headers={"Content-Range": f"bytes */{served.size_bytes}"},
        )
    return start, end - start + 1


def _range_applies(request: Request, served: Served) -> bool:
    """If-Range: an entity tag or a date that must match exactly (RFC 9110 section 13.1.5)."""
    condition = request.headers.get("If-Range")
    return condition is None or condition == served.etag or _date(condition) == served.last_modified


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else None
