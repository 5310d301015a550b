"""From a byte stream to a durable job: staged while it is counted, digested and sniffed, then one row.

When `accept` has returned, the bytes and the row are on disk: the receipt may be given.
"""

import errno
import hashlib
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import anyio
import anyio.to_thread
import filetype
import structlog

from .imaging.errors import TooLarge
from .imaging.header import Header, Truncated, read_header
from .imaging.limits import check_limits, preview_bytes, probe, render_bytes
from .imaging.recipe import Recipe
from .jobs.changes import IdempotencyConflict
from .jobs.model import NewJob
from .jobs.quota import Quota, RateLimited, Standing
from .jobs.table import Table
from .jobs.writer import DatabaseUnavailable
from .storage.local import sync_folder

log = structlog.get_logger()

CHUNK = 128 * 1024  # bytes gathered before a thread writes them: few visits, little memory
MAX_NOTED = 10_000  # users whose rate-limit event of this window is remembered
SNIFF = 512  # bytes that the type is decided on
MEGABYTE = 1 << 20
SAME_FORMAT = {"image/apng": "image/png"}  # an animated PNG is a PNG with more to it


class Rejected(Exception):
    """An upload that is not accepted; nothing of it is kept."""


class UploadTooLarge(Rejected):
    def __init__(self, limit: int, measured: int) -> None:
        super().__init__(f"{measured} bytes are more than {limit}")
        self.limit, self.measured = limit, measured


class UnsupportedType(Rejected):
    def __init__(self, mime: str, allowed: Sequence[str]) -> None:
        super().__init__(mime)
        self.mime, self.allowed = mime, allowed


class NoSpace(Rejected):
    """The disk of the staging folder is full."""


class Stalled(Rejected):
    """The body stopped coming, or comes too slowly."""


class Overloaded(Rejected):
    """More jobs wait than may."""


