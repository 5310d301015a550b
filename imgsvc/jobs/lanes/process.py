"""Lanes. Each is one worker process that does one task at a time and can be killed without affecting the others."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import structlog

from ..retry import Failure
from .cage import Posture
from .messages import Answer, Hello, Outcome, Started, Task
from .time_limit import TimeLimit
from .worker_handle import Launcher, Worker

log = structlog.get_logger()
EndReason = Literal["died", "died_idle", "killed", "retired", "time_limit", "unusable_answer"]

START_SECONDS = 60  # for a worker to start on a busy machine
# After the deadline, which the worker itself checks between steps and with every 64 KB that it decodes. Short for
# previews, since all of them share one lane.
KILL_AFTER_SECONDS = {"preview": 0.25, "render": 2.0}


class ProcessLane:
    """A lane of one local worker process: replaces the process when needed and interprets its end.

    `ended` is called with the reason for each worker that will be replaced. The lanes of a service share a launcher,
    which its owner closes.
    """

    def __init__(
        self,
        name: str,
        *,
        nice: int,
        jobs_per_process: int,
        ended: Callable[[EndReason], None] = lambda _reason: None,
        launcher: Launcher | None = None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.posture: Posture | None = None
        self._ended = ended
        self._launcher = launcher or Launcher()
        self._nice = nice
        self._jobs_per_process = jobs_per_process
        self._jobs_done = 0
        self._shut = self._killed = False
        self._worker: Worker | None = None
        self._warm = False  # the worker has sent its hello

    @property
    def alive(self) -> bool:
        return self._worker is not None and self._warm and self._worker.alive

    @property
    def pid(self) -> int | None:
        return self._worker.pid if self._worker else None

    @property
    def jobs_done(self) -> int:
        """Jobs that the current process has done."""
        return self._jobs_done

    async def start(self) -> None:
        """Make a worker ready. Raises OSError if that fails; no process is left behind then."""
        if self.alive and self._jobs_done < self._jobs_per_process:
            return
        if self._worker is not None and not self._shut:
            await self._end("retired" if self.alive else "died_idle")
        await self.close()
        if self._shut:
            raise ChildProcessError("the lane was shut")
        self._jobs_done = 0
        self._worker = await Worker.launch(self._launcher, self._nice)
        try:
            hello = await self._greeted(self._worker)
        except BaseException:
            await self.close()
            raise
        self._warm = True
        log.debug("worker_started", lane=self.name, pid=self.pid)
        if not hello.decoder.endswith(".post0"):
            log.warning("pillow_simd_missing", pillow=hello.decoder, effect="resizing is several times slower")

    async def _greeted(self, worker: Worker) -> Hello:
        """Read the worker's hello. Raises OSError after ending a worker that did not send it."""
        reason: EndReason
        try:
            with TimeLimit(START_SECONDS):
                if hello := await worker.read(Hello):
                    return hello
            reason, words = "died_idle", "the worker ended while it was starting"
        except TimeoutError:
            reason, words = "time_limit", f"the worker was not ready within {START_SECONDS} seconds"
        except ValueError:
            reason, words = "unusable_answer", "the worker wrote something else than its first line"
        if not self._shut:
            await self._end(reason)
        raise ChildProcessError(words)

    async def run(self, task: Task) -> Outcome:
        """Do one task. A worker's end is returned as a Failure; the next task gets a new worker."""
        self._killed = False
        for _ in range(2):
            try:
                await self.start()
            except OSError as error:
                log.error("worker_start_failed", lane=self.name, reason=str(error))
                return Failure("internal_error", "No worker process could be started.")
            limit = TimeLimit(task.time_limit + KILL_AFTER_SECONDS[task.kind])
            try:
                with limit:
                    answer = await self._ask(task)
            except TimeoutError:
                await self._end("time_limit")
                return Failure("timeout", f"Processing took longer than the limit of {task.time_limit:.0f} seconds.")
            except (OSError, ValueError) as error:
                return await self._unusable(task, error)
            except BaseException:
                self.kill()  # cancelled: the answer is not needed
                raise
            if answer is not None:
                outcome = await self._settle(task, answer)
                if isinstance(outcome, Failure) and outcome.code == "timeout" and limit.paused_seconds:
                    continue  # the machine was suspended, and the worker's clock continued
                return outcome
            # The worker died before it had read the task: not caused by the picture.
            await self._end("killed" if self._killed else "died_idle")
            if self._killed:
                return Failure("cancelled", "The task was ended before it began.")
        return Failure("internal_error", "No worker process stayed alive to take this image.")

    async def _ask(self, task: Task) -> Answer | Failure | None:
        """Return the answer, a Failure if the task killed the worker, None if it was dead before. Raises ValueError."""
        assert self._worker
        if not await self._worker.write(json.dumps(asdict(task)).encode()):
            return None
        started = await self._worker.read(Started)
        if started is None:
            return None
        answer = await self._worker.read(Answer)
        if answer is None:
            return Failure("worker_crashed", "The worker process died while it processed this image.", death=True)
        if {started.started, answer.task} != {task.id}:
            raise ValueError("the answer is another task's")
        if answer.outcome == "no_preview" and task.kind != "preview":
            raise ValueError("only a preview may be left out")
        return answer

    async def _unusable(self, task: Task, error: Exception) -> Failure:
        reason = type(error).__name__ if isinstance(error, ValueError) else str(error)  # never text from a worker
        log.warning("worker_answer_invalid", lane=self.name, reason=reason, trace_id=task.trace_id)
        await self._end("unusable_answer")
        return Failure("worker_crashed", "The worker process broke while it processed this image.", death=True)

    async def _settle(self, task: Task, answer: Answer | Failure) -> Outcome:
        if isinstance(answer, Failure):
            await self._end("killed" if self._killed else "died")
            return answer
        self._jobs_done += 1
        if answer.log:
            reason = answer.quoted_log
            log.error("worker_error", lane=self.name, trace_id=task.trace_id, job_id=task.job_id, reason=reason)
        if answer.retire:
            await self._end("retired")
        return answer.result

    async def _end(self, reason: EndReason) -> None:
        self.restarts += 1
        self._ended(reason)
        log.info("worker_ended", lane=self.name, pid=self.pid, reason=reason)
        await self.close()

    def kill(self) -> None:
        """End the worker now. Its task, if any, is returned as a Failure and is not restarted."""
        self._killed = True
        if self._worker is not None:
            self._worker.kill()

    def shut(self) -> None:
        """End the worker and accept no further task: the service is stopping."""
        self._shut = True
        self.kill()

    async def close(self) -> None:
        """End the worker, if there is one, and wait for its end."""
        worker, self._worker, self._warm = self._worker, None, False
        if worker is not None:
            await worker.close()
