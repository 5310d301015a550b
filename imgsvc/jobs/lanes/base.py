"""The interface of a lane."""

from collections.abc import Mapping
from typing import Protocol

from .cage import Posture
from .messages import Outcome, Task


class Lane(Protocol):
    """Renders one task at a time: the interface for other engines than local processes.

    `start` makes a worker ready; raises OSError (TimeoutError included). `run` is called for one task after the other
    and raises nothing but a cancellation; it returns None only for a preview that is not cheap, and a Lost only if the
    lane is not local. What it has made is in the task's folder, or begins with `received_at` if the lane is not local.
    `kill` ends the current task, `shut` also refuses further ones. Both may be called at any moment, and twice. `close`
    waits for the end.
    """

    name: str

    @property
    def local(self) -> bool:
        """Whether its process is on this machine."""

    async def start(self) -> None: ...
    async def run(self, task: Task) -> Outcome: ...
    def kill(self) -> None: ...
    def shut(self) -> None: ...
    async def close(self) -> None: ...
    @property
    def alive(self) -> bool: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def jobs_done(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def posture(self) -> Posture | None:
        """The cage of its pictures; None before a worker has reported it, or where pictures have no process."""

    @property
    def decoders(self) -> Mapping[str, str]:
        """Versions of the decoders that are used in the cage only, by MIME type."""
