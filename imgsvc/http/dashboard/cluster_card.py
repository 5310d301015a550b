"""The card of the machines that render for this service: there only with [workers] engine = "dask"."""

from ..look.components import MEGA, NONE, card, counted, empty, facts, number, size, state, table
from ..look.html import Child, Html, el, foreign
from .models import Cluster, ClusterMachine, DashboardData

LISTED = 100  # machines; those that are not used come first
HEADINGS = ("Machine", "State", "Version", "Cage", "At a time", "Memory")


def cluster(data: DashboardData) -> Html | None:
    one = data.cluster
    if one.status == "off":
        return None
    connected = one.status == "connected"
    return card(
        "cluster",
        "Other machines",
        facts(
            ("Scheduler", state("healthy" if connected else "down", one.status)),
            ("Certificates", state("degraded", "none: insecure") if one.insecure else state("healthy", "required")),
            ("Cage of the gateway", foreign(one.gateway_cage) if one.gateway_cage else NONE),
            ("Pictures at a time", _places(one)) if connected else None,
            ("Tickets out", number(one.tickets_out)),
            ("Sources sent", size(one.sent_bytes)),
            ("Variants received", size(one.received_bytes)),
        ),
        _machines(one, data.system.version) if one.machines else empty(*_none(one)),
    )


def _places(one: Cluster) -> str:
    used = [machine for machine in one.machines if machine.used]
    return f"{number(sum(machine.threads for machine in used))} on {counted(len(used), 'machine')}"


def _none(one: Cluster) -> tuple[Child, ...]:
    if one.status == "connected":
        return "No machine is there.", "Start imgsvc worker on one: jobs wait, or are rendered on this machine."
    return foreign(one.detail), "Tickets that were out are given back; the service connects again automatically."


def _machines(one: Cluster, ours: str) -> Html:
    """Those that are not used first."""
    listed = sorted(one.machines, key=lambda machine: (machine.used, machine.name))
    rows = [(machine.name, _row(machine, ours)) for machine in listed[:LISTED]]
    left = len(listed) - len(rows)
    more = el("p", f"and {counted(left, 'other')}", class_="muted") if left else None
    return el("div", table("Machines", HEADINGS, rows), more)


def _row(machine: ClusterMachine, ours: str) -> tuple[Child, ...]:
    unused = el("div", state("degraded", "not used"), el("div", _why(machine, ours), class_="muted"))
    return (
        foreign(machine.name, title=machine.name),
        state("healthy", "used") if machine.used else unused,
        foreign(machine.version),
        foreign(machine.cage, class_="whole") if machine.cage else NONE,
        number(machine.threads),
        size(machine.memory_mb * MEGA),
    )


def _why(machine: ClusterMachine, ours: str) -> str:
    """A machine is used if its fingerprint is the service's, which covers more than the version, and it is running."""
    if machine.version != ours:
        return f"Another version; the service has {ours}."
    return "Other decoders, or it takes no tickets now."
