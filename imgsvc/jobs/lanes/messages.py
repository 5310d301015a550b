"""The messages between a lane and its worker, as strict models: a hostile file may have taken over the worker.

JSON objects. An answer names its task, so that a late one is never taken for that of another task. Unknown members are
refused and nothing has a default: `{}` is not a valid answer.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import from_json

from ...imaging.error_messages import sentence
from ...imaging.recipe import Format
from ...lazy_dataclass import dataclass
from ..retry import Failure
from .cage import Posture

LONGEST_SECONDS = 86_400  # the most that a worker may report for one variant
MAX_SIDE = 16_383  # pixels of a variant: a limit of the format (RFC 9649)
MAX_SOURCE_SIDE = 1_000_000  # pixels
MAX_VARIANTS = 64
MAX_FRAMES = 4_000  # of an animation
MAX_ANSWER = 1 << 16  # bytes of an answer
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
    """One rendering task. Paths are absolute, the time limit is in seconds.

    The ceilings are in bytes: of the memory that it may take, and of each file that it may write.
    """

    kind: Literal["preview", "render"]
    id: str  # random, so that it says nothing: an answer passes through the memory from which later ones are forked
    job_id: str
    run: int
    trace_id: str
    source: str
    mime: str
    recipe: str
    folder: str
    done: tuple[str, ...]
    time_limit: float
    memory_ceiling: int
    file_ceiling: int
    sha256: str


CagedType = Annotated[str, Field(pattern=r"^image/(heic|avif)$")]
Versions = Annotated[str, Field(max_length=80, pattern=r"^[0-9A-Za-z.+, -]*$")]


class _Message(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, strict=True, extra="forbid")


class VariantMade(_Message):
    """A variant as the worker reports it. Compared with the file before that is published."""

    name: str = Field(max_length=255)
    width: int = Field(ge=1, le=MAX_SIDE)
    height: int = Field(ge=1, le=MAX_SIDE)
    size_bytes: int = Field(ge=1, lt=1 << 32)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    format: Format
    frames: int = Field(ge=1, le=MAX_FRAMES)
    seconds: float = Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)

    @property
    def measured(self) -> dict[str, Any]:
        """What the image's row says of it: a still has no frames."""
        return self.model_dump(exclude={"name", "seconds"} | ({"frames"} if self.frames == 1 else set()))


class SourceMade(_Message):
    """A source without metadata as the worker reports it. Walked through before it is kept."""

    size_bytes: int = Field(ge=1, lt=1 << 32)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Rendered(_Message):
    width: int = Field(ge=0, le=MAX_SOURCE_SIDE)
    height: int = Field(ge=0, le=MAX_SOURCE_SIDE)
    dominant_colour: str = Field(pattern=r"^(#[0-9a-f]{6})?$")
    frames: int = Field(ge=1, le=1 << 31)
    source: SourceMade | None
    thumbhash: str = Field(pattern=r"^([A-Za-z0-9+/]{22,34}={0,2})?$")  # base64
    variants: tuple[VariantMade, ...] = Field(max_length=MAX_VARIANTS)


@dataclass(frozen=True, slots=True)
class Lost:
    """The task was lost through no fault of the picture, with another machine for one. It counts as no attempt.

    `begun`: with the process that worked on it, so that the picture may be the cause after all. The reason is for the
    log.
    """

    reason: str
    begun: bool = False


Outcome = Rendered | Failure | Lost | None


class Hello(_Message):
    """A warm process's first message: it has loaded its libraries, and what its cage puts in force.

    `decoders` are the versions of those that are used in the cage only, by MIME type.
    `unavailable` says why there is no cage, where the settings require one.
    """

    ready: int
    decoder: str = Field(max_length=40, pattern=r"^[0-9A-Za-z.+-]*$")
    decoders: dict[CagedType, Versions]
    posture: Posture | None
    unavailable: str | None = Field(max_length=MAX_LOG)


class TaskEnd(_Message):
    """How the child that performed a task ended, as the warm process saw it, and what the child wrote, unread.

    `status` is the exit status, or the number of the signal that ended the child, negative. Each character of `answer`
    is a byte.
    """

    end: Literal["answered", "died", "time_limit", "answer_too_long", "not_caged", "not_forked"]
    status: int
    answer: str = Field(max_length=MAX_ANSWER)

    @classmethod
    def of(cls, message: bytes) -> Self:
        """The end that a warm process has sent: a line of JSON, then the answer. Raises ValueError."""
        line, _, answer = message.partition(b"\n")
        fields = from_json(line)
        if not isinstance(fields, dict):
            raise ValueError("not an object")
        return cls.model_validate(fields | {"answer": answer.decode("latin-1")})


class WorkerError(_Message):
    """Why the task failed. The message is used only if it is one of this program's sentences (see `failure`)."""

    code: WorkerCode
    message: str = Field(max_length=500)

    @property
    def failure(self) -> Failure:
        return Failure(self.code, sentence(self.code, self.message))


class Answer(_Message):
    """A child's answer to a task: a rendering, an error, or that there is no cheap preview."""

    task: str
    outcome: Literal["rendered", "no_preview", "failed"]
    rendering: Rendered | None
    error: WorkerError | None
    seconds: float = Field(ge=0, allow_inf_nan=False)
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
