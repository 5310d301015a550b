"""Passes tickets on to the cluster's scheduler and answers back. Runs in the gateway's process.

Of Dask only submit, result and release are used, and the list of machines is asked for every two seconds.
"""

import asyncio
import codecs
import importlib
import re
import sys
from types import NoneType
from typing import Any

import distributed
from distributed.scheduler import KilledWorker
from pydantic import TypeAdapter

from ..lanes.messages import CagedType, Versions
from .dask_setup import MEGABYTES, LoadedSecurity, places_of
from .lines import dropped, tell
from .messages import (
    FROM_SERVICE,
    MAX_LINE,
    MAX_MACHINES,
    Answered,
    Connected,
    Dropped,
    Machine,
    Machines,
    Submit,
    word,
)
from .remote import render
from .ticket import MAX_ANSWER

LAZY = (
    "concurrent.futures.thread",
    "distributed.comm.tcp",
    "distributed.shuffle",
    "distributed.worker",
    "tornado.netutil",
    "tornado.platform.asyncio",
    "distributed.versions",
    "traceback",
)
LOOK_SECONDS = 2.0
IDENTITY_SECONDS = 20.0
DECODERS = TypeAdapter(dict[CagedType, Versions])
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class OneConnection(distributed.Client):  # type: ignore[misc]  # distributed has no types
    """A client that does not connect again: its process ends with the connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.lost = asyncio.Event()
        super().__init__(*arguments, **options)

    async def _reconnect(self) -> None:
        self.lost.set()


def prepare() -> None:
    """Import what Python and Dask import at its first use."""
    for name in ("unicode_escape", "idna", "latin-1", "ascii"):
        codecs.lookup(name)
    for name in LAZY:
        importlib.import_module(name)
    found = distributed.versions.get_versions()  # read from files, and sent to the scheduler at each connection
    distributed.versions.get_versions = lambda packages=None: found  # noqa: ARG005


async def run(address: str, security: LoadedSecurity, connected: Connected) -> str:
    """Serve until the connection or the service is gone; returns why it ended."""
    client = await OneConnection(address, security=security, asynchronous=True, set_as_default=False, timeout=10)
    tell(connected)
    exchange = _Exchange(client, connected.fingerprint)
    tasks = [
        asyncio.create_task(one)
        for one in (exchange.listen(), exchange.watch_machines(), client.lost.wait(), _watch_status(client))
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for one in done:
        if error := one.exception():
            return f"{type(error).__name__}: {error}"
    return "the connection to the scheduler was lost"


async def _watch_status(client: OneConnection) -> None:
    while client.status == "running":  # noqa: ASYNC110
        await asyncio.sleep(0.5)


class _Exchange:
    """The tickets that are out, by id."""

    def __init__(self, client: OneConnection, fingerprint: str) -> None:
        self._client = client
        self._places = places_of(fingerprint)
        self._out: dict[str, asyncio.Task[None]] = {}
        self._machines: tuple[Machine, ...] | None = None

    async def listen(self) -> None:
        """Take the service's lines until it closes its end."""
        reader = asyncio.StreamReader(limit=MAX_LINE)
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await reader.readline():
            message = FROM_SERVICE.validate_json(line)
            if isinstance(message, Submit):
                self._submit(message)
            elif message.id in self._out:
                self._out[message.id].cancel()

    def _submit(self, message: Submit) -> None:
        task = asyncio.create_task(self._follow(message))
        self._out[message.id] = task
        task.add_done_callback(lambda _: self._out.pop(message.id, None))

    async def _follow(self, message: Submit) -> None:
        """Submit a ticket, pass its answer on, and forget it. A cancellation takes it back."""
        future = self._client.submit(
            render,
            message.ticket,
            key=f"imgsvc-{message.id}",
            pure=False,
            retries=0,
            priority=message.priority,
            resources={MEGABYTES: message.megabytes, self._places: 1},
        )
        line: Answered | Dropped
        state = self._client.futures[future.key]
        try:
            await state.wait()
            if state.status == "finished" and state.type is NoneType:  # the service has the answer (`remote`)
                future.release()
                return
            answer = await future.result()
            if type(answer) is not str or len(answer) > MAX_ANSWER:
                line = dropped(message.id, "the worker sent something else than an answer")
            else:
                line = Answered(id=message.id, answer=answer)
        except KilledWorker:
            line = dropped(message.id, "its worker was lost", begun=True)
        except Exception as error:  # whatever the worker, or the scheduler, has raised
            line = dropped(message.id, type(error).__name__)
        except asyncio.CancelledError:
            if not self._client.lost.is_set():
                future.release()
            raise
        future.release()
        tell(line)

    async def watch_machines(self) -> None:
        """Tell the service of the cluster's machines, whenever they have changed."""
        while True:
            identity = await asyncio.wait_for(self._client.scheduler.identity(n_workers=-1), IDENTITY_SECONDS)
            workers = list(identity["workers"].values())[:MAX_MACHINES]
            machines = tuple(sorted((_machine(one) for one in workers), key=lambda one: one.name))
            if machines != self._machines:
                self._machines = machines
                tell(Machines(machines=machines))
            await asyncio.sleep(LOOK_SECONDS)


def _machine(found: dict[str, Any]) -> Machine:
    reported = found.get("imgsvc")
    about = reported if isinstance(reported, dict) else {}
    fingerprint = str(about.get("fingerprint", ""))
    return Machine(
        name=word(found.get("name", "")),
        version=word(about.get("version", "unknown")),
        fingerprint=fingerprint if FINGERPRINT.fullmatch(fingerprint) else "",
        cage=word(about.get("cage", "unknown")),
        threads=min(4096, int(found.get("nthreads", 0))),
        megabytes=min(1 << 30, int(found.get("resources", {}).get(MEGABYTES, 0))),
        decoders=_decoders(about.get("decoders")),
        running=found.get("status") == "running",
    )


def _decoders(reported: object) -> dict[CagedType, str]:
    try:
        return DECODERS.validate_python(reported)
    except ValueError:
        return {}
