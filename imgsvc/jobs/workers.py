"""Lanes: each is one worker process that does one task at a time and can be killed without anybody else noticing.

Our own child with pipes rather than a process pool: it starts with an environment of ours (a pool's spawn inherits all
secrets), speaks JSON (a pool unpickles whatever a taken-over worker sends), never runs the caller's main module, and
lives as long as the loop's thread, which `PR_SET_PDEATHSIG` needs.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import anyio
import structlog
from pydantic import BaseModel, ConfigDict, Field

from .retry import Failure

log = structlog.get_logger()
EndReason = Literal["died", "died_idle", "killed", "retired", "time_limit", "unusable_answer"]

START_SECONDS = 60  # for a worker to come up on a box that is busy
# Past the deadline that the worker checks between two steps and with every 64 KB that it decodes; everybody's
# thumbnails wait for a preview.
KILL_AFTER_SECONDS = {"preview": 0.25, "render": 2.0}
MAX_LINE = 1 << 20  # bytes of one answer
LONGEST_SECONDS = 86_400  # that a worker may say one variant took
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX")


@dataclass(frozen=True, slots=True)
class Task:
    """One rendering to do. Paths are absolute, the time limit is in seconds, the ceiling in bytes."""

    kind: Literal["preview", "render"]
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


class VariantMade(BaseModel):
    """What a worker says it wrote; checked, since the worker may not be ours any more."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    width: int = Field(ge=1, le=16_383)
    height: int = Field(ge=1, le=16_383)
    size_bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    format: Literal["webp"]
    seconds: float = Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)


class Rendered(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(ge=0)
    height: int = Field(ge=0)
    dominant_colour: str = Field(pattern=r"^(#[0-9a-f]{6})?$")
    frames: int = Field(ge=1)
    variants: tuple[VariantMade, ...]


class _Error(BaseModel):
    code: str = Field(pattern=r"^[a-z_]{1,40}$")
    message: str = Field(max_length=500)


class Answer(BaseModel):
    """The worker's last word on a task: a rendering (None: no cheap preview) or an error."""

    rendering: Rendered | None = None
    error: _Error | None = None
    seconds: float = 0
    retire: bool = False
    log: str | None = None

    @property
    def outcome(self) -> "Outcome":
        return Failure(self.error.code, self.error.message) if self.error else self.rendering


Outcome = Rendered | Failure | None


class Lane(Protocol):
    """Something that renders one task at a time. A Dask client could stand here."""

    name: str

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


class ProcessLane:
    """`ended` is told of each worker that another will replace, and why."""

    def __init__(
        self,
        name: str,
        *,
        nice: int,
        jobs_per_process: int,
        ended: Callable[[EndReason], None] = lambda _reason: None,
    ) -> None:
        self.name = name
        self._ended = ended
        self.restarts = 0
        self._nice = nice
        self._jobs_per_process = jobs_per_process
        self._jobs_done = 0
        self._shut = self._killed = False
        self._process: asyncio.subprocess.Process | None = None
        self._pidfd: int | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def jobs_done(self) -> int:
        """By the present process."""
        return self._jobs_done

    async def start(self) -> None:
        """Have a worker that is warm. Raises OSError or TimeoutError when none comes up."""
        if self.alive and self._jobs_done < self._jobs_per_process:
            return
        if self._process is not None and not self._shut:
            await self._end("retired" if self.alive else "died_idle")
        await self.close()
        if self._shut:
            raise ChildProcessError("the lane was shut")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            f"{__package__}.worker_process",
            str(os.getpid()),
            str(self._nice),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            limit=MAX_LINE,
        )
        self._jobs_done = 0
        with suppress(AttributeError, OSError):  # no pidfd outside Linux
            self._pidfd = os.pidfd_open(self._process.pid)
        with anyio.fail_after(START_SECONDS):
            ready = await self._read()
        if ready is None:
            raise ChildProcessError("the worker ended while it was starting")
        log.debug("worker_started", lane=self.name, pid=self.pid)
        if not str(ready.get("decoder", "")).endswith(".post0"):
            log.warning("pillow_simd_missing", pillow=ready.get("decoder"), effect="resizing is several times slower")

    async def run(self, task: Task) -> Outcome:
        """Do one task. Whatever happens to the worker comes back as a Failure; the next task gets a fresh one."""
        self._killed = False
        for _ in range(2):
            try:
                await self.start()
            except (OSError, TimeoutError) as error:
                log.error("worker_start_failed", lane=self.name, reason=str(error))
                return Failure("internal_error", "No worker process could be started.")
            try:
                with anyio.fail_after(task.time_limit + KILL_AFTER_SECONDS[task.kind]):
                    answer = await self._ask(task)
            except TimeoutError:
                await self._end("time_limit")
                return Failure("timeout", f"Processing took longer than the limit of {task.time_limit:.0f} seconds.")
            except (OSError, ValueError) as error:
                log.warning("worker_answer_unusable", lane=self.name, reason=str(error), trace_id=task.trace_id)
                await self._end("unusable_answer")
                return Failure("worker_crashed", "The worker process broke while it processed this image.", death=True)
            except BaseException:
                self.kill()  # cancelled: nobody will read the answer
                raise
            if answer is not None:
                return await self._settle(task, answer)
            # Before it had seen the task: not the picture's doing.
            await self._end("killed" if self._killed else "died_idle")
            if self._killed:
                return Failure("cancelled", "The task was ended before it began.")
        return Failure("internal_error", "No worker process stayed alive to take this image.")

    async def _ask(self, task: Task) -> Answer | Failure | None:
        """The worker's answer, a Failure if it died of the task, None if it was dead before."""
        assert self._process and self._process.stdin
        try:
            self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return None
        if await self._read() is None:
            return None
        message = await self._read()
        if message is None:
            return Failure("worker_crashed", "The worker process died while it processed this image.", death=True)
        return Answer.model_validate(message)

    async def _settle(self, task: Task, answer: Answer | Failure) -> Outcome:
        if isinstance(answer, Failure):
            await self._end("killed" if self._killed else "died")
            return answer
        self._jobs_done += 1
        if answer.log:
            log.error("worker_error", lane=self.name, trace_id=task.trace_id, job_id=task.job_id, reason=answer.log)
        if answer.retire:
            await self._end("retired")
        return answer.outcome

    async def _read(self) -> dict[str, Any] | None:
        """One line from the worker, or None at its end. Raises ValueError for a line that is not a JSON object."""
        assert self._process and self._process.stdout
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("not an object")
        return message

    async def _end(self, reason: EndReason) -> None:
        self.restarts += 1
        self._ended(reason)
        log.info("worker_ended", lane=self.name, pid=self.pid, reason=reason)
        await self.close()

    def kill(self) -> None:
        """End the worker now. Its task, if it has one, comes back as a Failure and is not begun again."""
        self._killed = True
        self._end_process()

    def _end_process(self) -> None:
        with suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # never a pid that was given to another
            elif self._process:
                self._process.kill()

    def shut(self) -> None:
        """End the worker and take no further task: the service is stopping."""
        self._shut = True
        self.kill()

    async def close(self) -> None:
        if self._process is None:
            return
        with anyio.CancelScope(shield=True):
            self._end_process()
            if self._process.stdin:
                self._process.stdin.close()
            await self._process.wait()
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._process = self._pidfd = None


def _environment() -> dict[str, str]:
    """Nothing that a picture's decoder has any business with, above all no secret."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path and Path(path).exists())}
