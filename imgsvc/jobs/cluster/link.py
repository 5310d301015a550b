"""The service's end of the gateway: starts its process, again and again, and speaks JSON lines with it.

The gateway ends whenever its connection to the scheduler does, and all tickets that were out are lost then. A new one
is started after a pause that grows; it first waits for the scheduler, before it loads Dask.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import structlog

from ...settings.workers import Workers
from ..lanes.messages import CagedType, Lost
from ..lanes.pool import KEPT_ENVIRONMENT
from .link_state import LinkState, TicketEnd
from .messages import (
    FROM_GATEWAY,
    MAX_LINE,
    Answered,
    Connected,
    Dropped,
    Ended,
    FromGateway,
    Machine,
    Machines,
    Release,
    Start,
    Submit,
    Unreachable,
)

log = structlog.get_logger()

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
OUT_FACTOR = 2  # tickets out, as a multiple of what the machines can work on at the same time


class GatewayLink:
    """`ended` is called with how each ticket ended."""

    def __init__(self, workers: Workers, ended: Callable[[TicketEnd], None] = lambda _end: None) -> None:
        self._start = Start(
            scheduler=workers.scheduler,
            ca_file=_absolute(workers.ca_file),
            certfile=_absolute(workers.certfile),
            keyfile=_absolute(workers.keyfile),
            cage=workers.cage,
        )
        self._ended = ended
        self.on_change: Callable[[], None] = lambda: None  # called when there are other machines: other jobs may fit
        self.decoders: dict[CagedType, str] = {}  # that all used machines have, or had when there was one
        self._process: asyncio.subprocess.Process | None = None
        self._connected: Connected | None = None
        self._problem = "not connected yet"
        self._machines: tuple[Machine, ...] = ()
        self._out: dict[str, asyncio.Future[str | Lost]] = {}
        self._changed = asyncio.Event()
        self._pause = FIRST_PAUSE_SECONDS

    @property
    def state(self) -> LinkState:
        known = self._connected
        return LinkState(
            "" if known else self._problem,
            known.cage if known else "",
            known.missing if known else "",
            known.fingerprint if known else "",
            self._machines,
            len(self._out),
        )

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def usable(self) -> list[Machine]:
        """The machines that get tickets."""
        if self._connected is None:
            return []
        return [one for one in self._machines if one.running and one.fingerprint == self._connected.fingerprint]

    @property
    def places(self) -> int:
        """How many tickets may be out."""
        return OUT_FACTOR * sum(one.threads for one in self.usable)

    async def wait_for_change(self) -> None:
        await self._changed.wait()

    async def perform(self, submit: Submit) -> str | Lost:
        """Send a ticket out and wait for its answer. A cancellation takes it back."""
        if self._connected is None:
            return Lost("the cluster is not connected")
        future = asyncio.get_running_loop().create_future()
        self._out[submit.id] = future
        try:
            self._send(submit)
            found: str | Lost = await future
            return found
        finally:
            del self._out[submit.id]
            if future.cancelled():  # of any other the gateway had forgotten everything before it reported its end
                self._ended("taken_back")
                self._send(Release(id=submit.id))

    def answered(self, ticket_id: str, answer: str) -> None:
        """Settle a ticket whose answer has come on another way than through the cluster."""
        self._settle(ticket_id, answer, "answered")

    async def run(self) -> None:
        """Keep a gateway running until this is cancelled."""
        while True:
            reason = await self._one_gateway()
            log.warning("gateway_ended", reason=reason, again_in_seconds=self._pause)
            await anyio.sleep(self._pause)
            self._pause = min(LONGEST_PAUSE_SECONDS, 2 * self._pause)

    async def _one_gateway(self) -> str:
        """Run one gateway until it ends; returns why."""
        try:
            with anyio.CancelScope(shield=True):  # else a process could be left behind
                self._process = process = await self._launched()
        except OSError as error:
            return f"no process could be started: {error.strerror}"
        reason = None
        try:
            self._send(self._start)
            reason = await self._listen()
        finally:
            self._lose_all(reason or "it ended by itself")
            with anyio.CancelScope(shield=True):
                await _end(process)
            self._process = None
        return reason or f"it ended by itself with status {process.returncode}"

    async def _launched(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "imgsvc.jobs.cluster.gateway", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(),
            limit=MAX_LINE,
        )

    async def _listen(self) -> str | None:
        """Read the gateway's lines until its end. Returns the reason if it gave one, or sent what is no line."""
        assert self._process and self._process.stdout
        while True:
            try:
                line = await self._process.stdout.readline()
                if not line:
                    return None
                message = FROM_GATEWAY.validate_json(line)
            except ValueError:  # also a line that is too long
                return "it wrote something else than a message"
            if isinstance(message, Ended):
                return message.reason
            self._take(message)

    def _take(self, message: FromGateway) -> None:
        if isinstance(message, Answered):
            self.answered(message.id, message.answer)
        elif isinstance(message, Dropped):
            self._settle(message.id, Lost(message.reason, begun=message.begun), "lost_worker")
        elif isinstance(message, Connected):
            self._connected, self._pause = message, FIRST_PAUSE_SECONDS
            write = log.warning if message.missing else log.info
            write("gateway_connected", cage=message.cage, **({"missing": message.missing} if message.missing else {}))
        elif isinstance(message, Machines):
            self._note(message.machines)
        elif isinstance(message, Unreachable):
            self._problem = message.reason
            log.warning("scheduler_unreachable", reason=message.reason)

    def _note(self, machines: tuple[Machine, ...]) -> None:
        assert self._connected
        known = {one.name for one in self._machines}
        for one in machines:
            if one.name not in known and one.fingerprint != self._connected.fingerprint:
                log.warning("machine_not_used", name=one.name, version=one.version, reason="it has another version")
        self._machines = machines
        if used := self.usable:
            self.decoders = {
                mime: one for mime, one in used[0].decoders.items() if all(mime in m.decoders for m in used)
            }
        self.tell_changed()

    def _settle(self, ticket_id: str, result: str | Lost, end: TicketEnd) -> None:
        future = self._out.get(ticket_id)
        if future is not None and not future.done():
            self._ended(end)
            future.set_result(result)

    def _lose_all(self, reason: str) -> None:
        self._connected, self._machines, self._problem = None, (), reason
        for ticket_id in list(self._out):
            self._settle(ticket_id, Lost(f"the cluster was lost: {reason}"), "lost_scheduler")
        self.tell_changed()

    def tell_changed(self) -> None:
        """Wake the lanes that wait for a place: never for a single ticket, since there are many of both."""
        self._changed.set()
        self._changed = asyncio.Event()
        self.on_change()

    def _send(self, line: Start | Submit | Release) -> None:
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(line.model_dump_json().encode() + b"\n")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the process, if it runs, and close all that leads to it."""
    assert process.stdin
    with suppress(ProcessLookupError):
        process.kill()
    process.stdin.close()
    await process.communicate()


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _environment() -> dict[str, str]:
    """The gateway's environment: no secret, and none of Dask's settings."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path and Path(path).exists())}
