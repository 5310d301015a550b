"""What runs inside a worker: one task at a time from standard input, one line of JSON back for each.

`python -m imgsvc.jobs.lanes.worker PARENT NICE`. The lines are plain JSON, never pickles, and the service believes
none of them: see `lanes/messages` and `rendered_files`. A decoder's bug still gives a file this process's own rights,
which are those of the service's user.
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

from ...imaging.errors import OutOfMemory
from ...imaging.open import decoder_version
from .task import UNSAID, failed, perform

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
MEGABYTE = 1 << 20
OPEN_FILES = 64


def main() -> None:
    parent, niceness = int(sys.argv[1]), int(sys.argv[2])
    _tie_to(parent)
    _confine()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a codec prints goes to standard error
    os.nice(niceness)
    warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
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
    """Die with the service, and not from a Ctrl-C that the terminal sends to everybody.

    A process group, not a session, of its own: Linux shares the processor out among sessions first (autogroups), and
    between sessions niceness counts for nothing.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)  # it ended before the tie was made


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    with suppress(OSError):  # not Linux, or no /proc: the memory ceiling below still holds
        Path("/proc/self/oom_score_adj").write_text("1000")  # short of memory, the kernel takes a worker first


def _within_ceiling(task: dict[str, Any]) -> dict[str, Any]:
    """One task under its memory ceiling. A worker that has hit it is not trusted with another task."""
    try:
        _set_ceiling(task["memory_ceiling"])
        return perform(task)
    except MemoryError:
        limit = task["memory_ceiling"] // MEGABYTE
        error = OutOfMemory(f"Decoding needed more than the {limit} MB that this image may use.")
        return UNSAID | {"task": task["id"], "seconds": 0.0} | failed(error.code, str(error), retire=True)
    finally:
        _set_ceiling(None)
        _give_back_memory()


def _set_ceiling(extra_bytes: int | None) -> None:
    """Let the process's data grow by so much and no more (RLIMIT_DATA counts private anonymous memory)."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if extra_bytes is None else _data_bytes() + extra_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _give_back_memory() -> None:
    """What the allocator keeps of the last picture (tens of megabytes) would come on top of the next one's ceiling."""
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
