"""The walls of the cage, in the order in which a process puts them up, each with a proof that it stands.

A proof is an attempt that must fail in a certain way: a kernel, or what imitates one, may accept a filter and not heed
it.
"""

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from . import landlock, libc, process_limits
from .seccomp import SeccompFilter

PRIVILEGES, LANDLOCK, LIMITS, SECCOMP = "privileges", "Landlock", "limits", "seccomp"
PR_GET_DUMPABLE = 3
AF_UNIX, SOCK_STREAM = 1, 1


class Wall(NamedTuple):
    name: str
    put_up: Callable[[], None]  # raises OSError
    prove: Callable[[], None]  # raises OSError


def walls(abi: int, seccomp_filter: SeccompFilter | None, file_bytes: int) -> tuple[Wall, ...]:
    """Those that can be tried with this ABI (0: no Landlock) and filter.

    Landlock comes before the limits, since it needs a descriptor for a moment, and seccomp at the end.
    """
    found = [
        Wall(PRIVILEGES, process_limits.drop_privileges, _not_dumpable),
        Wall(LANDLOCK, lambda: landlock.restrict(abi), _refuses_paths),
        Wall(LIMITS, lambda: process_limits.limit_files(0, file_bytes), _has_no_descriptors_left),
    ]
    if seccomp_filter:
        found.append(Wall(SECCOMP, seccomp_filter.load, _refuses_calls))
    return tuple(wall for wall in found if abi or wall.name != LANDLOCK)


def _not_dumpable() -> None:
    if libc.call("prctl", PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("accepted, but the process stays dumpable")


def _refuses_paths() -> None:
    _refused(errno.EACCES, "open", lambda: os.open("/", os.O_RDONLY))


def _has_no_descriptors_left() -> None:
    _refused(errno.EMFILE, "pipe", os.pipe)


def _refuses_calls() -> None:
    _refused(errno.EPERM, "socket", lambda: libc.call("socket", AF_UNIX, SOCK_STREAM, 0))
    _refused(errno.EACCES, "open", lambda: os.open("/", os.O_RDONLY))
    _refused(errno.EPERM, "kill", lambda: os.kill(os.getppid(), 0))
    os.kill(os.getpid(), 0)


def _refused(number: int, name: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except OSError as error:
        if error.errno == number:
            return
    raise OSError(f"accepted, but {name} is not refused")
