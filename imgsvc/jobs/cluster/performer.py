"""Performs tickets on a worker's machine: fetches the source, has a caged child render it, and puts the variants:
into the storage, where that takes them from machines, else to the service.

No picture is decoded in this process. One ticket has one lane, of the same kind as the service's own.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import httpx
import structlog

from ...imaging.recipe import SOURCE, scratch_file
from ...storage.thread_visit import in_thread
from ..lanes.messages import Outcome, Rendered
from ..lanes.process import DIED, NO_PROCESS, NONE_STAYED, NOT_BEGUN, ProcessLane
from ..retry import Failure
from .ticket import ANSWER, LossReason, PutAddress, RenderTicket, TicketAnswer

log = structlog.get_logger()

CHUNK = 1 << 18  # bytes
TOGETHER_BYTES = 1 << 20  # of variants that are put in one request, unless one alone is larger
TRIES = 3  # to reach the service
AGAIN_SECONDS = 0.5
AFTER_UNREACHABLE_SECONDS = 2.0  # before the next ticket: a machine without a network must not take one after the other
STORAGE_AGAIN_SECONDS = 60.0  # after the storage could not be reached: variants go to the service meanwhile
STORAGE_AWAY = (501, 502, 503)  # the service can sign no address


class _Lost(Exception):
    def __init__(self, reason: LossReason) -> None:
        super().__init__(reason)
        self.reason: LossReason = reason


class _NotNow(Exception):
    """The service has not answered as it will."""


class Performer:
    """`lanes`: as many as there may be tickets at a time. `http` reaches the service."""

    def __init__(self, lanes: list[ProcessLane], http: httpx.AsyncClient, folder: Path) -> None:
        self._idle: asyncio.Queue[ProcessLane] = asyncio.Queue()
        for lane in lanes:
            self._idle.put_nowait(lane)
        self._http = http
        self.folder = folder
        self._running: dict[str, asyncio.Task[str | None]] = {}
        self._storage_from = 0.0  # when the storage may be tried, in monotonic seconds

    @property
    def running(self) -> int:
        return len(self._running)

    async def perform(self, text: str) -> str | None:
        """Perform a ticket in JSON; returns the answer in JSON, None if the service has it already.

        Raises ValueError for what is no ticket.
        """
        ticket = RenderTicket.model_validate_json(text)
        task = asyncio.ensure_future(self._answer(ticket))
        self._running[ticket.id] = task
        try:
            return await task
        except asyncio.CancelledError:
            return _lost(ticket, "revoked")
        finally:
            del self._running[ticket.id]

    def revoke(self, ticket_id: str) -> None:
        """End a ticket at once: its child is killed, and nothing more of it is put."""
        if task := self._running.get(ticket_id):
            task.cancel()

    async def _answer(self, ticket: RenderTicket) -> str | None:
        structlog.contextvars.bind_contextvars(trace_id=ticket.trace_id)
        lane = await self._idle.get()
        try:
            return await self._rendered(ticket, lane)
        except _Lost as loss:
            log.warning("ticket_lost", reason=loss.reason)
            if loss.reason == "unreachable":
                await asyncio.sleep(AFTER_UNREACHABLE_SECONDS)
            return _lost(ticket, loss.reason)
        except OSError as error:
            log.error("ticket_lost", reason=error.strerror)
            return _lost(ticket, "worker_disk")
        finally:
            self._idle.put_nowait(lane)

    async def _rendered(self, ticket: RenderTicket, lane: ProcessLane) -> str | None:
        """Render, and put what was made. Returns the answer, None if it was put too. Raises _Lost or OSError."""
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder:
            outcome = await self._render(ticket, lane, Path(folder))
            answer = TicketAnswer.of(ticket, outcome).model_dump_json()
            if isinstance(outcome, Rendered):
                names = [variant.name for variant in outcome.variants]
                if outcome.source is not None:
                    names.append(SOURCE)
                files = {name: scratch_file(Path(folder, "made"), name) for name in names}
                if await self._put_all(ticket, files, answer.encode()):
                    return None
            return answer

    async def _render(self, ticket: RenderTicket, lane: ProcessLane, folder: Path) -> Outcome:
        """Fetch the source, and render into the folder `made`. Raises _Lost or OSError."""
        source, made = folder / "source", folder / "made"
        made.mkdir()
        await self._fetch(ticket, source)
        outcome = await lane.run(ticket.task(str(source), str(made)))
        if outcome in (NO_PROCESS, NONE_STAYED, NOT_BEGUN):
            raise _Lost("no_process")
        if isinstance(outcome, Failure) and (outcome.code in ("source_missing", "io_error")):
            raise _Lost("worker_disk")
        if isinstance(outcome, Failure) and outcome.death:
            return DIED
        return outcome

    async def _fetch(self, ticket: RenderTicket, target: Path) -> None:
        """Fetch the source. Raises _Lost or OSError."""

        async def fetch() -> None:
            with target.open("wb") as stream:
                async with self._http.stream("GET", f"{ticket.address}/source", headers=_traced(ticket)) as response:
                    _check(response)
                    async for data in response.aiter_bytes(CHUNK):
                        await in_thread(stream.write, data)
                        if stream.tell() > ticket.size:
                            raise _Lost("refused")  # another source than the ticket's
                if stream.tell() < ticket.size:
                    raise _NotNow

        await _tried(fetch)

    async def _put_all(self, ticket: RenderTicket, files: Mapping[str, Path], answer: bytes = b"") -> bool:
        """Put variants, one after the other: at the same time they would not be there sooner.

        What the storage has not taken goes to the service, small ones in one request, and the answer with the last
        ones. Returns whether the service has that. Raises _Lost or OSError.
        """
        sizes = await in_thread(lambda: {name: path.stat().st_size for name, path in files.items()})
        for name in [one for one in sizes if one != SOURCE and ticket.into_storage]:
            if time.monotonic() < self._storage_from:
                break
            if await self._put_into_storage(ticket, name, files[name], sizes[name]):
                del sizes[name]
            else:
                self._storage_from = time.monotonic() + STORAGE_AGAIN_SECONDS
        requests = _together(sizes)
        for number, names in enumerate(requests, 1):
            last = answer if number == len(requests) else b""
            await self._put(ticket, {name: sizes[name] for name in names}, [files[name] for name in names], last)
        return bool(requests and answer)

    async def _put(
        self, ticket: RenderTicket, sizes: Mapping[str, int], paths: Sequence[Path], answer: bytes = b""
    ) -> None:
        """Put variants in one request, and after them the answer, if there is one. Raises _Lost or OSError."""

        length = sum(sizes.values()) + len(answer)
        named = {**sizes, ANSWER: len(answer)} if answer else sizes

        async def put() -> None:
            headers = {"Content-Length": str(length), **_traced(ticket)}
            # Small ones in one piece: each piece costs the service an event of its parser and a wait of its handler.
            content = _chunks(paths, answer) if length > TOGETHER_BYTES else await in_thread(_joined, paths, answer)
            _check(await self._http.put(ticket.address, params=named, headers=headers, content=content))

        await _tried(put)

    async def _put_into_storage(self, ticket: RenderTicket, variant: str, path: Path, size: int) -> bool:
        """Put a variant at an address that the service has signed; returns whether the storage has taken it.

        Raises _Lost or OSError.
        """
        found: list[PutAddress] = []

        async def ask() -> None:
            parameters, headers = {"bytes": str(size)}, _traced(ticket)
            answer = await self._http.post(f"{ticket.address}/{variant}", params=parameters, headers=headers)
            if answer.status_code in STORAGE_AWAY:
                return
            _check(answer)
            found.append(PutAddress.model_validate_json(answer.content))

        await _tried(ask)
        for where in found:
            try:
                answer = await self._http.put(where.address, headers=where.headers, content=_chunks([path]))
            except httpx.TransportError as error:
                log.warning("storage_unreachable", reason=type(error).__name__)
                return False
            if answer.status_code >= 300:
                log.warning("storage_refused", status=answer.status_code)
            return answer.status_code < 300
        return False


async def _tried(attempt: Callable[[], Awaitable[None]]) -> None:
    """Make an attempt, again while the service can't be reached. Raises _Lost or OSError."""
    for left in reversed(range(TRIES)):
        try:
            return await attempt()
        except (httpx.TransportError, _NotNow):
            if left:
                await asyncio.sleep(AGAIN_SECONDS)
    raise _Lost("unreachable")


