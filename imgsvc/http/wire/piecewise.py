"""Sends stored bytes piece by piece, as fast as the client takes them and as the memory of responses allows."""

import time
from collections.abc import Mapping
from typing import Protocol

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...jobs.table.model import StoredVariant
from ...lazy_dataclass import dataclass
from ...storage.base import Storage, StorageError
from ...storage.variant_memory import VariantMemory
from .answer_memory import COUNTED, AnswerMemory, NoRoom
from .drain import CLIENT

log = structlog.get_logger()

FIRST_PIECE_BYTES = 256 * 1024  # most variants are one piece, and so cost one call in a thread
PIECE_BYTES = 128 * 1024  # for a slow client: about what the kernel's buffer has room for once the client reads on
LARGEST_PIECE_BYTES = 1024 * 1024  # for a client that received the previous piece at once: fewer calls in a thread
QUICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Source:
    """Where a variant's bytes are: a storage, and the memory of its small variants."""

    storage: Storage
    memory: VariantMemory

    def remembered(self, served: StoredVariant) -> bytes | None:
        """The whole variant, if it is in memory."""
        if not self.memory.takes(served.size_bytes):
            return None
        return self.memory.get(self.storage.name, served.bucket, served.key, served.digest)

    async def read(self, served: StoredVariant, start: int, length: int) -> bytes:
        """Read a part from the storage, of a small variant the whole, to keep it. Raises NotStored or StorageError."""
        if self.memory.takes(served.size_bytes):
            whole = await self.memory.read(self.storage, served.bucket, served.key, served.digest, served.size_bytes)
            return whole[start : start + length]
        blob = await self.storage.read(served.bucket, served.key, start, length)
        if len(blob.first) == length:
            return blob.first
        return b"".join([blob.first, *[chunk async for chunk in blob.rest]])


class Unremembered(Source):
    """Bytes that are never held in memory beyond the piece that is being sent."""

    def remembered(self, served: StoredVariant) -> bytes | None:  # noqa: ARG002
        return None

    async def read(self, served: StoredVariant, start: int, length: int) -> bytes:
        """Read a part from the storage. Raises NotStored or StorageError."""
        blob = await self.storage.read(served.bucket, served.key, start, length)
        if len(blob.first) == length:
            return blob.first
        return b"".join([blob.first, *[chunk async for chunk in blob.rest]])


class Client(Protocol):
    """The connection of a response."""

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""

    async def takes_more(self) -> None:
        """Return as soon as more can be sent, or the client has disconnected."""


class StoredRange:
    """A range of a variant, read piece by piece. Files are open and bytes in memory no longer than needed."""

    def __init__(self, source: Source, served: StoredVariant, start: int, length: int, memory: AnswerMemory) -> None:
        self._source = source
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
        wanted, whole = min(self._left, self._wanted), self._source.remembered(self._served)
        if whole is not None and self._memory.take(wanted):
            self._taken = wanted
            self.piece = whole[self._start : self._start + wanted]
        else:
            await self._load_from_storage(wanted)
        self._start += len(self.piece)
        self._left -= len(self.piece)
        if not self.piece:
            self._left = 0  # shorter than the row says: the response is aborted
        return bool(self.piece)

    async def _load_from_storage(self, wanted: int) -> None:
        async with self._memory.room(wanted) as self._taken:
            try:
                self.piece = await self._source.read(self._served, self._start, self._taken)
            except BaseException:
                self.drop()
                raise

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
