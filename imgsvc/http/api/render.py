"""What a machine that renders a ticket reads and puts. There only with `[workers] engine = "dask"`.

The token in the address names one run (`access/render_tokens`), and opens nothing once that is over.
"""

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...access.render_tokens import RenderTokenExpired, RenderTokenInvalid
from ...intake.staging import CHUNK, NoSpace
from ...jobs.cluster.lane import TicketOffice
from ...jobs.cluster.open_tickets import HasVariant, IncomingVariants, OpenTicket, RunOver
from ...jobs.cluster.ticket import ANSWER, MAX_ANSWER, PutAddress
from ...storage.thread_visit import in_thread
from ..state import state_of
from ..wire.answer_memory import AnswerMemory
from ..wire.body_rate import MinimumBodyRate, SlowClient
from ..wire.content_encoding import check_encoding
from ..wire.drain import NO_DRAIN
from ..wire.multipart import body_chunks
from ..wire.piecewise import PiecewiseResponse, StoredRange
from ..wire.problems import NO_STORE, Problem, length_required, render_refused, variant_there, variant_too_large

ADDRESS_SECONDS = 600  # that an address in the storage is good for; its clock may differ by some minutes
MAX_DIGITS = 12
log = structlog.get_logger()


class StagedRange(StoredRange):
    """The bytes of a staged upload, read piece by piece as those of a variant are."""

    def __init__(self, path: Path, size: int, memory: AnswerMemory) -> None:
        super().__init__(None, None, 0, size, memory)  # type: ignore[arg-type]
        self._path = path

    async def load(self) -> bool:
        """Load the next bytes; returns whether there are any. Raises NoRoom or OSError."""
        self.drop()
        if not self._left:
            return False
        async with self._memory.room(min(self._left, self._wanted)) as self._taken:
            try:
                self.piece = await in_thread(self._read, self._start, self._taken)
            except BaseException:
                self.drop()
                raise
        self._start += len(self.piece)
        self._left = self._left - len(self.piece) if self.piece else 0
        return bool(self.piece)

    def _read(self, start: int, length: int) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)


async def source(request: Request) -> Response:
    """GET …/source: the bytes of the upload."""
    ticket = _opened(request)
    ticket.is_begun = True
    stored = StagedRange(ticket.source, ticket.size, request.app.state.answer_memory)
    try:
        await stored.load()
    except FileNotFoundError:
        raise render_refused() from None
    _office(request).tickets.sent_bytes += ticket.size
    headers = {**NO_STORE, "Content-Type": "application/octet-stream", "Content-Length": str(ticket.size)}
    return PiecewiseResponse(stored, 200, headers)


async def variant(request: Request) -> Response:
    """PUT …/{variant}: one variant, into the scratch folder."""
    ticket, name = _opened(request), str(request.path_params["variant"])
    return await _taken(request, ticket, [name], lambda length: {name: length})


async def variants(request: Request) -> Response:
    """PUT …?VARIANT=BYTES&VARIANT=BYTES: several, one after the other in the body. All are taken, or none.

    `_answer=BYTES` among them: with the last variants comes the answer to the ticket, after them.
    """
    ticket, named = _opened(request), request.query_params.multi_items()
    sizes = {name: int(size) for name, size in named if _is_size(size)}
    once, answer = len(sizes) == len(named), sizes.pop(ANSWER, 0)
    if not sizes or not once:
        raise Problem(400, "bad_request", "The query must name each variant once, with the number of its bytes.")
    if answer > MAX_ANSWER:
        raise Problem(400, "bad_request", f"An answer has at most {MAX_ANSWER} bytes.")
    for name, size in sizes.items():
        if size > ticket.largest.get(name, size):
            raise variant_too_large(ticket.largest[name], size)
    return await _taken(request, ticket, list(sizes), lambda _: sizes, answer)


