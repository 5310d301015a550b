"""`kill_at.c`, compiled once, and its settings."""

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Literal

Action = Literal["count", "kill", "EIO", "ENOSPC", "lose"]  # lose: kill, and lose what was not synced
SOURCE = Path(__file__).with_name("kill_at.c")
# The calls after which something may be relied on, and `write`, which is the first to find a disk full.
DURABLE = ("fsync", "fdatasync", "rename", "link", "unlink", "ftruncate", "pwrite")
EVERY = (*DURABLE, "write")
COUNTED: dict[Action, Sequence[str]] = {
    "count": EVERY,
    "kill": DURABLE,
    "EIO": DURABLE,
    "ENOSPC": EVERY,
    "lose": DURABLE,
}


@cache
def library(source: Path = SOURCE) -> Path:
    """The shared object, in a folder of this user, named after its source. Raises CalledProcessError."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"imgsvc-kill-at-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"{digest}.so"
    if made.exists():
        return made
    partial = folder / f"{digest}.{os.getpid()}"
    command = ["cc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", str(partial), str(source), "-ldl", "-pthread"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    partial.replace(made)
    return made


def arm(settings: str) -> None:
    """Count this process's calls from now on; the library was preloaded."""
    shim = ctypes.CDLL(str(library()))
    shim.kill_at_arm(settings.encode())
    _tell_where_it_syncs(shim.kill_at_from)


def _tell_where_it_syncs(tell: Callable[[bytes], object]) -> None:
    """Each sync of ours has a name: the place that asks for it, such as `storage.local._put:224`."""
    real = os.fsync

    def fsync(descriptor: Any) -> None:
        frame: FrameType | None = sys._getframe(1)
        place = ""
        while frame is not None:
            module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
            if not module.startswith("imgsvc."):
                break
            place = f"{module.removeprefix('imgsvc.')}.{function}:{frame.f_lineno}"
            if function not in ("sync_folder", "syncs_folders"):
                break
            frame = frame.f_back
        tell(place.encode())
        try:
            real(descriptor)
        finally:
            tell(b"")

    setattr(os, "fsync", fsync)  # noqa: B010


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at which durable call of a process. `number` counts from 1 over the calls of COUNTED[action]."""

    action: Action
    number: int = 0
    times: int = 1  # calls that fail one after the other; 0: all from `number` on
    without: str = ""  # the place in the program whose syncs do nothing, as `forking` and kill_at.c name it

    def settings(self, folders: Sequence[Path], excepted: Sequence[Path], trace: Path, kept: Path | None = None) -> str:
        """As kill_at.c reads them: calls on files in `folders`, but not on paths that begin with one of `excepted`."""
        lines = [f"folder={folder}" for folder in folders]
        lines += [f"except={path}" for path in excepted]
        number = 0 if self.action == "count" else self.number
        lines += [f"calls={','.join(COUNTED[self.action])}", f"number={number}", f"times={self.times}"]
        if kept is not None:
            lines += [f"disk={kept.parent}", f"kept={kept}", f"without={self.without}"]
        return "\n".join([*lines, f"action={'kill' if self.action == 'lose' else self.action}", f"trace={trace}"])

    def __str__(self) -> str:
        text = f"{self.action}@{self.number}" + ("" if self.times == 1 else f"x{self.times or 'all'}")
        return f"{text}-without-{self.without}" if self.without else text


@dataclass(frozen=True, slots=True)
class Call:
    """A line of the trace."""

    number: int
    name: str
    path: str
    outcome: str  # done, kill, EIO or ENOSPC

    def __str__(self) -> str:
        return f"{self.number} {self.name} {self.path} {self.outcome}"


def calls(trace: Path) -> list[Call]:
    if not trace.exists():
        return []
    found = []
    for line in trace.read_text().splitlines():
        number, name, rest = line.split(" ", 2)
        path, outcome = rest.rsplit(" ", 1)
        found.append(Call(int(number), name, path, outcome))
    return found
