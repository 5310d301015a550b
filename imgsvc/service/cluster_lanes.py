"""The lanes of a cluster's machines (`[workers] engine = "dask"`)."""

from collections.abc import Sequence

from ..jobs.cluster.lane import ClusterLane, ClusterMemory, TicketOffice
from ..jobs.cluster.link import GatewayLink
from ..jobs.incoming import Incoming
from ..jobs.lanes.base import Lane
from ..settings import Settings
from ..telemetry.metrics import Metrics

LANES = 1024  # tickets out at most: an idle lane is a task that waits


def office(settings: Settings, metrics: Metrics, incoming: Incoming) -> TicketOffice:
    """What the lanes share. Machines reach this service by `[workers] service_url`, else by its public address."""
    link = GatewayLink(settings.workers, metrics.cluster.ticket_ended)
    return TicketOffice(link, settings.workers.service_url or settings.service.public_url, incoming)


def lanes(office: TicketOffice, *, previews: bool) -> tuple[Sequence[Lane], Sequence[Lane]]:
    """Those for previews, if there shall be some, and those for renders."""
    renders = [ClusterLane(f"cluster-{n}", n, office) for n in range(LANES)]
    return [ClusterLane(f"cluster-preview-{n}", n, office) for n in range(LANES if previews else 0)], renders


def memories(office: TicketOffice) -> tuple[ClusterMemory, ClusterMemory]:
    """The memory of previews and of renders, which is one: that of the machines."""
    previews = ClusterMemory(office.link)
    return previews, ClusterMemory(office.link, lambda: previews.used)
