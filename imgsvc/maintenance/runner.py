"""Runs maintenance tasks, one at a time, in the background of a service or of a command."""

from dataclasses import field
from datetime import datetime
from typing import Literal
from uuid import uuid4

import anyio
import structlog

from ..jobs.table.model import now
from ..lazy_dataclass import dataclass
from ..storage.base import StorageError
from .context import MaintenanceContext
from .progress import MaintenanceFailed, Progress
from .requests import MaintenanceRequest, execute

log = structlog.get_logger()
State = Literal["running", "done", "failed", "cancelled"]


class TaskRunning(Exception):
    """Another maintenance task is running; `verb` is its kind."""

    def __init__(self, verb: str) -> None:
        super().__init__(f"Another maintenance task is running: {verb}. Only one can run at a time.")
        self.verb = verb


@dataclass(slots=True)
class Task:
    """A task. `well`: nothing wrong was found, or everything was done; None until it has ended."""

    request: MaintenanceRequest
    progress: Progress
    task_id: str = field(default_factory=lambda: str(uuid4()))
    state: State = "running"
    began_at: datetime = field(default_factory=now)
    ended_at: datetime | None = None
    well: bool | None = None
    error: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class MaintenanceRunner:
    def __init__(self, context: MaintenanceContext) -> None:
        self._context = context
        self._send, self._receive = anyio.create_memory_object_stream[Task](1)
        self.task: Task | None = None  # the last one

    def start(self, request: MaintenanceRequest) -> Task:
        """Start a task and return at once. Raises TaskRunning."""
        if self.task is not None and self.task.state == "running":
            raise TaskRunning(self.task.request.verb)
        self.task = Task(request, Progress(listed=request.listed))
        self._send.send_nowait(self.task)
        return self.task

    def cancel(self) -> None:
        """Cancel the running task, if there is one. Its results are kept; starting it again continues from there."""
        if self.task is not None:
            self.task.scope.cancel()

    async def run(self) -> None:
        with self._send, self._receive:
            async for task in self._receive:
                await self._carry_out(task)

    async def _carry_out(self, task: Task) -> None:
        bound = log.bind(task=task.request.verb, task_id=task.task_id)
        bound.info("maintenance_started")
        state: State = "cancelled"
        try:
            with task.scope:
                task.well = await execute(task.request, self._context, task.progress)
                state = "done"
        except MaintenanceFailed as error:
            state, task.error = "failed", str(error)
        except StorageError as error:
            state, task.error = "failed", f"The storage could not be read: {error}."
        except Exception:
            state, task.error = "failed", "It failed unexpectedly; see the log."
            bound.exception("maintenance_failed")
        finally:
            task.state, task.ended_at = state, now()
            bound.info("maintenance_ended", state=state, well=task.well, error=task.error, **task.progress.counts)
