"""The cage: restrictions that a picture's process puts on itself before it reads the first byte of the picture.

A decoder that a file has taken over can then spoil its own picture and nothing else. The cage is built once, in the
warm process that forks a child for each picture, and entered by that child. A wall counts as in force only after a
child has tried it.
"""

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import ClassVar, Literal, Self

from ...lazy_dataclass import dataclass
from . import landlock, libc, process_limits, seccomp
from .seccomp import SeccompFilter
from .walls import LANDLOCK, LIMITS, PRIVILEGES, SECCOMP, walls

Mode = Literal["require", "best", "off"]
PROBE_SECONDS = 20
PROBE_BYTES = 1 << 12  # of the answer, and of the longest file that it could write
PROBE_MEMORY = 64 << 20  # bytes
PR_GET_SECCOMP = 21


class CageUnavailable(Exception):
    """A wall is missing or can't be put in force, and the setting requires all of them."""


@dataclass(frozen=True, slots=True)
class Posture:
    """The walls in force for each picture's process. `landlock_abi` is 0 without Landlock.

    `problems`: a sentence for each wall that this system has and that could not be put in force; `absent`: one for each
    that it lacks.
    """

    __pydantic_config__: ClassVar = {"strict": True, "extra": "forbid"}  # where it is read from a worker

    mode: Mode
    landlock_abi: int
    seccomp: bool
    limits: bool
    problems: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def in_words(posture: Posture) -> str:
    """The walls in force, for logs and pages: `Landlock (ABI 7), seccomp, limits`, or `nothing`."""
    walls = (
        (posture.landlock_abi, f"Landlock (ABI {posture.landlock_abi})"),
        (posture.seccomp, "seccomp"),
        (posture.limits, "limits"),
    )
    return ", ".join(name for there, name in walls if there) or "nothing"


class Cage:
    """The walls that this system can put up, ready to be entered by children of the process that built it."""

    def __init__(self, posture: Posture, in_force: Collection[str], seccomp_filter: SeccompFilter | None) -> None:
        self.posture = posture
        self._in_force = frozenset(in_force)
        self._filter = seccomp_filter
        self._parent = os.getpid()

    @classmethod
    def build(cls, mode: Mode, *, landlock_abi_at_most: int | None = None) -> Self:
        """Find the walls that can be put in force, by a child that tries them. Call with a single thread.

        `landlock_abi_at_most` holds Landlock's ABI down, for tests; 0 leaves it out. Raises CageUnavailable with
        `require` unless every wall stands.
        """
        if mode == "off":
            return cls(Posture(mode, 0, seccomp=False, limits=False), (), None)
        survey = _Survey(landlock_abi_at_most)
        posture = Posture(
            mode,
            survey.abi if LANDLOCK in survey.in_force else 0,
            seccomp=SECCOMP in survey.in_force,
            limits=survey.in_force.issuperset({PRIVILEGES, LIMITS}),
            problems=tuple(survey.problems),
            absent=tuple(survey.absent),
        )
        if mode == "require" and (survey.problems or survey.absent):
            raise CageUnavailable("; ".join((*survey.problems, *survey.absent)))
        return cls(posture, survey.in_force, survey.filter)

    def enter(self, keep: Collection[int], *, memory_bytes: int, file_bytes: int, threads: bool = False) -> None:
        """Confine the calling process for good: a child that was forked a moment ago, with one thread.

        `keep`: the descriptors of the picture and of the answer; 0, 1 and 2 become /dev/null unless they are kept.
        `memory_bytes`: what the process may grow by from here. `file_bytes`: the longest file that it may write.
        Afterwards it can't open anything, start a thread (but with `threads`), or import what was not loaded. Raises
        OSError: the child must end then. With the mode `off` only memory, core dumps and other descriptors are limited.
        """
        caged = self.posture.mode != "off"
        process_limits.close_descriptors(keep, standard=caged)
        process_limits.tie_to(self._parent)
        process_limits.limit_growth(memory_bytes, shared=caged)
        if not caged:
            process_limits.limit_files(process_limits.FREE_DESCRIPTORS)
        chosen = self._filter.with_threads() if self._filter and threads else self._filter
        for wall in walls(self.posture.landlock_abi, chosen, file_bytes):
            if wall.name in self._in_force:
                wall.put_up()


