"""Sends a variant: conditional requests and single ranges (RFC 9110), cacheable until its URL expires."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any, Protocol

import structlog
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...storage.base import IMMUTABLE, Storage, StorageError
from .answer_memory import COUNTED, AnswerMemory, NoRoom, no_room
from .dates import parsed_date
from .problems import precondition_failed, range_not_satisfiable
from .validation import Headers, parsed

log = structlog.get_logger()

FIRST_PIECE_BYTES = 256 * 1024  # most variants are one piece, and so cost one call in a thread
PIECE_BYTES = 128 * 1024  # for a slow client: about what the kernel's buffer has room for once the client reads on
LARGEST_PIECE_BYTES = 1024 * 1024  # for a client that received the previous piece at once: fewer calls in a thread
QUICK_SECONDS = 0.5
CLIENT = "imgsvc.client"  # in the scope's state: the Client, if there is a connection
# A page of another site may show an image although its own policy (COEP) or ours refuses all else.
EMBEDDABLE = {"Cross-Origin-Resource-Policy": "cross-origin"}
RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})")


def _named(name: str, words: str) -> Any:
    return Field(alias=name, description=words)


class ByteHeaders(Headers):
    """Conditional and range headers. A malformed value is ignored, as RFC 9110 requires."""

    match: Annotated[str | None, _named("If-Match", "Send it only if its ETag is one of these (else 412).")] = None
    none_match: Annotated[str | None, _named("If-None-Match", "Do not send it if its ETag is one of these (304).")] = (
        None
    )
    modified_since: Annotated[str | None, _named("If-Modified-Since", "Send it only if it is newer (else 304).")] = None
    unmodified_since: Annotated[str | None, _named("If-Unmodified-Since", "Do not send it if it is newer (412).")] = (
        None
    )
    range: Annotated[str | None, _named("Range", "One range of bytes.")] = None
    if_range: Annotated[str | None, _named("If-Range", "Send the range only if this ETag or date still matches.")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class StoredVariant:
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


async def redirect_to_storage(
    request: Request, served: StoredVariant, address: Callable[[], Awaitable[str]], seconds: int
) -> Response:
    """Redirect to the storage, at a URL that is valid for `seconds`. Conditions are evaluated here.

    The 307 may be cached for half of `seconds`, so that the redirect target stays valid while it is followed.
    """
    unchanged = _unchanged(parsed(request, ByteHeaders), served, seconds)
    if unchanged:
        return unchanged
    headers = {"Location": await address(), "Cache-Control": f"private, max-age={seconds // 2}", **EMBEDDABLE}
    return Response(status_code=307, headers=headers)


async def send_variant(request: Request, storage: Storage, served: StoredVariant, left: int | None = None) -> Response:
    """Send a variant. `left`: seconds until this URL expires; None: never."""
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
    memory: AnswerMemory = request.app.state.answer_memory
    stored = StoredRange(storage, served, start, length, memory)
    try:
        await stored.load()
    except NoRoom:
        raise no_room(memory) from None
    return PiecewiseResponse(stored, status, headers)


class Client(Protocol):
    """The connection of a response."""

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""

    async def takes_more(self) -> None:
        """Return as soon as more can be sent, or the client has disconnected."""


class StoredRange:
    """A range of a variant, read piece by piece. Files are open and bytes in memory no longer than needed."""

    def __init__(self, storage: Storage, served: StoredVariant, start: int, length: int, memory: AnswerMemory) -> None:
        self._storage = storage
        self._served = served
        self._start = start
        self._left = length
        self._memory = memory
        self._taken = 0
        self._wanted = FIRST_PIECE_BYTES
        self.piece = b""

    async def load(self) -> bool:
        """Load the next bytes into `piece`; returns whether there are any. Raises NoRoom, NotStored or StorageError."""
        self.drop()
        if not self._left:
            return False
        async with self._memory.room(min(self._left, self._wanted)) as self._taken:
            try:
                self.piece = await _whole(self._storage, self._served, self._start, self._taken)
            except BaseException:
                self.drop()
                raise
        self._start += len(self.piece)
        self._left -= len(self.piece)
        if not self.piece:
            self._left = 0  # shorter than the row says: the response is aborted
        return bool(self.piece)

    async def load_more(self, *, quick: bool) -> bool:
        """Load the next piece: twice as large for a quick client, small for any other. Raises as `load`."""
        self._wanted = min(2 * self._wanted, LARGEST_PIECE_BYTES) if quick else PIECE_BYTES
        return await self.load()

    def drop(self) -> None:
        """Release the piece."""
        self.piece = b""
        self._memory.release(self._taken)
        self._taken = 0

    @property
    def is_last(self) -> bool:
        return not self._left


async def _whole(storage: Storage, served: StoredVariant, start: int, length: int) -> bytes:
    blob = await storage.read(served.bucket, served.key, start, length)
    if len(blob.first) == length:
        return blob.first
    return b"".join([blob.first, *[chunk async for chunk in blob.rest]])


class PiecewiseResponse(Response):
    """Sends a range whose first piece has been loaded. Ends as soon as the client disconnects."""

    def __init__(self, stored: StoredRange, status: int, headers: Mapping[str, str]) -> None:
        self._stored = stored
        super().__init__(None, status, dict(headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        scope[COUNTED] = True
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if self._stored.is_last:
                await send({"type": "http.response.body", "body": self._stored.piece})
                return
            await self._send_pieces(send, scope.get("state", {}).get(CLIENT))
        finally:
            self._stored.drop()

    async def _send_pieces(self, send: Send, client: Client | None) -> None:
        """Send the pieces. A response that can't be completed ends with its connection."""
        while True:
            last, sent_at = self._stored.is_last, time.monotonic()
            await send({"type": "http.response.body", "body": self._stored.piece, "more_body": not last})
            if last:
                return
            self._stored.drop()
            if client is not None:
                await client.takes_more()
                if client.gone:
                    return
            quick = time.monotonic() - sent_at < QUICK_SECONDS
            try:
                if not await self._stored.load_more(quick=quick):
                    log.error("response_aborted", reason="the stored file is shorter than its row says")
                    return
            except (NoRoom, StorageError) as error:
                log.warning("response_aborted", reason=str(error) or type(error).__name__)
                return