async def _taken(
    request: Request, ticket: OpenTicket, names: list[str], sizes_of: Callable[[int], dict[str, int]], answer: int = 0
) -> Response:
    """Take variants in, and an answer of so many bytes. `sizes_of` the body's length are the variants' bytes.

    Raises Problem, SlowClient or NoSpace.
    """
    try:
        for name in names:
            if name not in ticket.largest:
                raise render_refused()
            ticket.check(name)
        check_encoding(request)
        length = _length(request, sum(ticket.largest[name] for name in names) + answer)
        sizes = sizes_of(length)
        if sum(sizes.values()) + answer != length:
            raise Problem(400, "bad_request", "The Content-Length is not the sum of the variants' bytes.")
        text = await _receive(request, ticket, sizes, length)
    except RunOver:
        request.scope[NO_DRAIN] = True
        raise render_refused() from None
    except HasVariant:
        raise variant_there(", ".join(names)) from None
    except SlowClient:
        request.scope[NO_DRAIN] = True
        raise
    except ClientDisconnect:
        return Response(status_code=499)
    _office(request).tickets.received_bytes += length - answer
    if answer:
        ticket.on_answer(text)
    return Response(status_code=204, headers=NO_STORE)


async def address(request: Request) -> Response:
    """POST …/{variant}?bytes=: where the machine may put so many bytes of a variant into the storage."""
    ticket, name = _opened(request), str(request.path_params["variant"])
    size = request.query_params.get("bytes", "")
    if name not in ticket.largest or ticket.incoming is None:
        raise render_refused()
    if not _is_size(size):
        raise Problem(400, "bad_request", "`bytes` must be the number of the variant's bytes.")
    if int(size) > ticket.largest[name]:
        raise variant_too_large(ticket.largest[name], int(size))
    try:
        ticket.check(name)
        with ticket.under_way():
            signed = await ticket.incoming.address(name, int(size), ADDRESS_SECONDS)
    except RunOver:
        raise render_refused() from None
    except HasVariant:
        raise variant_there(name) from None
    body = PutAddress(address=signed.address, headers=dict(signed.headers)).model_dump_json()
    return Response(body, headers={**NO_STORE, "Content-Type": "application/json"})


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def _office(request: Request) -> TicketOffice:
    office = state_of(request).jobs.office
    assert office is not None  # the routes are there only with the engine
    return office


def _opened(request: Request) -> OpenTicket:
    """The run that the token opens. Raises Problem (403)."""
    office, token = _office(request), str(request.path_params["token"])
    try:
        office.tokens.verify(token)
        return office.tickets.find(token)
    except (RenderTokenInvalid, RenderTokenExpired, RunOver) as error:
        log.info("render_refused", reason=type(error).__name__)
        raise render_refused() from None


def _length(request: Request, most: int) -> int:
    """The body's length. Raises Problem (411, 413, 507)."""
    sent = request.headers.get("Content-Length", "")
    if not (sent.isascii() and sent.isdigit()):
        raise length_required()
    length, disk = int(sent), state_of(request).telemetry.disk
    if length > most:
        raise variant_too_large(most, length)
    if disk.disk_full or (disk.reserve_bytes and disk.free_bytes - length < disk.reserve_bytes):
        raise NoSpace(disk.reserve_bytes, disk.free_bytes)
    return length


async def _receive(request: Request, ticket: OpenTicket, sizes: Mapping[str, int], length: int) -> str:
    """Write the body, of so many bytes; returns the text that follows the variants.

    Raises RunOver, HasVariant, SlowClient, ClientDisconnect, NoSpace or Problem.
    """
    uploads = state_of(request).settings.uploads
    pace = MinimumBodyRate(uploads.idle_timeout_seconds, uploads.min_bytes_per_second)
    with ticket.receiving(sizes) as incoming:
        try:
            with pace.watching():
                await _write(request, pace, incoming, length)
        except FileNotFoundError:  # the scratch folder is gone
            raise RunOver from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoSpace from error
            raise
        finally:
            if not incoming.finished or ticket.is_over:  # the run has removed its files already, or does not want them
                with anyio.CancelScope(shield=True):
                    await in_thread(incoming.discard)
    return incoming.answer.decode(errors="replace")


async def _write(request: Request, pace: MinimumBodyRate, incoming: IncomingVariants, length: int) -> None:
    buffer, written = bytearray(), 0
    async for data in body_chunks(request.receive, pace):
        buffer += data
        if written + len(buffer) > length:
            raise Problem(400, "bad_request", "The body is longer than its Content-Length.")
        if len(buffer) >= CHUNK:
            await in_thread(incoming.write, bytes(buffer), written)
            written += len(buffer)
            buffer.clear()
    if written + len(buffer) != length:
        raise Problem(400, "bad_request", "The body is shorter than its Content-Length.")
    await in_thread(incoming.finish, bytes(buffer), written)