class _Survey:
    """The walls that this system has, and those of them that a child could put in force."""

    def __init__(self, landlock_abi_at_most: int | None) -> None:
        self.problems: list[str] = []
        self.absent: list[str] = []
        self.in_force: set[str] = set()
        self.abi = 0
        self.filter: SeccompFilter | None = None
        if sys.platform != "linux":
            self.absent.append("this system is not Linux: pictures are decoded without a cage")
            return
        self._look_for_landlock(landlock_abi_at_most)
        self._look_for_seccomp()
        self._prove()

    def _look_for_landlock(self, at_most: int | None) -> None:
        """In a child: a filter around this service may end the process that asks."""
        text, end = _in_child(lambda answer: _tell_abi(at_most, answer))
        if not text:
            self.problems.append(f"{LANDLOCK}: the process that asked for it {end}")
            return
        self.abi, failed = json.loads(text)
        if failed:
            self.problems.append(f"{LANDLOCK}: {failed}")
        elif self.abi == 0:
            self.absent.append("this kernel has no Landlock, or it is not enabled at boot (lsm=landlock)")

    def _look_for_seccomp(self) -> None:
        try:
            libc.call("prctl", PR_GET_SECCOMP, 0, 0, 0, 0)
        except OSError:
            self.absent.append("this kernel has no seccomp")
            return
        text, end = _in_child(_ask_for_seccomp)
        if not text:
            self.problems.append(f"{SECCOMP}: the process that asked for it {end}")
            return
        try:
            self.filter = SeccompFilter.build()
        except OSError as error:
            self.problems.append(f"{SECCOMP}: {_words(error)}")

    def _prove(self) -> None:
        text, end = _in_child(lambda answer: _try_walls(self.abi, self.filter, answer))
        tried = dict(json.loads(line) for line in text.splitlines())
        for wall in walls(self.abi, self.filter, 0):
            if wall.name not in tried:
                self.problems.append(f"{wall.name}: the process that tried it {end}")
            elif tried[wall.name]:
                self.problems.append(f"{wall.name}: {tried[wall.name]}")
            else:
                self.in_force.add(wall.name)


def _in_child(work: Callable[[int], None]) -> tuple[bytes, str]:
    """Run `work` in a child with a pipe for its answer. Returns what it wrote, and how it ended, in words."""
    read, write = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            process_limits.close_descriptors({write}, standard=True)
            process_limits.tie_to(parent)
            work(write)
        finally:
            os._exit(0)
    os.close(write)
    try:
        text = _read_all(read)
    finally:
        os.close(read)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return text, f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _tell_abi(at_most: int | None, answer: int) -> None:
    """In a child: write Landlock's ABI, and why it is refused."""
    try:
        found = [landlock.usable_abi(at_most), ""]
    except OSError as error:
        found = [0, _words(error)]
    os.write(answer, json.dumps(found).encode())


def _ask_for_seccomp(answer: int) -> None:
    """In a child: answer unless that ends it. A missing library is reported where the filter is built."""
    with suppress(OSError):
        seccomp.ask_kernel()
    os.write(answer, b"1")


def _try_walls(abi: int, seccomp_filter: SeccompFilter | None, answer: int) -> None:
    """In a child: put up one wall after the other, and write for each what failed, on a line."""
    process_limits.limit_growth(PROBE_MEMORY, shared=True)
    for wall in walls(abi, seccomp_filter, PROBE_BYTES):
        try:
            wall.put_up()
            wall.prove()
            failed = ""
        except OSError as error:
            failed = _words(error)
        os.write(answer, json.dumps([wall.name, failed]).encode() + b"\n")


def _read_all(descriptor: int) -> bytes:
    """What a child writes until it ends or its time is over."""
    text = b""
    deadline = time.monotonic() + PROBE_SECONDS
    while len(text) < PROBE_BYTES and (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            part = os.read(descriptor, PROBE_BYTES)
            if not part:
                break
            text += part
    return text


def _words(error: OSError) -> str:
    """The error's words with its errno: `Operation not permitted (EPERM)`."""
    name = errno.errorcode.get(error.errno or 0)
    return f"{error.strerror or error} ({name})" if name else str(error)
