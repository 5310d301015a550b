"""The lanes of a service: those of this machine, and those of a cluster's machines."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from ..jobs.incoming import Incoming
from ..jobs.lane_memory import LaneMemory
from ..jobs.lanes.base import Lane
from ..jobs.lanes.memory_budget import Budget, render_lanes
from ..jobs.lanes.pool import Launcher
from ..jobs.lanes.process import ProcessLane
from ..jobs.side import Side
from ..lazy_dataclass import dataclass
from ..settings import Settings
from ..settings.workers import Workers
from ..storage.base import Receiving
from ..telemetry.metrics import Metrics

if TYPE_CHECKING:
    from ..jobs.cluster.lane import TicketOffice

RENDER_NICENESS = 10  # so that the operating system puts previews and responses first


@dataclass(frozen=True, slots=True)
class Lanes:
    """The lanes of this machine, and, if there is an `office`, those of a cluster's machines."""

    previews: Sequence[Lane]
    renders: Sequence[Lane]
    office: "TicketOffice | None" = None
    far_previews: Sequence[Lane] = ()
    far_renders: Sequence[Lane] = ()

    @property
    def local(self) -> list[Lane]:
        return [*self.previews, *self.renders]

    @property
    def deciding(self) -> list[Lane]:
        """Those that say what this service decodes: a cluster's lanes are all alike."""
        return [*self.local, *self.far_renders[:1]]


@asynccontextmanager
async def worker_lanes(
    settings: Settings, metrics: Metrics, given: Sequence[Lane] | None, receiving: Mapping[str, Receiving]
) -> AsyncIterator[Lanes]:
    """The lanes: the `given` ones (previews, then renders), or new ones whose processes end with the context.

    `receiving`: the storages that machines can put variants into by themselves.
    """
    launcher = Launcher(large_pages=settings.workers.large_pages)
    local = Lanes(given[:1], given[1:]) if given else _local_lanes(settings.workers, metrics, launcher)
    lanes = local
    if settings.workers.engine == "dask":
        lanes = _with_cluster(local, settings, metrics, Incoming(receiving))
    try:
        yield lanes
    finally:
        with anyio.CancelScope(shield=True):
            for one in () if given else lanes.local:
                await one.close()
        launcher.close()


def _local_lanes(workers: Workers, metrics: Metrics, launcher: Launcher) -> Lanes:
    def lane(name: str, nice: int, share: int) -> ProcessLane:
        return ProcessLane(
            name,
            nice=nice,
            jobs_per_process=share,
            cage=workers.cage,
            ended=metrics.workers.worker_ended,
            launcher=launcher,
        )

    share = workers.jobs_per_process
    renders = [lane(f"render-{n}", RENDER_NICENESS, share) for n in range(render_lanes(workers))]
    wants_preview = workers.engine == "local" or workers.local_preview
    return Lanes([lane("preview", 0, share * 10)] if wants_preview else [], renders)


def _with_cluster(local: Lanes, settings: Settings, metrics: Metrics, incoming: Incoming) -> Lanes:
    from . import cluster_lanes  # with all of a cluster, only where there is one

    office = cluster_lanes.office(settings, metrics, incoming)
    previews, renders = cluster_lanes.lanes(office, previews=not settings.workers.local_preview)
    return replace(local, office=office, far_previews=previews, far_renders=renders)


def sides_of(lanes: Lanes, memory: Budget) -> list[Side]:
    """The sides of the queue: each with its lanes and their memory."""
    sides = [
        Side("previews", lanes.previews, LaneMemory(memory.preview)),
        Side("renders", lanes.renders, LaneMemory(memory.render)),
    ]
    if lanes.office is not None:
        from .cluster_lanes import memories

        previews, renders = memories(lanes.office)
        sides += [Side("previews", lanes.far_previews, previews), Side("renders", lanes.far_renders, renders)]
    return [side for side in sides if side.lanes]
