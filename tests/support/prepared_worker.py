"""A worker of the cluster that renders each picture once, and then only sleeps and sends what it made before.

`python -m tests.support.prepared_worker SCHEDULER COUNT SECONDS [STALL]`

It fetches each source and puts each variant as any worker does, with a client that takes little of the processor, so
that it is the service, the scheduler and the gateway that work. SECONDS: how long it sleeps for each ticket; a negative
number: as long as rendering took.
STALL: from the second ticket on it stands still for ever, `half` a variant sent, or `after` its last one.
"""

import argparse
import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from imgsvc.imaging.recipe import scratch_file
from imgsvc.jobs.cluster import connections, performer, worker
from imgsvc.jobs.cluster.performer import Performer
from imgsvc.jobs.cluster.ticket import RenderTicket
from imgsvc.jobs.cluster.worker import Capacity
from imgsvc.jobs.lanes.messages import Outcome, Rendered
from imgsvc.jobs.lanes.pool import Launcher
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings.workers import Workers
from tests.support.plain_http import PlainTransport

MEGABYTES = 1_000_000  # no ticket waits for memory here


class Prepared(Performer):
    def __init__(self, lane: ProcessLane, count: int, http: httpx.AsyncClient, folder: Path, seconds: float) -> None:
        super().__init__([lane] * count, http, folder)
        self._seconds = seconds
        self._made: dict[tuple[str, ...], tuple[Rendered, Path, float]] = {}
        self._one = asyncio.Lock()
        self.stall = ""

    async def _render(self, ticket: RenderTicket, lane: ProcessLane, folder: Path) -> Outcome:
        key = (ticket.sha256, ticket.kind, ticket.recipe, *ticket.done)
        if key not in self._made:
            async with self._one:
                if key not in self._made:
                    return await self._first(key, ticket, lane, folder)
        rendered, made, seconds = self._made[key]
        await self._fetch(ticket, folder / "source")
        await asyncio.sleep(seconds if self._seconds < 0 else self._seconds)
        if self.stall == "half":
            first, second, *_ = rendered.variants
            await self._put_all(ticket, {first.name: scratch_file(made, first.name)})
            await self._stand_still(ticket, second.name, second.size_bytes)
        await self._put_all(ticket, {one.name: scratch_file(made, one.name) for one in rendered.variants})
        if self.stall:
            print("stands still", flush=True)
            await asyncio.Event().wait()
        return rendered

    async def _first(self, key: tuple[str, ...], ticket: RenderTicket, lane: ProcessLane, folder: Path) -> Outcome:
        began = time.monotonic()
        outcome = await super()._render(ticket, lane, folder)
        if isinstance(outcome, Rendered):
            kept = self.folder / f"kept-{len(self._made)}"
            shutil.copytree(folder / "made", kept)
            self._made[key] = (outcome, kept, time.monotonic() - began)
        return outcome

    async def _stand_still(self, ticket: RenderTicket, variant: str, size: int) -> None:
        async def half() -> AsyncIterator[bytes]:
            yield bytes(size // 2)
            print("stands still", flush=True)
            await asyncio.Event().wait()

        await self._http.put(f"{ticket.address}/{variant}", headers={"Content-Length": str(size)}, content=half())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scheduler")
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("stall", nargs="?", default="")
    given = parser.parse_args()

    @asynccontextmanager
    async def performing(workers: Workers, capacity: Capacity) -> AsyncIterator[tuple[Performer, dict[str, Any]]]:
        launcher, folder = Launcher(), performer.make_folder()
        lane = ProcessLane("render", nice=0, jobs_per_process=500, cage=workers.cage, launcher=launcher)
        try:
            # Only a client that sends a body as it comes can stop amid one.
            async with connections.client() if given.stall else httpx.AsyncClient(transport=PlainTransport()) as http:
                await lane.start()
                prepared = Prepared(lane, capacity.count, http, folder, given.seconds)
                prepared.stall = given.stall
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