def _traced(ticket: RenderTicket) -> dict[str, str]:
    return {"X-Trace-ID": ticket.trace_id}


def _check(response: httpx.Response) -> None:
    """Raises _Lost if the service refuses, _NotNow if it may not a moment later."""
    if response.status_code >= 500 or response.status_code == 408:
        raise _NotNow
    if response.status_code >= 300:
        raise _Lost("refused")


async def _chunks(paths: Sequence[Path], after: bytes = b"") -> AsyncIterator[bytes]:
    for path in paths:
        with path.open("rb") as stream:
            while data := await in_thread(stream.read, CHUNK):
                yield data
    if after:
        yield after


def _joined(paths: Sequence[Path], after: bytes) -> bytes:
    return b"".join([*(path.read_bytes() for path in paths), after])


def _together(sizes: Mapping[str, int]) -> list[list[str]]:
    """The variants of each request: it takes the service some milliseconds, however small it is."""
    found: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if size > room or not found:
            found.append([])
            room = TOGETHER_BYTES
        found[-1].append(name)
        room -= size
    return found


def _lost(ticket: RenderTicket, reason: LossReason) -> str:
    return TicketAnswer(ticket=ticket.id, outcome="lost", reason=reason).model_dump_json()


_performer: Performer | None = None  # of this process: Dask calls functions, not methods


def of_this_process() -> Performer:
    """The performer of this worker. Raises RuntimeError in a process that is none."""
    if _performer is None:
        raise RuntimeError("this is not a worker that `imgsvc worker` has started")
    return _performer


def use(performer: Performer | None) -> None:
    global _performer
    _performer = performer


def make_folder() -> Path:
    """A new folder for the pictures in work."""
    return Path(tempfile.mkdtemp(prefix="imgsvc-worker-"))


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
