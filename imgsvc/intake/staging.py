"""Writes an upload to disk while counting, hashing and typing it; the file is removed unless it was kept."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from types import TracebackType
from typing import BinaryIO, Self

import anyio
import structlog

from ..imaging.any_header import read_header
from ..imaging.header import Header, Truncated
from ..imaging.limits import check_limits, probe
from ..imaging.recipe import Recipe
from ..jobs.staging_area import StagingArea
from ..storage.durable_files import begin_writing, sync_folder
from ..storage.thread_visit import AwaitedVisit, Visit, in_thread, result_of
from .file_types import LOOK_BYTES, FileType, file_type, is_undecided

log = structlog.get_logger()

CHUNK = 96 * 1024  # bytes that each upload may collect, however many are open
WHOLE = 1 << 20  # bytes of an upload that is collected as a whole, and written and synced in one visit
PART = 1 << 19  # bytes of a larger one that are collected for one visit, while there is room
ROOM = 8 << 20  # bytes that uploads may collect together
SMALL = 4096  # bytes received at once that are joined with others
SNIFF = 512  # the first bytes, which nearly always decide the type

Pieces = list[bytes | bytearray | memoryview]


class Rejected(Exception):
    """The upload is refused; nothing of it is kept."""


class UploadTooLarge(Rejected):
    def __init__(self, limit: int, measured: int) -> None:
        super().__init__(f"{measured} bytes are more than {limit}")
        self.limit, self.measured = limit, measured


class UnsupportedType(Rejected):
    def __init__(self, kind: FileType, allowed: Sequence[str]) -> None:
        super().__init__(kind.mime)
        self.kind, self.allowed = kind, allowed


class NoSpace(Rejected):
    """The disk of the staging folder is full, or has less than the reserve free (both in bytes; 0: unknown)."""

    def __init__(self, reserve: int = 0, free: int = 0) -> None:
        super().__init__(f"{free} of {reserve} bytes are free")
        self.reserve, self.free = reserve, free


class StagingGone(Rejected):
    """The staging folder was removed together with the bytes received so far."""


class StagingFailed(Rejected):
    """The disk of the staging folder failed; nothing of the upload is kept."""


class CollectedBytes:
    """What uploads hold in memory beyond CHUNK each, in bytes: ROOM at most, however many are open."""

    def __init__(self) -> None:
        self._held = 0

    def require(self, held: int, wanted: int) -> bool:
        """Whether an upload that holds so many bytes may hold `wanted` instead. If so, that is noted."""
        if self._held - held + wanted > ROOM:
            return False
        self._held += wanted - held
        return True

    def release(self, held: int) -> None:
        self._held -= held


class StagedFile:
    """An upload being written to disk. Leaving the context removes it unless `keep` was called."""

    def __init__(
        self,
        job_id: str,
        area: StagingArea,
        collected: CollectedBytes,
        recipe: Recipe,
        allowed: Sequence[str],
        max_bytes: int,
        announced_bytes: int,
    ) -> None:
        self.job_id = job_id
        self.mime = ""
        self.size = 0
        self._area = area
        self._path = area.part(job_id)
        self._receiving = area.receiving(job_id)
        self._collected = collected
        self._held = 0  # bytes of `collected`
        self._recipe = recipe
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._collects = announced_bytes <= WHOLE
        self._digest = hashlib.sha256()
        self._received: Pieces = []  # `_waiting` bytes that are not written yet
        self._waiting = 0
        self.storing: AwaitedVisit[None] | None = None  # while a whole file is being stored
        self._stream: BinaryIO | None = None
        self._kept = False

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    async def __aenter__(self) -> Self:
        self._receiving.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._release()
            if self.storing is not None and not self.storing.has_ended:
                with anyio.CancelScope(shield=True):
                    await self.storing.ended()
            self.storing = None  # it refers to this object, and to the whole upload
            if self._stream is not None and not (self._kept and self._stream.closed):
                with anyio.CancelScope(shield=True):
                    await in_thread(self._close, self._stream)
        finally:
            self._receiving.__exit__(kind, error, trace)

    def keep(self) -> None:
        """Keep the file: from now on the row owns it."""
        self._kept = True

    def discard(self) -> None:
        self._kept = False

    async def feed(self, data: bytes | memoryview) -> None:
        """Write the next bytes. Raises UploadTooLarge, UnsupportedType, TooLarge, NoSpace or StagingFailed."""
        self.size += len(data)
        self._waiting += len(data)
        self._add(data)
        first_look = not self.mime and self._waiting >= SNIFF and not is_undecided(self._start())
        if first_look:
            self._sniff()
        if self.size > self._max_bytes:
            raise UploadTooLarge(self._max_bytes, self.size)
        if first_look:
            self._look_ahead(b"".join(self._received))
        if self._waiting >= CHUNK and not self._may_collect():
            await self._flush()

    async def finish(self) -> Header:
        """Return the header of the complete file. It has its final name, durably, once `storing` has ended; None: now.

        Raises what `feed` raises, and ImageError; and StagingGone, NoSpace or StagingFailed, as `storing` does.
        """
        if not self.mime:
            self._sniff()
        if self._stream is not None or self._waiting < CHUNK:
            return await in_thread(self._finish, b"".join(self._taken()))
        return await self._finish_whole(_Inspection(b"".join(self._taken()), self.mime, self._recipe.max_pixels))

    async def _finish_whole(self, inspection: "_Inspection") -> Header:
        """Write and sync the file in one thread while it is hashed, here, and inspected in another one.

        It is inspected once it is hashed: until then the thread that writes has the interpreter for itself.
        """
        self.storing = AwaitedVisit(partial(self._finish_beside, inspection), counted=True)
        try:
            self._digest.update(inspection.data)
            inspecting = Visit(inspection.run, counted=False)  # the one that waits for it is counted
        except BaseException:
            inspection.end()
            raise
        return await result_of(inspecting)

    def _add(self, data: bytes | memoryview) -> None:
        """Keep the bytes without a copy, unless they are so few that their objects would take more memory."""
        if len(data) >= SMALL:
            self._received.append(data)
        elif self._received and isinstance(last := self._received[-1], bytearray):
            last += data
        else:
            self._received.append(bytearray(data))

    def _start(self) -> bytes:
        return _start_of(self._received, LOOK_BYTES)

    def _sniff(self) -> None:
        kind = file_type(self._start())
        if kind.mime not in self._allowed:
            raise UnsupportedType(kind, self._allowed)
        self.mime = kind.mime

    def _may_collect(self) -> bool:
        size = self._waiting
        if (size >= PART and not self._collects) or not self._collected.require(self._held, size):
            return False
        self._held = size
        return True

    def _taken(self) -> Pieces:
        pieces = self._received
        self._received, self._waiting = [], 0
        return pieces

    def _release(self) -> None:
        self._collected.release(self._held)
        self._held = 0

    async def _flush(self) -> None:
        try:
            await in_thread(self._write, self._taken())
        except OSError as error:
            raise _refusal(error) from error
        finally:
            self._release()

    def _write(self, pieces: Pieces) -> None:
        """Write and hash one by one: joined, they would be in memory twice."""
        if self._stream is None:
            self._look_ahead(_start_of(pieces, CHUNK))
        for piece in pieces:
            self._append(piece)
            self._digest.update(piece)

    def _append(self, chunk: bytes | bytearray | memoryview) -> BinaryIO:
        if self._stream is None:
            self._stream = self._opened()
        self._stream.write(chunk)
        return self._stream

    def _opened(self) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.fdopen(os.open(self._path, flags, 0o600), "wb")
        except FileNotFoundError:
            self._area.make()  # the folder was removed: the next upload needs it anyway
            log.error("staging_recreated", path=str(self._area.folder))
            return os.fdopen(os.open(self._path, flags, 0o600), "wb")

    def _look_ahead(self, start: bytes) -> None:
        """Check the header in the first bytes, so that a decompression bomb is refused before the rest arrives."""
        try:
            header = read_header(BytesIO(start), self.mime, count_frames=False)
        except Truncated:
            return
        self._check(header)

    def _check(self, header: Header) -> None:
        check_limits(header, max_pixels=self._recipe.max_pixels)

    def _finish(self, chunk: bytes) -> Header:
        with _refusals():
            written = self._append(chunk)
            written.flush()
            begin_writing(written.fileno())
            self._digest.update(chunk)
            with self._path.open("rb") as stream:
                header = probe(stream, self.mime, max_pixels=self._recipe.max_pixels)
            os.fsync(written.fileno())
            self._name(written)
        return header

    def _finish_beside(self, inspection: "_Inspection") -> None:
        """Write a whole upload. It gets its final name only if the inspection accepts it."""
        with _refusals():
            written = self._append(inspection.data)
            written.flush()
            os.fsync(written.fileno())
            if inspection.accepted():
                self._name(written)

    def _name(self, stream: BinaryIO) -> None:
        stream.close()
        self._path = self._path.rename(self._area.whole(self.job_id))
        sync_folder(self._area.folder)

    def _close(self, stream: BinaryIO) -> None:
        if not self._kept:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:  # housekeeping will remove the file, or set it aside
                log.warning("staged_file_not_removed", name=self._path.name, reason=error.strerror)
        with suppress(OSError):  # flushes the buffer, which fails on a full disk
            stream.close()


class _Inspection:
    """The header of a whole upload, read in one thread while another one writes it."""

    def __init__(self, data: bytes, mime: str, max_pixels: int) -> None:
        self.data = data
        self._mime = mime
        self._max_pixels = max_pixels
        self._accepted = False
        self._over = threading.Event()

    def run(self) -> Header:
        """Raises ImageError."""
        try:
            header = probe(BytesIO(self.data), self._mime, max_pixels=self._max_pixels)
            self._accepted = True
            return header
        finally:
            self.end()

    def end(self) -> None:
        self._over.set()

    def accepted(self) -> bool:
        """Wait for the result."""
        self._over.wait()
        return self._accepted


def _start_of(pieces: Pieces, size: int) -> bytes:
    """The first bytes of the pieces, at most `size`, without a copy of all."""
    start = []
    for piece in pieces:
        start.append(memoryview(piece)[:size])
        size -= len(start[-1])
    return b"".join(start)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn an OSError into what the upload is refused with."""
    try:
        yield
    except FileNotFoundError as error:
        raise StagingGone("the staging folder was removed while the upload came in") from error
    except OSError as error:
        raise _refusal(error) from error


def _refusal(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace()
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return error
    log.error("staging_failed", reason=error.strerror)
    return StagingFailed(str(error.strerror))
