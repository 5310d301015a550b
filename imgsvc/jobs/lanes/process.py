"""Lanes. Each is one warm worker process with a child for one task at a time, killed without affecting the others."""

from collections.abc import Callable, Mapping
from typing import Literal

import structlog

from ..failures import CRASHED, IO_ERROR, SOURCE_MISSING
from ..retry import Failure
from .cage import Mode, Posture, in_words
from .files import SourceGone, needs_optional_codecs
from .messages import Answer, Hello, Outcome, Task, TaskEnd
from .pool import Launcher, Pool
from .time_limit import TimeLimit

log = structlog.get_logger()
EndReason = Literal["died", "died_idle", "killed", "retired", "time_limit", "unusable_answer"]

START_SECONDS = 60  # for a worker to start on a busy machine
# After the deadline, which the child itself checks between steps and with every 64 KB that it decodes. Short for
# previews, since all of them share one lane.
KILL_AFTER_SECONDS = {"preview": 0.25, "render": 2.0}
LOAD_SECONDS = 10.0  # for the warm process to load the optional codecs, which is not the picture's time
REPORT_SECONDS = 0.5  # for the warm process to report that it ended its child; then both are killed
NOT_BEGUN = Failure("cancelled", "The task was ended before it began.")
NO_PROCESS = Failure("internal_error", "No worker process could be started.")
NONE_STAYED = Failure("internal_error", "No worker process stayed alive to take this image.")
DIED = Failure("worker_crashed", "The worker process died while it processed this image.", death=True)


class Again(Exception):
    """The task was not begun, or the machine was suspended: not caused by the picture."""


