"""What the standard library's process pool asks of a context, and whether the one of ours gives it what it needs.

    python -c "from tests.jobs.lanes import standard_pool; standard_pool.main()"

needs the standard library alone, so that any Python can be asked. It prints a sentence for each thing that is not as
`spawn_context` says, and nothing else.
"""

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgsvc.jobs.lanes import spawn_context
from imgsvc.jobs.lanes.spawn_context import MAX_RESULT, TaskError, WorkerContext, worker_pool

SECONDS = 60
HERE = str(Path.cwd())
ASKED = {
    "context": {"get_start_method", "SimpleQueue", "Lock", "BoundedSemaphore", "Process"},
    "queue of results": {"_reader", "close"},
    "result": {"work_id", "exception", "result", "exit_pid"},
    "process": {"start", "pid", "sentinel", "is_alive", "terminate", "join", "duplicate_for_child", "DupFd"},
    "semaphore": {"acquire", "release", "_semlock", "_is_zero"},
}
CLASSES: dict[str, type] = {
    "context": WorkerContext,
    "queue of results": spawn_context.Results,
    "result": spawn_context.Result,
    "process": spawn_context.WorkerProcess,
    "semaphore": spawn_context.NoLock,
}
asked: dict[str, set[str]] = defaultdict(set)


def main() -> None:
    for thing, kind in CLASSES.items():
        note(thing, kind)
    for check in (results_come_back, unusable_results_break_the_pool, dead_worker_breaks_the_pool, no_secret_arrives):
        for words in check():
            print(words)
    for thing, names in ASKED.items():
        if more := asked[thing] - names:
            print(f"The pool now also asks its {thing} for {sorted(more)}: spawn_context must have it, and say so.")
        if fewer := names - asked[thing]:
            print(f"The pool no longer asks its {thing} for {sorted(fewer)}: remove it from spawn_context.")


def note(thing: str, kind: Any) -> None:
    """Note the attributes of this class that the standard library reads."""
    plain = kind.__getattribute__

    def noted(self: object, name: str) -> Any:
        reader = sys._getframe(1).f_globals.get("__name__", "")
        if reader.startswith(("concurrent.futures", "multiprocessing")) and not name.startswith("__"):
            asked[thing].add(name)
        return plain(self, name)

    kind.__getattribute__ = noted


def initialize(name: str, value: str) -> None:
    os.environ[name] = value


def environment() -> dict[str, str]:
    return dict(os.environ)


def fail() -> None:
    raise KeyError("of the worker")


def much() -> str:
    return "x" * MAX_RESULT


@contextmanager
def pool() -> Iterator[tuple[ProcessPoolExecutor, WorkerContext]]:
    context = WorkerContext({"PATH": os.environ["PATH"], "PYTHONPATH": HERE})
    executor = worker_pool(context, initialize, ("SET", "by the initializer"))
    try:
        yield executor, context
    finally:
        executor.shutdown()
        if context.process:
            context.process.close()


def ended(future: "Future[Any]") -> object:
    """The result, or the exception."""
    return future.exception(SECONDS) or future.result()


def results_come_back() -> Iterator[str]:
    with pool() as (executor, _):
        if ended(executor.submit(divmod, 7, 2)) != [3, 1]:
            yield "A result no longer comes back as what JSON makes of it."
        if not isinstance(ended(executor.submit(fail)), TaskError):
            yield "An exception of a task no longer comes back as TaskError."
        if ended(executor.submit(divmod, 9, 2)) != [4, 1]:
            yield "The worker no longer goes on after an exception."


def unusable_results_break_the_pool() -> Iterator[str]:
    with pool() as (executor, context):
        found = ended(executor.submit(much))
        if not (isinstance(found, BrokenProcessPool) and context.results.unusable):
            yield f"A result that is too long no longer breaks the pool: {type(found).__name__}."


def dead_worker_breaks_the_pool() -> Iterator[str]:
    with pool() as (executor, context):
        executor.submit(divmod, 7, 2).result(SECONDS)
        future = executor.submit(time.sleep, SECONDS)
        assert context.process
        os.kill(context.process.pid, signal.SIGKILL)
        found = ended(future)
        if not isinstance(found, BrokenProcessPool) or context.results.unusable:
            yield f"The death of a worker is no longer noticed as such: {type(found).__name__}."


def no_secret_arrives() -> Iterator[str]:
    os.environ["SECRET"] = "of the service"
    with pool() as (executor, context):
        found = ended(executor.submit(environment))
        given = {"PATH": os.environ["PATH"], "PYTHONPATH": HERE, "SET": "by the initializer"}
        if found != given | locale(found):
            yield "The worker's environment is no longer the given one alone."
        mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        if context.process and mine != [str(context.process.pid)]:
            yield "There is another process beside the worker."


def locale(found: Any) -> dict[str, str]:
    """What Python itself sets where no locale is given (PEP 538)."""
    return {"LC_CTYPE": found["LC_CTYPE"]} if "LC_CTYPE" in found else {}