class IdempotencyInProgress(Rejected):
    """Another upload with the same key is being received."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends an upload, and what they say of it."""

    user_id: str
    org_id: str
    bucket: str
    client_metadata: dict[str, Any]
    filename: str
    trace_id: str
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the client gets; with `replayed` it is the one of an earlier upload with the same key."""

    job_id: str
    image_id: str
    standing: Standing
    replayed: bool


class Intake:
    """`uploads` is shared with housekeeping: the staged files that no row may name yet."""

    def __init__(
        self,
        table: Table,
        *,
        staging: Path,
        uploads: set[str],
        recipe: Recipe,
        allowed: Sequence[str],
        max_bytes: int,
        preview_memory: int,
        render_memory: int,
        max_attempts: int,
        storage_backend: str,
        quota: Quota,
        max_waiting: int,
        waiting: Callable[[], int],
        accepted: Callable[[], None],
    ) -> None:
        self.max_bytes = max_bytes
        self._table = table
        self._staging = staging
        self._uploads = uploads
        self._recipe = recipe
        self._allowed = allowed
        self._preview_memory = preview_memory
        self._render_memory = render_memory
        self._max_attempts = max_attempts
        self._storage_backend = storage_backend
        self._quota = quota
        self._max_waiting = max_waiting
        self._waiting = waiting
        self._accepted = accepted
        self._receiving: set[tuple[str, str, str]] = set()
        self._noted: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    async def admit(self, org_id: str, user_id: str, key: str | None) -> None:
        """What can be refused before any of the body is read. An upload that was accepted before is never refused.

        Raises RateLimited or Overloaded.
        """
        if key is not None and await self._table.has_key(org_id, user_id, key):
            return
        standing = await self._table.standing(org_id, user_id, self._quota)
        if not standing.remaining:
            limited = RateLimited(standing, self._quota)
            await self._note_limited(org_id, user_id, limited)
            raise limited
        if self._waiting() >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} jobs are waiting already.")

    @contextmanager
    def receiving(self, org_id: str, user_id: str, key: str | None) -> Iterator[None]:
        """Hold the idempotency key while its upload comes in. Raises IdempotencyInProgress."""
        if key is None:
            yield
            return
        held = (org_id, user_id, key)
        if held in self._receiving:
            raise IdempotencyInProgress
        self._receiving.add(held)
        try:
            yield
        finally:
            self._receiving.discard(held)

    async def _note_limited(self, org_id: str, user_id: str, limited: RateLimited) -> None:
        """One audit event for each user and window, however often they ask."""
        who, reset = (org_id, user_id), limited.standing.reset
        if self._noted.get(who) == reset:
            return
        self._noted[who] = reset
        if len(self._noted) > MAX_NOTED:
            self._noted.popitem(last=False)
        await self._table.note("rate_limited", {"org_id": org_id, "user_id": user_id, "limit": limited.standing.limit})

    def stage(self) -> "StagedFile":
        job_id = str(uuid.uuid4())
        return StagedFile(job_id, self._staging, self._uploads, self._recipe, self._allowed, self.max_bytes)

    async def accept(self, staged: "StagedFile", origin: Origin) -> Receipt:
        """Probe, sync and record a complete upload.

        Raises Rejected, ImageError, RateLimited, IdempotencyConflict or DatabaseUnavailable.
        """
        header = await staged.finish()
        render = render_bytes(header, self._recipe)
        if render > self._render_memory:
            raise TooLarge(
                f"Processing the image would need {render / MEGABYTE:.0f} MB of memory; "
                f"at most {self._render_memory / MEGABYTE:.0f} MB are available for one image."
            )
        preview = preview_bytes(header, self._recipe)
        if preview is not None and preview > self._preview_memory:
            preview = None  # it gets its thumbnail with the rest
        new = NewJob(
            job_id=staged.job_id,
            image_id=str(uuid.uuid4()),
            user_id=origin.user_id,
            org_id=origin.org_id,
            bucket=origin.bucket,
            staging_path=staged.job_id,
            original_filename=origin.filename,
            client_metadata=origin.client_metadata,
            trace_id=origin.trace_id,
            mime_type=staged.mime,
            content_length=staged.size,
            sha256=staged.sha256,
            pixels=header.pixels,
            preview_bytes=preview,
            render_bytes=render,
            storage_backend=self._storage_backend,
            recipe=self._recipe,
            max_attempts=self._max_attempts,
            idempotency_key=origin.idempotency_key,
        )
        staged.keep()
        try:
            with anyio.CancelScope(shield=True):  # handed over: the row may exist whatever happens to the request
                accepted = await self._table.accept(new, self._quota)
        except (DatabaseUnavailable, IdempotencyConflict, RateLimited) as error:
            staged.discard()  # a definite no
            if isinstance(error, RateLimited):
                await self._note_limited(new.org_id, new.user_id, error)
            raise
        if accepted.replayed:
            staged.discard()
        else:
            ids = {"job_id": new.job_id, "image_id": new.image_id, "trace_id": new.trace_id}
            log.info("job_accepted", **ids, bytes=new.content_length)
            self._accepted()
        return Receipt(accepted.job.job_id, accepted.job.image_id, accepted.standing, accepted.replayed)


class StagedFile:
    """An upload on its way to disk. Leaving the context removes it unless `keep` was called."""

    def __init__(
        self, job_id: str, staging: Path, uploads: set[str], recipe: Recipe, allowed: Sequence[str], max_bytes: int
    ) -> None:
        self.job_id = job_id
        self.mime = ""
        self.size = 0
        self._path = staging / job_id
        self._uploads = uploads
        self._recipe = recipe
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._stream: BinaryIO | None = None
        self._kept = False

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    async def __aenter__(self) -> Self:
        self._uploads.add(self.job_id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close)
        self._uploads.discard(self.job_id)

    def keep(self) -> None:
        """From here on the file belongs to the table."""
        self._kept = True

    def discard(self) -> None:
        self._kept = False

    async def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file. Raises UploadTooLarge, UnsupportedType, TooLarge or NoSpace."""
        self.size += len(data)
        self._buffer += data
        first_look = not self.mime and len(self._buffer) >= SNIFF
        if first_look:
            self._sniff()
        if self.size > self._max_bytes:
            raise UploadTooLarge(self._max_bytes, self.size)
        if first_look:
            self._look_ahead(self._buffer)
        if len(self._buffer) >= CHUNK:
            await self._flush()

    async def finish(self) -> Header:
        """The header of the whole file, which is now on disk and synced. Raises what `feed` raises, and ImageError."""
        if not self.mime:
            self._sniff()
        if self._buffer:
            await self._flush()
        return await anyio.to_thread.run_sync(self._probe_and_sync)

    def _sniff(self) -> None:
        kind = filetype.guess(bytes(self._buffer[:8192]))
        mime = kind.mime if kind else "application/octet-stream" if self.size else "application/x-empty"
        mime = SAME_FORMAT.get(mime, mime)
        if mime not in self._allowed:
            raise UnsupportedType(mime, self._allowed)
        self.mime = mime

    async def _flush(self) -> None:
        chunk, self._buffer = self._buffer, bytearray()
        try:
            await anyio.to_thread.run_sync(self._write, chunk)
        except OSError as error:
            raise _no_space(error) from error

    def _write(self, chunk: bytearray) -> None:
        if self._stream is None:
            self._look_ahead(chunk)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._stream = os.fdopen(descriptor, "wb")
        self._stream.write(chunk)
        self._digest.update(chunk)

    def _look_ahead(self, start: bytearray) -> None:
        """A bomb says so in its first bytes: no need to wait for the rest."""
        try:
            header = read_header(BytesIO(start), self.mime, count_frames=False)
        except Truncated:
            return
        self._check(header)

    def _check(self, header: Header) -> None:
        check_limits(header, max_pixels=self._recipe.max_pixels, max_frames=self._recipe.max_frames)

    def _probe_and_sync(self) -> Header:
        assert self._stream is not None
        try:
            self._stream.flush()
            recipe = self._recipe
            header = probe(self._path, self.mime, max_pixels=recipe.max_pixels, max_frames=recipe.max_frames)
            os.fsync(self._stream.fileno())
            sync_folder(self._path.parent)
        except OSError as error:
            raise _no_space(error) from error
        return header

    def _close(self) -> None:
        if self._stream is None:
            return
        if not self._kept:
            self._path.unlink(missing_ok=True)
        with suppress(OSError):  # what a full disk left in the buffer
            self._stream.close()


def _no_space(error: OSError) -> Exception:
    return NoSpace(str(error)) if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else error


class Pace:
    """How long a body may keep us waiting: `idle_seconds` for its next bytes, and a rate over all the waiting."""

    def __init__(self, idle_seconds: float, min_bytes_per_second: int) -> None:
        self._idle_seconds = idle_seconds
        self._min_rate = min_bytes_per_second
        self._waited = 0.0
        self._received = 0

    async def next(self, receive: Callable[[], Any]) -> Any:
        """The next message of `receive`. Raises Stalled."""
        began = time.monotonic()
        try:
            with anyio.fail_after(self._idle_seconds):
                message = await receive()
        except TimeoutError:
            raise Stalled(f"No data arrived for {self._idle_seconds:g} seconds.") from None
        self._waited += time.monotonic() - began
        self._received += len(message.get("body", b""))
        if self._waited > self._idle_seconds and self._received < self._min_rate * self._waited:
            raise Stalled(f"The upload is slower than {self._min_rate} bytes per second.")
        return message
