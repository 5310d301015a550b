"""The messages between a lane and its worker, as strict models: a hostile file may have taken over the worker.

One JSON object per line. Each message of a worker names its task, so that a late answer is never taken for that of
another task. Unknown members are refused and nothing has a default: `{}` is not a valid answer.
"""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...imaging.error_messages import sentence
from ..retry import Failure

LONGEST_SECONDS = 86_400  # the most that a worker may report for one variant
MAX_SIDE = 16_383  # pixels of a variant: a limit of the format (RFC 9649)
MAX_SOURCE_SIDE = 1_000_000  # pixels
MAX_VARIANTS = 64
MAX_LOG = 4_000  # characters of a worker's log text
WorkerCode = Literal[
    "image_unreadable",
    "image_too_large",
    "image_unsupported",
    "memory_limit",
    "timeout",
    "source_missing",
    "source_damaged",
    "io_error",
    "internal_error",
]


@dataclass(frozen=True, slots=True)
class Task:
    """One rendering task. Paths are absolute, the time limit is in seconds, the memory ceiling in bytes."""

    kind: Literal["preview", "render"]
    id: str  # of the job's run: each run has one task
    job_id: str
    trace_id: str
    source: str
    mime: str
    recipe: str
    folder: str
    done: tuple[str, ...]
    time_limit: float
    memory_ceiling: int
    sha256: str


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class VariantMade(_Message):
    """A variant as the worker reports it. Compared with the file before that is published."""

    name: str = Field(max_length=255)
    width: int = Field(ge=1, le=MAX_SIDE)
    height: int = Field(ge=1, le=MAX_SIDE)
    size_bytes: int = Field(ge=1, lt=1 << 32)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    format: Literal["webp"]
    seconds: float = Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)


class Rendered(_Message):
    width: int = Field(ge=0, le=MAX_SOURCE_SIDE)
    height: int = Field(ge=0, le=MAX_SOURCE_SIDE)
    dominant_colour: str = Field(pattern=r"^(#[0-9a-f]{6})?$")
    frames: int = Field(ge=1, le=1 << 31)
    variants: tuple[VariantMade, ...] = Field(max_length=MAX_VARIANTS)


Outcome = Rendered | Failure | None


class Hello(_Message):
    """A worker's first line: it has loaded its libraries."""

    ready: int
    decoder: str = Field(max_length=40, pattern=r"^[0-9A-Za-z.+-]*$")


class Started(_Message):
    """The worker has read the task: if it dies from now on, the task is the cause."""

    started: str


class WorkerError(_Message):
    """Why the task failed. The message is used only if it is one of this program's sentences (see `failure`)."""

    code: WorkerCode
    message: str = Field(max_length=500)

    @property
    def failure(self) -> Failure:
        return Failure(self.code, sentence(self.code, self.message))


class Answer(_Message):
    """The worker's answer to a task: a rendering, an error, or that there is no cheap preview."""

    task: str
    outcome: Literal["rendered", "no_preview", "failed"]
    rendering: Rendered | None
    error: WorkerError | None
    seconds: float = Field(ge=0, allow_inf_nan=False)
    retire: bool
    log: str | None = Field(max_length=MAX_LOG)

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if (self.outcome == "rendered") != (self.rendering is not None):
            raise ValueError("a rendering belongs to the outcome 'rendered' alone")
        if (self.outcome == "failed") != (self.error is not None):
            raise ValueError("an error belongs to the outcome 'failed' alone")
        return self

    @property
    def result(self) -> Outcome:
        return self.error.failure if self.error else self.rendering

    @property
    def quoted_log(self) -> str:
        """The worker's log text, printable and on one line."""
        return (self.log or "").encode("unicode_escape").decode("ascii")