class ProcessLane:
    """A lane of local processes: replaces the warm process when needed and interprets the end of each process.

    `ended` is called with the reason for each process that did not end by itself with an answer. The lanes of a service
    share a launcher, which its owner closes.
    """

    local = True

    def __init__(
        self,
        name: str,
        *,
        nice: int,
        jobs_per_process: int,
        cage: Mode = "best",
        ended: Callable[[EndReason], None] = lambda _reason: None,
        launcher: Launcher | None = None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.posture: Posture | None = None  # of the cage, once a warm process has reported it
        self.decoders: Mapping[str, str] = {}  # those of the cage, by MIME type, with their versions
        self._cage = cage
        self._ended = ended
        self._launcher = launcher or Launcher()
        self._nice = nice
        self._jobs_per_process = jobs_per_process
        self._jobs_done = 0
        self._shut = self._killed = False
        self._pool: Pool | None = None
        self._warm = False  # the warm process has sent its hello

    @property
    def alive(self) -> bool:
        return self._pool is not None and self._warm and self._pool.alive

    @property
    def pid(self) -> int | None:
        """Of the warm process."""
        return self._pool.pid if self._pool else None

    @property
    def jobs_done(self) -> int:
        """Jobs that the current warm process has done."""
        return self._jobs_done

    async def start(self) -> None:
        """Make a warm process ready. Raises OSError if that fails; no process is left behind then."""
        if self.alive and self._jobs_done < self._jobs_per_process:
            return
        if self._pool is not None and not self._shut:
            await self._end("retired" if self.alive else "died_idle")
        await self.close()
        if self._shut:
            raise ChildProcessError("the lane was shut")
        self._jobs_done = 0
        self._pool = await self._launcher.launch(self._nice, self._cage)
        try:
            if self._shut:  # meanwhile
                raise ChildProcessError("the lane was shut")
            hello = await self._greeted(self._pool)
            if hello.posture is None:
                raise ChildProcessError(f"[workers] cage is require, but {hello.unavailable}")
        except BaseException:
            await self.close()
            raise
        self._warm, self.posture, self.decoders = True, hello.posture, hello.decoders
        log.debug("worker_started", lane=self.name, pid=self.pid, cage=in_words(hello.posture))
        if not hello.decoder.endswith(".post0"):
            log.warning("pillow_simd_missing", pillow=hello.decoder, effect="resizing is several times slower")

    async def _greeted(self, pool: Pool) -> Hello:
        """Wait for the warm process's hello. Raises OSError after ending one that did not send it."""
        reason: EndReason
        try:
            with TimeLimit(START_SECONDS):
                if hello := await pool.hello():
                    return hello
            reason, words = "died_idle", "the worker ended while it was starting"
        except TimeoutError:
            reason, words = "time_limit", f"the worker was not ready within {START_SECONDS} seconds"
        except ValueError:
            reason, words = "unusable_answer", "the worker wrote something else than its first message"
        if not self._shut:
            await self._end(reason)
        raise ChildProcessError(words)

    async def run(self, task: Task) -> Outcome:
        """Do one task. The end of a process is returned as a Failure; the next task gets a new one."""
        self._killed = False
        for _ in range(2):
            try:
                await self.start()
                if self._killed:  # while the process was being launched: there was nothing to kill then
                    return NOT_BEGUN
                return await self._attempt(task)
            except Again:
                if self._killed:
                    return NOT_BEGUN
            except OSError as error:
                log.error("worker_start_failed", lane=self.name, reason=str(error))
                return NO_PROCESS
        return NONE_STAYED

    async def _attempt(self, task: Task) -> Outcome:
        """Do one task with the pool that is there. Raises Again."""
        assert self._pool
        seconds = task.time_limit + KILL_AFTER_SECONDS[task.kind]
        optional_codecs = needs_optional_codecs(task)
        limit = TimeLimit(seconds + (LOAD_SECONDS if optional_codecs else 0) + REPORT_SECONDS)
        try:
            await self._pool.send(task, seconds, optional_codecs=optional_codecs)
        except SourceGone:
            return SOURCE_MISSING
        except OSError as error:
            log.error("io_error", lane=self.name, trace_id=task.trace_id, reason=error.strerror)
            return IO_ERROR
        except BaseException:
            self.kill()  # cancelled: the task is not needed
            raise
        try:
            with limit:
                end = await self._pool.end_of_task()
        except TimeoutError:
            await self._end("time_limit")
            return timed_out(task)
        except ValueError as error:
            self._warn_unusable(task, error)
            await self._end("unusable_answer")
            return CRASHED
        except BaseException:
            self.kill()  # cancelled: the answer is not needed
            raise
        outcome = await self._settle(task, end)
        if isinstance(outcome, Failure) and outcome.code == "timeout" and limit.paused_seconds:
            raise Again  # the clock of the child, and of the warm process, continued
        return outcome

    async def _settle(self, task: Task, end: TaskEnd | None) -> Outcome:
        """What the end of a task means. Raises Again if it did not begin."""
        if end is None:
            assert self._pool
            begun = self._pool.has_begun()
            await self._end("killed" if self._killed else "died" if begun else "died_idle")
            if not begun:
                raise Again
            return DIED
        if end.end in ("not_caged", "not_forked"):
            log.error("child_not_started", lane=self.name, pid=self.pid, reason=end.end)
            await self._end("died_idle")
            raise Again
        self._jobs_done += 1
        return self._outcome(task, end)

    def _outcome(self, task: Task, end: TaskEnd) -> Outcome:
        if end.end == "answered":
            try:
                answer = _answer(task, end)
            except ValueError as error:
                self._warn_unusable(task, error)
                self._count("unusable_answer")
                return CRASHED
            if answer.log:
                reason = answer.quoted_log
                log.error("worker_error", lane=self.name, trace_id=task.trace_id, job_id=task.job_id, reason=reason)
            return answer.result
        if end.end == "time_limit":
            self._count("time_limit")
            return timed_out(task)
        if end.end == "answer_too_long":
            self._count("unusable_answer")
            return CRASHED
        self._count("killed" if self._killed else "died", status=end.status)
        return DIED

    def _warn_unusable(self, task: Task, error: ValueError) -> None:
        reason = type(error).__name__  # never text from a worker
        log.warning("worker_answer_invalid", lane=self.name, reason=reason, trace_id=task.trace_id)

    async def _end(self, reason: EndReason) -> None:
        """End the warm process, which will be replaced."""
        self._count(reason)
        await self.close()

    def _count(self, reason: EndReason, **more: int) -> None:
        """Count the end of a process, the warm one or the child of a task."""
        self.restarts += 1
        self._ended(reason)
        log.info("worker_ended", lane=self.name, pid=self.pid, reason=reason, **more)

    def kill(self) -> None:
        """End the worker now. Its task, if any, is returned as a Failure and is not restarted."""
        self._killed = True
        if self._pool is not None:
            self._pool.kill()

    def shut(self) -> None:
        """End the worker and accept no further task: the service is stopping."""
        self._shut = True
        self.kill()

    async def close(self) -> None:
        """End the worker, if there is one, and wait for its end."""
        pool, self._pool, self._warm = self._pool, None, False
        if pool is not None:
            await pool.close()


def _answer(task: Task, end: TaskEnd) -> Answer:
    """The answer of a task's child. Raises ValueError for anything else."""
    answer = Answer.model_validate_json(end.answer)
    if answer.task != task.id:
        raise ValueError("the answer is another task's")
    if answer.outcome == "no_preview" and task.kind != "preview":
        raise ValueError("only a preview may be left out")
    return answer


def timed_out(task: Task) -> Failure:
    return Failure("timeout", f"Processing took longer than the limit of {task.time_limit:.0f} seconds.")
