"""What the service knows of its cluster, as health, the dashboard and the metrics show it."""

from typing import TYPE_CHECKING, Literal

from ...lazy_dataclass import dataclass

if TYPE_CHECKING:
    from .messages import Machine

TicketEnd = Literal["answered", "lost_scheduler", "lost_worker", "taken_back"]


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is known of the cluster now. `problem` is empty while the gateway is connected."""

    problem: str
    cage: str
    missing: str
    fingerprint: str
    machines: "tuple[Machine, ...]"
    out: int
