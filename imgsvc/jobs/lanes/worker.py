"""The worker process: reads tasks from standard input, one at a time, and writes JSON lines to standard output.

`python -m imgsvc.jobs.lanes.worker PARENT NICE`. The service validates every line and every file (`lanes/messages`,
`rendered_files`). A decoder's bug still gives a file the rights of this process, which are those of the service's
user.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...imaging.decoder import decoder_version
from ...imaging.errors import OutOfMemory
from ...imaging.limits import MEGABYTE
from .task import EMPTY, failed, perform

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
OPEN_FILES = 64


def main() -> None:
    parent, niceness = int(sys.argv[1]), int(sys.argv[2])
    _tie_to(parent)
    _confine()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # anything that a codec prints goes to standard error
    os.nice(niceness)
    warnings.simplefilter("ignore")  # Pillow's warnings about damaged metadata
    _say(answers, ready=os.getpid(), decoder=decoder_version())
    for line in sys.stdin:
        task = json.loads(line)
        _say(answers, started=task["id"])
        answer = _within_ceiling(task)
        _say(answers, **answer)
        if answer["retire"]:
            return


def _say(answers: Any, **message: Any) -> None:
    answers.write(json.dumps(message) + "\n")


def _tie_to(parent: int) -> None:
    """End with the service (prctl(2), PR_SET_PDEATHSIG), and ignore a Ctrl-C, which a terminal sends to all processes.

    The worker gets its own process group but not its own session: Linux divides the processor among sessions first
    (autogroups), and niceness has no effect between sessions.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)  # the service ended before PR_SET_PDEATHSIG was set


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    with suppress(OSError):  # not Linux, or no /proc: the memory ceiling below still holds
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, the kernel kills a worker first


def _within_ceiling(task: dict[str, Any]) -> dict[str, Any]:
    """Perform one task under its memory ceiling. A worker that reached the ceiling gets no further task."""
    try:
        _set_ceiling(task["memory_ceiling"])
        return perform(task)
    except MemoryError:
        limit = task["memory_ceiling"] // MEGABYTE
        error = OutOfMemory(f"Decoding needed more than the {limit} MB that this image may use.")
        return EMPTY | {"task": task["id"], "seconds": 0.0} | failed(error.code, str(error), retire=True)
    finally:
        _set_ceiling(None)
        _give_back_memory()


def _set_ceiling(extra_bytes: int | None) -> None:
    """Let the process's data grow by this many bytes (RLIMIT_DATA counts private anonymous memory)."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if extra_bytes is None else _data_bytes() + extra_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _give_back_memory() -> None:
    """Return freed memory to the system: tens of megabytes of the last picture would count against the next ceiling."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _data_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, ValueError, IndexError):
        return 256 * MEGABYTE
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