def _headers(served: StoredVariant, left: int | None) -> dict[str, str]:
    return {
        "ETag": served.etag,
        "Last-Modified": format_datetime(served.last_modified, usegmt=True),
        "Cache-Control": IMMUTABLE if left is None else f"private, max-age={left}",
        "Accept-Ranges": "bytes",
        **EMBEDDABLE,
    }


def _unchanged(wanted: ByteHeaders, served: StoredVariant, left: int | None) -> Response | None:
    """A 304 if the request's conditions show that the client has the variant. Raises Problem (412)."""
    if _outdated(wanted, served):
        raise precondition_failed()
    return Response(status_code=304, headers=_headers(served, left)) if _not_modified(wanted, served) else None


def _outdated(wanted: ByteHeaders, served: StoredVariant) -> bool:
    """RFC 9110 section 13.2.2: If-Match, if sent, takes precedence."""
    tags = wanted.match
    if tags is not None:
        return tags.strip() != "*" and served.etag not in (tag.strip() for tag in tags.split(","))
    since = parsed_date(wanted.unmodified_since or "")
    return since is not None and served.last_modified > since


def _not_modified(wanted: ByteHeaders, served: StoredVariant) -> bool:
    """RFC 9110 section 13.2.2: If-None-Match, if sent, takes precedence."""
    tags = wanted.none_match
    if tags is not None:
        return names_etag(tags, served.etag)
    since = parsed_date(wanted.modified_since or "")
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
