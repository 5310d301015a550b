"""The cage of the gateway: it unpickles what workers send, so code of theirs may run in it.

Entered once everything is imported and the certificates are read: afterwards the process opens no file, starts no
program, connects to no port but the scheduler's, and no other process can look into it.
"""

import errno
import os
import resource
import socket
from collections.abc import Callable
from typing import Literal

from ..lanes import landlock, process_limits
from ..lanes.seccomp import SeccompFilter

OPEN_FILES = 64
GROWTH_BYTES = 1 << 30  # some thousand tickets and the list of machines take a fraction of that
Walls = tuple[str, str]  # in force, and missing, in words


def enter(port: int, mode: Literal["require", "best", "off"]) -> Walls:
    """Confine this process, which has one thread. `port`: the scheduler's. Raises OSError if `require` can't be met."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    if mode == "off":
        return "nothing", ""
    in_force, missing = [], []
    ready: SeccompFilter | None = None
    try:
        ready = SeccompFilter.build(connects=True)  # before Landlock, which keeps the library from being opened
    except OSError as error:
        missing.append(f"seccomp: {error.strerror}")
    walls: tuple[tuple[str, Callable[[], str]], ...] = (("Landlock", lambda: _landlock(port)),)
    if ready is not None:
        walls += (("seccomp", lambda: _seccomp(ready)),)
    for name, put_up in walls:
        try:
            in_force.append(put_up())
        except OSError as error:
            missing.append(f"{name}: {error.strerror}")
    if mode == "require" and missing:
        raise OSError(errno.EPERM, "; ".join(missing))
    return ", ".join(in_force) or "nothing", "; ".join(missing)


def _landlock(port: int) -> str:
    process_limits.drop_privileges()
    process_limits.limit_growth(GROWTH_BYTES, shared=False)
    abi = landlock.usable_abi()
    if abi == 0:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock, or it is not enabled at boot")
    landlock.restrict(abi, port)
    _refused("open", lambda: os.close(os.open("/", os.O_RDONLY)))
    if abi >= landlock.FIRST_WITH_TCP:
        _refused("connect", _connect_elsewhere)
    return f"Landlock (ABI {abi})"


def _seccomp(ready: SeccompFilter) -> str:
    ready.load()
    _refused("socket", lambda: socket.socket(socket.AF_UNIX).close())
    _refused("kill", lambda: os.kill(os.getppid(), 0))
    return "seccomp"


def _connect_elsewhere() -> None:
    """The discard port of this machine, where nothing listens."""
    with socket.socket() as one:
        one.connect(("127.0.0.1", 9))


def _refused(name: str, attempt: Callable[[], None]) -> None:
    try:
        attempt()
    except PermissionError:
        return
    except OSError as error:
        raise OSError(error.errno or 0, f"accepted, but {name} is not refused") from None
    raise OSError(0, f"accepted, but {name} is not refused")
