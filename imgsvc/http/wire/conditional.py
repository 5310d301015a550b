"""Sends a variant: conditional requests and single ranges (RFC 9110), cacheable until its URL expires."""

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import StoredVariant
from ...storage.base import CHECKED_HOURLY, HOUR, IMMUTABLE, YEAR
from .accel_redirect import is_sent_by_proxy, sent_by_proxy
from .answer_memory import AnswerMemory, NoRoom, no_room
from .byte_headers import ByteHeaders
from .dates import parsed_date
from .piecewise import PiecewiseResponse, Source, StoredRange
from .problems import precondition_failed, range_not_satisfiable
from .validation import parsed

# A page of another site may show an image although its own policy (COEP) or ours refuses all else.
EMBEDDABLE = {"Cross-Origin-Resource-Policy": "cross-origin"}
RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})")


async def redirect_to_storage(
    request: Request, served: StoredVariant, address: Callable[[], Awaitable[str]], seconds: int
) -> Response:
    """Redirect to the storage, at a URL that is valid for `seconds`. Conditions are evaluated here.

    The 307 may be cached for half of `seconds`, so that the redirect target stays valid while it is followed.
    """
    unchanged = _unchanged(parsed(request, ByteHeaders), served, f"private, max-age={seconds}")
    if unchanged:
        return unchanged
    headers = {"Location": await address(), "Cache-Control": f"private, max-age={seconds // 2}", **EMBEDDABLE}
    return Response(status_code=307, headers=headers)


def caching(left: int | None, lifetime: int | None, *, versioned: bool) -> str:
    """Cache-Control of bytes, which never outlasts their URL or the image. `versioned`: the URL is these bytes'.

    `left`: seconds until the URL expires; `lifetime`: until the image does; None: never.
    """
    if left is not None:
        return f"private, max-age={left if lifetime is None else min(left, lifetime)}"
    if lifetime is None:
        return IMMUTABLE if versioned else CHECKED_HOURLY
    return f"public, max-age={min(lifetime, YEAR if versioned else HOUR)}"


async def send_variant(request: Request, source: Source, served: StoredVariant, cache_control: str) -> Response:
    """Send a variant with this Cache-Control."""
    wanted = parsed(request, ByteHeaders)
    unchanged = _unchanged(wanted, served, cache_control)
    if unchanged:
        return unchanged
    headers = {**_headers(served, cache_control), "Content-Type": served.media_type}
    start, length = (0, served.size_bytes) if request.method == "HEAD" else _range(wanted, served)
    status = 200
    if length < served.size_bytes:
        status = 206
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{served.size_bytes}"
    if is_sent_by_proxy(request, source.storage, wanted, partial=status == 206):
        return sent_by_proxy(request, served, headers)
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    memory: AnswerMemory = request.app.state.answer_memory
    stored = StoredRange(source, served, start, length, memory)
    try:
        await stored.load()
    except NoRoom:
        raise no_room(memory) from None
    return PiecewiseResponse(stored, status, headers)


def _headers(served: StoredVariant, cache_control: str) -> dict[str, str]:
    return {
        "ETag": served.etag,
        "Last-Modified": served.last_modified_text,
        "Cache-Control": cache_control,
        "Accept-Ranges": "bytes",
        **EMBEDDABLE,
    }


def _unchanged(wanted: ByteHeaders, served: StoredVariant, cache_control: str) -> Response | None:
    """A 304 if the request's conditions show that the client has the variant. Raises Problem (412)."""
    if _outdated(wanted, served):
        raise precondition_failed()
    return Response(status_code=304, headers=_headers(served, cache_control)) if _not_modified(wanted, served) else None


def _outdated(wanted: ByteHeaders, served: StoredVariant) -> bool:
    """RFC 9110 section 13.2.2: If-Match, if sent, takes precedence."""
    tags = wanted.match
    if tags is not None:
        return tags.strip() != "*" and served.etag not in (tag.strip() for tag in tags.split(","))
    since = parsed_date(wanted.unmodified_since) if wanted.unmodified_since else None
    return since is not None and served.last_modified > since


def _not_modified(wanted: ByteHeaders, served: StoredVariant) -> bool:
    """RFC 9110 section 13.2.2: If-None-Match, if sent, takes precedence."""
    tags = wanted.none_match
    if tags is not None:
        return names_etag(tags, served.etag)
    since = parsed_date(wanted.modified_since) if wanted.modified_since else None
    return since is not None and served.last_modified <= since


def names_etag(tags: str, etag: str) -> bool:
    """Whether If-None-Match contains this entity tag (RFC 9110 section 13.1.2)."""
    return tags.strip() == "*" or any(tag.strip().removeprefix("W/") == etag for tag in tags.split(","))


def _range(wanted: ByteHeaders, served: StoredVariant) -> tuple[int, int]:
    """(start, length) of the bytes to send. An invalid range is ignored; one outside of the file is refused (416)."""
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


def _range_applies(wanted: ByteHeaders, served: StoredVariant) -> bool:
    """If-Range: an entity tag or a date that must match exactly (RFC 9110 section 13.1.5)."""
    condition = wanted.if_range
    return condition is None or condition == served.etag or parsed_date(condition) == served.last_modified
