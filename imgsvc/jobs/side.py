"""The lanes that take jobs of one queue."""

from collections.abc import Sequence
from dataclasses import field

import anyio

from ..lazy_dataclass import dataclass
from .lane_memory import SideMemory
from .lanes.base import Lane
from .table.model import QueueName


@dataclass(slots=True)
class Side:
    """Lanes that take jobs of one queue (previews or renders), their memory, and their channel of capacity 0."""

    queue: QueueName
    lanes: Sequence[Lane]
    memory: SideMemory
    # Counts the lanes that could take a job.
    idle: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(0, fast_acquire=True))
    changed: anyio.Event = field(default_factory=anyio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()
