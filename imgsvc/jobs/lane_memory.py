"""The memory that the jobs of one queue may use at the same time."""

from typing import Protocol

from ..lazy_dataclass import dataclass
from .retry import exclusive
from .table.model import Job, QueueName

# Added to the estimate, which was measured with typical files of each kind: other builds of the codecs may differ.
RESERVE_FACTOR = 1.1
RESERVE_EXTRA = 16 * 1024 * 1024


def reserve_of(estimate: int) -> int:
    """The bytes that are reserved for a job of this estimate."""
    return int(estimate * RESERVE_FACTOR) + RESERVE_EXTRA


def largest_in(free: int) -> int:
    """The largest estimate whose reserve fits into so many bytes."""
    return int((free - RESERVE_EXTRA) / RESERVE_FACTOR)


class SideMemory(Protocol):
    """The memory of the lanes that work on one queue, on this machine or on others."""

    @property
    def running(self) -> int: ...
    @property
    def largest(self) -> int: ...
    @property
    def takes_any(self) -> bool:
        """Whether a job may be claimed that must run alone, or needs more than `largest`."""

    def reserve(self, job: Job, queue: QueueName) -> int: ...
    def release(self, reserved: int) -> None: ...


@dataclass(slots=True)
class LaneMemory:
    """The memory in bytes that the lanes of one queue may use together, beyond their idle size.

    The bytes reserved for a job are also its worker's memory ceiling, so all ceilings together stay within `total`.
    """

    total: int
    used: int = 0
    running: int = 0

    @property
    def free(self) -> int:
        return self.total - self.used

    @property
    def largest(self) -> int:
        """The largest estimate whose reserve is free. A job that runs alone may use all memory."""
        return largest_in(self.free) if self.used else self.total

    @property
    def takes_any(self) -> bool:
        return not self.running

    def reserve(self, job: Job, queue: QueueName) -> int:
        """Reserve the most that the job may use, or everything if it must run alone; returns the bytes."""
        estimate = (job.preview_bytes or 0) if queue == "previews" else job.render_bytes
        needs = max(estimate, min(reserve_of(estimate), self.free))
        if queue == "renders" and exclusive(deaths=job.deaths, starts=job.starts - 1):
            needs = max(needs, self.free)
        self.used += needs
        self.running += 1
        return needs

    def reserve_again(self, reserved: int) -> bool:
        """Reserve the same for a second process of a job, if it is free."""
        if self.free < reserved:
            return False
        self.used += reserved
        self.running += 1
        return True

    def release(self, reserved: int) -> None:
        self.used -= reserved
        self.running -= 1
