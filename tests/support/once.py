"""What one process of a run of the tests makes, and the others read."""

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

RUN = "PYTEST_XDIST_TESTRUNUID"  # without it the run has one process


def once(name: str, make: Callable[[], bytes]) -> bytes:
    """What `make` gives in the first process of this run that asks; the others wait for it.

    When `make` raises, the next process tries by itself.
    """
    run = os.environ.get(RUN)
    if run is None:
        return make()
    path = Path(tempfile.gettempdir()) / f"imgsvc-tests-{run}-{name}"
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = file.read()
        if not found:
            found = make()
            file.write(found)
        return found


def last_process() -> int:
    """The process that a run of the tests ends with: a worker of xdist is its child."""
    return os.getppid() if RUN in os.environ else os.getpid()


def forget() -> None:
    """Remove what this run has kept, at the end of each of its processes: one that goes on would make it again."""
    if run := os.environ.get(RUN):
        for path in Path(tempfile.gettempdir()).glob(f"imgsvc-tests-{run}-*"):
            path.unlink(missing_ok=True)
