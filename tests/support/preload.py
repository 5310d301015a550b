"""`kill_at.c`, compiled once, and its settings."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Action = Literal["count", "kill", "EIO", "ENOSPC"]
SOURCE = Path(__file__).with_name("kill_at.c")
# The calls after which something may be relied on, and `write`, which is the first to find a disk full.
DURABLE = ("fsync", "fdatasync", "rename", "link", "unlink", "ftruncate", "pwrite")
EVERY = (*DURABLE, "write")
COUNTED: dict[Action, Sequence[str]] = {"count": EVERY, "kill": DURABLE, "EIO": DURABLE, "ENOSPC": EVERY}


@cache
def library() -> Path:
    """The shared object, in a folder that is named after its source. Raises CalledProcessError."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"imgsvc-kill-at-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"{digest}.so"
    if made.exists():
        return made
    partial = folder / f"{digest}.{os.getpid()}"
    command = ["cc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", str(partial), str(SOURCE), "-ldl", "-pthread"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    partial.replace(made)
    return made


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at which durable call of a process. `number` counts from 1 over the calls of COUNTED[action]."""

    action: Action
    number: int = 0
    times: int = 1  # calls that fail one after the other; 0: all from `number` on

    def settings(self, folders: Sequence[Path], excepted: Sequence[Path], trace: Path) -> str:
        """As kill_at.c reads them: calls on files in `folders`, but not on paths that begin with one of `excepted`."""
        lines = [f"folder={folder}" for folder in folders]
        lines += [f"except={path}" for path in excepted]
        number = 0 if self.action == "count" else self.number
        lines += [f"calls={','.join(COUNTED[self.action])}", f"number={number}", f"times={self.times}"]
        return "\n".join([*lines, f"action={self.action}", f"trace={trace}"])

    def __str__(self) -> str:
        return f"{self.action}@{self.number}" + ("" if self.times == 1 else f"x{self.times or 'all'}")


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
