"""A context for `concurrent.futures.ProcessPoolExecutor(max_workers=1)` whose worker is not trusted.

The pool of the standard library unpickles what its worker sends, hands the environment on, runs the caller's main
module again, keeps semaphores in /dev/shm and a process that tracks them, ends a worker by a signal that it may ignore,
and waits forever for the rest of a result whose sender died. This context replaces the parts that do so:

    context = WorkerContext(environment)
    pool = worker_pool(context, initializer, arguments)

Results are JSON of bounded length, so a task must return what JSON has. The parent still pickles tasks for the worker.

The standard library documents `mp_context` but not what the pool asks of one. All that is relied upon stands in this
module; `tests/jobs/lanes/test_spawn_context.py` names what a newer Python asks in addition. As of Python 3.11 to 3.13:

- of the context: `get_start_method`, `SimpleQueue`, `Lock`, `BoundedSemaphore` (for multiprocessing.queues.Queue,
  which carries the tasks), `Process`;
- of the queue of results: `put` in the worker; `_reader`, which is waited for and whose `recv` is called; `close`;
- of a result: `work_id`, `exception`, `result`, `exit_pid`;
- of a process: `start`, `pid`, `sentinel`, `is_alive`, `terminate`, `join`;
- of a semaphore: what a context manager has, `acquire`, `release`, and `_semlock._is_zero`;
- `set_spawning_popen` and `ForkingPickler` of multiprocessing, which ask the object that spawns for
  `duplicate_for_child` and `DupFd`.

Only the standard library is imported here: a worker starts by importing this module.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import connection, context
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

from ...lazy_dataclass import dataclass

MAX_RESULT = 1 << 20  # bytes of one result
# Without the collector of cycles until the initializer turns it on: what a start loads stays.
WORKER = f"import gc; gc.disable(); from {__name__} import work; work()"


class TaskError(Exception):
    """A task raised an exception in the worker. The message is the worker's and not to be trusted."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the pool reads of an item in its queue of results."""

    work_id: int
    result: Any
    exception: TaskError | None
    exit_pid: None = None  # the worker goes on


class ResultReader(connection.Connection):
    """The parent's end of the results. `unusable` says that the worker sent something else than a result."""

    unusable = False

    def recv(self) -> Result:
        """Read one result. Raises EOFError at the worker's end, ValueError or OSError for what is no result."""
        try:
            return self._result()
        except EOFError:
            raise
        except BaseException:
            self.unusable = True
            raise

    def _result(self) -> Result:
        found = json.loads(self.recv_bytes(MAX_RESULT))
        match found:
            case {"work_id": int(work_id), "result": result, "error": None}:
                return Result(work_id, result, None)
            case {"work_id": int(work_id), "error": str(error)}:
                return Result(work_id, None, TaskError(error))
        raise ValueError("not a result")


class Results:
    """The queue of results: `put` is used in the worker, the rest in the parent."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self._reader = ResultReader(reading, writable=False)
        self._writer = connection.Connection(writing, readable=False)

    def put(self, item: Any) -> None:
        if isinstance(item, int):  # the worker was asked to end, and says so by ending
            return
        error = None if item.exception is None else type(item.exception.exc).__name__
        self._writer.send_bytes(json.dumps({"work_id": item.work_id, "result": item.result, "error": error}).encode())

    @property
    def unusable(self) -> bool:
        return self._reader.unusable

    def close_writer(self) -> None:
        """Close the parent's copy of the worker's end: with it open, half a result of a dead worker has no end."""
        self._writer.close()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def __getstate__(self) -> connection.Connection:
        context.assert_spawning(self)
        return self._writer

    def __setstate__(self, writer: connection.Connection) -> None:
        self._writer = writer


class NoLock:
    """In the place of a lock or semaphore: one worker has one task at a time, and one thread writes tasks to it."""

    @property
    def _semlock(self) -> "NoLock":
        return self

    def _is_zero(self) -> bool:
        return False

    def acquire(self, *_how_long: object) -> bool:
        return True

    def release(self) -> None:
        return

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_error: object) -> None:
        return


class InheritedDescriptor:
    """A descriptor as it is pickled for the worker, in which it has the same number."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def detach(self) -> int:
        return self._descriptor


class WorkerProcess:
    """The worker's process, as the pool sees it."""

    DupFd = InheritedDescriptor

    def __init__(
        self, environment: Mapping[str, str], results: Results, target: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self._environment = environment
        self._results = results
        self._work = target, arguments
        self._inherited: list[int] = []
        self._ended = False
        self.started = False
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Launch the process and pass its work to it. Raises OSError."""
        context.set_spawning_popen(cast(Any, self))
        try:
            # A copy: what it returns is a view of a buffer, and Python 3.13 warns if both go in one collection.
            work = bytes(ForkingPickler.dumps(self._work))
        finally:
            context.set_spawning_popen(None)
        self._process = subprocess.Popen(  # noqa: S603, our own interpreter and module
            (sys.executable, "-P", "-c", WORKER),
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=self._inherited,
        )
        self.pid = self._process.pid
        try:
            self.sentinel = os.pidfd_open(self.pid)  # readable once the process has ended
        except OSError:
            self._process.kill()
            self._process.communicate()
            raise
        self.started = True
        self._results.close_writer()
        assert self._process.stdin
        with suppress(BrokenPipeError), self._process.stdin as stream:  # it ended at once, which the sentinel says
            stream.write(work)

    def duplicate_for_child(self, descriptor: int) -> int:
        self._inherited.append(descriptor)
        return descriptor

    def is_alive(self) -> bool:
        return not self._ended and self._process.poll() is None

    def terminate(self) -> None:
        """Kill the process at once: a worker may ignore every other signal."""
        self._ended = True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.sentinel, signal.SIGKILL)  # never a pid that the system has reused

    def join(self) -> None:
        self._process.wait()

    def close(self) -> None:
        """Release the sentinel. The process has ended, and the pool is shut down."""
        os.close(self.sentinel)


class WorkerContext:
    """What the pool calls its multiprocessing context. Good for one worker, which gets this environment alone."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.results = Results()
        self._environment = environment
        self._process: WorkerProcess | None = None

    @property
    def process(self) -> WorkerProcess | None:
        """The worker's process; None before it is launched, or if that failed."""
        return self._process if self._process and self._process.started else None

    def get_start_method(self, **_options: object) -> str:
        return "spawn"

    def SimpleQueue(self) -> Results:  # noqa: N802, the standard library's name, as are the following
        return self.results

    def Lock(self) -> NoLock:  # noqa: N802
        return NoLock()

    def BoundedSemaphore(self, _value: int = 1) -> NoLock:  # noqa: N802
        return NoLock()

    def Process(self, *, target: Callable[..., None], args: tuple[Any, ...]) -> WorkerProcess:  # noqa: N802
        if self._process is not None:
            raise OSError("the worker has ended")
        self._process = WorkerProcess(self._environment, self.results, target, args)
        return self._process


def worker_pool(
    context: WorkerContext, initializer: Callable[..., None], arguments: tuple[Any, ...]
) -> ProcessPoolExecutor:
    """A pool of one worker, which is launched with the first task, in the thread that submits it."""
    return ProcessPoolExecutor(1, cast(Any, context), initializer=initializer, initargs=arguments)


def work() -> None:
    """Do the work that the parent pickled: the main function of a worker."""
    target, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301, written by the parent
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    target(*arguments)
