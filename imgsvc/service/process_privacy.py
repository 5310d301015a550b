"""Protects a process's secrets from other processes of the same user, above all from workers taken over by a file.

A variable that is deleted from `os.environ` stays in the block that the kernel shows as /proc/PID/environ: that is the
memory the program was started with. In addition, any process of the same user may read another's memory, or trace it,
unless that process is marked as not dumpable (prctl(2), PR_SET_DUMPABLE; ptrace(2), "Ptrace access mode checking").
"""

import ctypes
import os
import re
import sys
from pathlib import Path

import structlog

log = structlog.get_logger()
PR_SET_DUMPABLE = 4
ENVIRONMENT_START, ENVIRONMENT_END = 49, 50  # of /proc/self/stat, counted from 0: env_start and env_end (proc(5))


def keep_only(kept: re.Pattern[str]) -> None:
    """Keep only these variables in the environment, and none in the block that the kernel shows.

    Call before there are threads: the C library's environment is replaced.
    """
    values = {name: value for name, value in os.environ.items() if kept.fullmatch(name)}
    for name in list(os.environ):
        del os.environ[name]
    os.environ.update(values)  # setenv(3) makes copies, so none points into the kernel's block any more
    try:
        _wipe_block()
    except (OSError, ValueError, IndexError) as error:  # not Linux, or no /proc: then there is no such block
        log.debug("environment_not_cleared", reason=str(error))


def _wipe_block() -> None:
    # The second field is the program's name in parentheses, which may hold anything.
    fields = ["", "", *Path("/proc/self/stat").read_text().rpartition(")")[2].split()]
    start, end = int(fields[ENVIRONMENT_START]), int(fields[ENVIRONMENT_END])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def deny_tracing() -> None:
    """Keep other processes of this user from reading this one's memory or tracing it. Does not apply to children."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("process_stays_dumpable", errno=ctypes.get_errno())
