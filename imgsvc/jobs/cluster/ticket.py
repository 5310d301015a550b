"""A render ticket and its answer: what travels between this service and a worker on another machine.

Both are JSON and strict models. Bytes of pictures are in neither: they travel by HTTP, to and from `address`.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...imaging.error_messages import sentence
from ..lanes.messages import MAX_LOG, Outcome, Rendered, Task, WorkerCode
from ..lanes.process import DIED, timed_out
from ..retry import Failure

MAX_TICKET = 1 << 16  # bytes; with the default variants it has less than 2 KB
MAX_ANSWER = 1 << 16  # bytes
ANSWER = "_answer"  # its name among the variants of the last PUT, which it follows: no variant may have this name
# Why a worker has not done its ticket, through no fault of the picture: it could not reach the service; the service
# refused it (the run is over); the ticket was taken back; no process could be started there; its disk failed.
LossReason = Literal["unreachable", "refused", "revoked", "no_process", "worker_disk"]


class _Message(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, strict=True, extra="forbid")


class RenderTicket(_Message):
    """The task of a lane, for a worker on another machine. Sizes are in bytes, times in seconds from its receipt."""

    id: str = Field(min_length=1, max_length=64)
    kind: Literal["preview", "render"]
    address: str = Field(pattern=r"^https?://[^\s?#]+$", max_length=MAX_TICKET)  # with the token
    trace_id: str = Field(max_length=128)
    mime: str = Field(max_length=64)
    recipe: str
    done: tuple[str, ...]
    size: int = Field(ge=0)  # of the source
    sha256: str
    time_limit: float = Field(ge=0)
    memory_ceiling: int = Field(ge=0)
    file_ceiling: int = Field(ge=0)
    into_storage: bool  # variants may be put at an address that `POST …/{variant}?bytes=` gives

    @classmethod
    def of(cls, task: Task, size: int, address: str, *, into_storage: bool = False) -> Self:
        return cls(
            id=task.id,
            kind=task.kind,
            address=address,
            trace_id=task.trace_id,
            mime=task.mime,
            recipe=task.recipe,
            done=task.done,
            size=size,
            sha256=task.sha256,
            time_limit=task.time_limit,
            memory_ceiling=task.memory_ceiling,
            file_ceiling=task.file_ceiling,
            into_storage=into_storage,
        )

    def task(self, source: str, folder: str) -> Task:
        """The task for a lane of the worker's machine."""
        return Task(
            kind=self.kind,
            id=self.id,
            job_id="",
            run=0,
            trace_id=self.trace_id,
            source=source,
            mime=self.mime,
            recipe=self.recipe,
            folder=folder,
            done=self.done,
            time_limit=self.time_limit,
            memory_ceiling=self.memory_ceiling,
            file_ceiling=self.file_ceiling,
            sha256=self.sha256,
        )


class PutAddress(_Message):
    """Where a machine puts one variant into the storage: the answer to `POST …/{variant}?bytes=`."""

    address: str = Field(pattern=r"^https?://\S+$", max_length=MAX_TICKET)
    headers: dict[str, str] = Field(max_length=16)


class TicketError(_Message):
    """Why the task failed. The message is used only if it is one of this program's sentences."""

    code: WorkerCode | Literal["worker_crashed"]
    message: str = Field(max_length=500)


class TicketAnswer(_Message):
    """The worker's answer to a ticket: a rendering, whose files it has put; an error; no cheap preview; or a loss."""

    ticket: str = Field(max_length=64)
    outcome: Literal["rendered", "no_preview", "failed", "lost"]
    rendering: Rendered | None = None
    error: TicketError | None = None
    reason: LossReason | None = None
    log: str | None = Field(default=None, max_length=MAX_LOG)

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        there = {"rendered": self.rendering, "failed": self.error, "lost": self.reason}
        for outcome, member in there.items():
            if (self.outcome == outcome) != (member is not None):
                raise ValueError(f"what belongs to the outcome {outcome!r} is missing, or there without it")
        return self

    @classmethod
    def of(cls, ticket: RenderTicket, outcome: Outcome) -> Self:
        """The answer for the outcome of a lane of the worker's machine."""
        if isinstance(outcome, Failure):
            error = TicketError(code=outcome.code, message=outcome.message)  # type: ignore[arg-type]  # is validated
            return cls(ticket=ticket.id, outcome="failed", error=error)
        if outcome is None:
            return cls(ticket=ticket.id, outcome="no_preview")
        assert isinstance(outcome, Rendered)
        return cls(ticket=ticket.id, outcome="rendered", rendering=outcome)

    def result(self, task: Task) -> Outcome:
        """What the answer means for the job. Not for a loss."""
        if self.error is None:
            return self.rendering
        if self.error.code == "worker_crashed":
            return DIED
        if self.error.code == "timeout":
            return timed_out(task)
        return Failure(self.error.code, sentence(self.error.code, self.error.message))


def answer_to(task: Task, text: str) -> TicketAnswer:
    """Read a worker's answer to a task. Raises ValueError for anything else."""
    answer = TicketAnswer.model_validate_json(text)
    if answer.ticket != task.id:
        raise ValueError("the answer is another ticket's")
    if answer.outcome == "no_preview" and task.kind != "preview":
        raise ValueError("only a preview may be left out")
    return answer
