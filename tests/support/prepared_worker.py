"""A worker of the cluster that renders each picture once, and then only sleeps and sends what it made before.

`python -m tests.support.prepared_worker SCHEDULER COUNT SECONDS [STALL] [--rate RATE]`

It fetches each source and puts each variant as any worker does, with a client that takes little of the processor, so
that it is the service, the scheduler and the gateway that work. SECONDS: how long it sleeps for each ticket; a negative
number: as long as rendering took.
RATE: how many it sends a second at most.
STALL: from the second ticket on it stands still for ever, `half` a variant sent, `after` its last one, or `answered`,
after its last one and the answer.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from imgsvc.imaging.recipe import scratch_file
from imgsvc.jobs.cluster import connections, performer, worker
from imgsvc.jobs.cluster.performer import Performer, _check, _together, _tried
from imgsvc.jobs.cluster.ticket import ANSWER, RenderTicket, TicketAnswer
from imgsvc.jobs.cluster.worker import Capacity
from imgsvc.jobs.lanes.messages import Rendered
from imgsvc.jobs.lanes.pool import Launcher
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings.workers import Workers
from tests.support.pace import Pace
from tests.support.plain_http import PlainHttp

MEGABYTES = 1_000_000  # no ticket waits for memory here


@dataclass(frozen=True, slots=True)
class Made:
    """What was made once. `requests` are the variants of each PUT with their bytes, and its body."""

    rendered: Rendered
    files: dict[str, Path]
    requests: list[tuple[dict[str, int], bytes]]
    seconds: float


class Prepared(Performer):
    def __init__(self, lane: ProcessLane, given: argparse.Namespace, http: httpx.AsyncClient, folder: Path) -> None:
        super().__init__([lane] * given.count, http, folder)
        self._plain = PlainHttp()
        self._seconds: float = given.seconds
        self._stall: str = given.stall
        self._pace = Pace(given.rate)
        self._made: dict[tuple[str, ...], Made] = {}
        self._one = asyncio.Lock()

    async def _rendered(self, ticket: RenderTicket, lane: ProcessLane) -> str | None:
        key = (ticket.sha256, ticket.kind, ticket.recipe, *ticket.done)
        if key not in self._made:
            async with self._one:
                if key not in self._made:
                    return await self._first(key, ticket, lane)
        made = self._made[key]
        await _tried(lambda: self._ask("GET", f"{ticket.address}/source", ticket))
        await asyncio.sleep(made.seconds if self._seconds < 0 else self._seconds)
        await self._pace.turn()
        answer = TicketAnswer.of(ticket, made.rendered).model_dump_json()
        if self._stall:
            await self._stand_still(ticket, made, answer.encode())
        for left, (sizes, body) in zip(reversed(range(len(made.requests))), made.requests, strict=True):
            await self._send(ticket, sizes, body, b"" if left else answer.encode())
        return None if made.requests else answer

    async def _first(self, key: tuple[str, ...], ticket: RenderTicket, lane: ProcessLane) -> str | None:
        began, folder = time.monotonic(), self.folder / f"kept-{len(self._made)}"
        folder.mkdir()
        outcome = await self._render(ticket, lane, folder)
        answer = TicketAnswer.of(ticket, outcome).model_dump_json()
        if not isinstance(outcome, Rendered):
            return answer
        files = {one.name: scratch_file(folder / "made", one.name) for one in outcome.variants}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        requests = [
            ({name: sizes[name] for name in names}, b"".join(files[name].read_bytes() for name in names))
            for names in _together(sizes)
        ]
        self._made[key] = Made(outcome, files, requests, time.monotonic() - began)
        return None if await self._put_all(ticket, files, answer.encode()) else answer

    async def _send(self, ticket: RenderTicket, sizes: dict[str, int], body: bytes, answer: bytes) -> None:
        """Put variants in one request, as any worker does."""
        named = sizes | ({ANSWER: len(answer)} if answer else {})
        url = f"{ticket.address}?{urlencode(named)}"
        await _tried(lambda: self._ask("PUT", url, ticket, body + answer))

    async def _ask(self, method: str, url: str, ticket: RenderTicket, body: bytes = b"") -> None:
        _check(await self._plain.send(method, url, ticket.trace_id, body))

    async def _stand_still(self, ticket: RenderTicket, made: Made, answer: bytes) -> None:
        async def half() -> AsyncIterator[bytes]:
            yield bytes(second.size_bytes // 2)
            await self._end()

        if self._stall == "half":
            first, second, *_ = made.rendered.variants
            await self._put_all(ticket, {first.name: made.files[first.name]})
            headers = {"Content-Length": str(second.size_bytes)}
            await self._http.put(f"{ticket.address}/{second.name}", headers=headers, content=half())
        await self._put_all(ticket, made.files, answer if self._stall == "answered" else b"")
        await self._end()

    async def _end(self) -> None:
        print("stands still", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scheduler")
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("stall", nargs="?", default="")
    parser.add_argument("--rate", type=float, default=inf)
    given = parser.parse_args()

    @asynccontextmanager
    async def performing(workers: Workers, _: Capacity) -> AsyncIterator[tuple[Performer, dict[str, Any]]]:
        launcher, folder = Launcher(), performer.make_folder()
        lane = ProcessLane("render", nice=0, jobs_per_process=500, cage=workers.cage, launcher=launcher)
        try:
            async with connections.client() as http:
                await lane.start()
                prepared = Prepared(lane, given, http, folder)
                performer.use(prepared)
                yield prepared, {"cage": "nothing is decoded but once", "decoders": {}}
        finally:
            performer.use(None)
            await lane.close()
            launcher.close()
            performer.remove_folder(folder)

    vars(worker)["_performing"] = performing
    setattr(Capacity, "of", classmethod(lambda cls, _: cls(given.count, MEGABYTES)))  # noqa: B010
    ends = {"ca_file": "CAFILE", "certfile": "CERTFILE", "keyfile": "KEYFILE"}
    files = {name: os.environ[f"IMGSVC_WORKERS_{end}"] for name, end in ends.items()}
    raise SystemExit(worker.run(Workers(scheduler=given.scheduler, **files)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
