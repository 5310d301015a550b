"""The metrics of the processes that decode and encode: those of this machine, and those of others."""

from math import nan
from typing import get_args

from ..jobs.cluster.link_state import LinkState, TicketEnd
from ..jobs.lanes.cage import Posture
from ..jobs.lanes.process import EndReason
from ..jobs.watchdog import JobFault
from .metric_registry import MetricRegistry


class WorkerMetrics:
    """Worker processes of this machine, their cage, and the jobs that nothing worked on."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._restarts = registry.counter(
            "worker_restarts_total",
            "Processes that ended early: a picture's own, or a worker, which is replaced; killed (the image was "
            "deleted) and retired (the worker had done its share) are normal.",
            "reason",
        )
        self._walls = registry.gauge(
            "worker_cage_in_force", "Whether pictures are decoded behind this wall of the cage: 1 or 0.", "wall"
        )
        self._cage_faults = registry.gauge(
            "worker_cage_faults", "Walls of the cage that this system has and that could not be put in force."
        )
        self._stuck = registry.counter("jobs_stuck_total", "Jobs that nothing worked on, found and put right.", "fault")
        for reason in get_args(EndReason):
            registry.begin_at_zero(self._restarts, reason)
        for fault in get_args(JobFault):
            registry.begin_at_zero(self._stuck, fault)

    def worker_ended(self, reason: EndReason) -> None:
        self._restarts.labels(reason).inc()

    def job_stuck(self, fault: JobFault) -> None:
        self._stuck.labels(fault).inc()

    def caged(self, posture: Posture | None) -> None:
        """Set the gauges of the cage. None means unknown."""
        self._walls.labels("landlock").set(posture.landlock_abi > 0 if posture else nan)
        self._walls.labels("seccomp").set(posture.seccomp if posture else nan)
        self._walls.labels("limits").set(posture.limits if posture else nan)
        self._cage_faults.set(len(posture.problems) if posture else nan)


class ClusterMetrics:
    """Rendering on other machines (`[workers] engine = "dask"`)."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._connected = registry.gauge(
            "cluster_connected", "Whether the cluster's scheduler is connected: 1 or 0; NaN without one."
        )
        self._machines = registry.gauge(
            "cluster_machines",
            "Workers of the cluster: used, not_used (of another version), or paused (leaving).",
            "state",
        )
        self._out = registry.gauge("cluster_tickets_out", "Render tickets that are out.")
        self._tickets = registry.counter(
            "cluster_tickets_total",
            "Render tickets by their end: answered, lost with the scheduler or with a worker, or taken back.",
            "end",
        )
        self._bytes = registry.counter(
            "cluster_bytes_total", "Bytes of sources sent to, and of variants received from, machines.", "direction"
        )
        self._counted = {"sent": 0, "received": 0}
        for end in get_args(TicketEnd):
            registry.begin_at_zero(self._tickets, end)
        for direction in self._counted:
            registry.begin_at_zero(self._bytes, direction)
        self.measured(None, 0, 0)

    def ticket_ended(self, end: TicketEnd) -> None:
        self._tickets.labels(end).inc()

    def measured(self, state: LinkState | None, sent: int, received: int) -> None:
        """`sent` and `received`: bytes since the start. None: pictures are rendered on this machine alone."""
        machines = state.machines if state else ()
        used = [one for one in machines if state and one.fingerprint == state.fingerprint]
        self._connected.set(not state.problem if state else nan)
        self._out.set(state.out if state else 0)
        self._machines.labels("used").set(sum(one.running for one in used))
        self._machines.labels("paused").set(sum(not one.running for one in used))
        self._machines.labels("not_used").set(len(machines) - len(used))
        for direction, count in (("sent", sent), ("received", received)):
            self._bytes.labels(direction).inc(count - self._counted[direction])
            self._counted[direction] = count
