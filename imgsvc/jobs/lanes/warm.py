"""The warm process of a lane: has the codecs loaded, and forks a child for each picture.

Those of HEIC and AVIF, the optional ones, it loads once a picture needs them.

It is the worker of the lane's process pool, which gives it one thing to do for all its life: to perform the tasks that
come over a socket. It has one thread, and never reads a byte of a task, a picture or an answer. Its child enters the
cage, performs the task, writes its answer into a pipe and ends; the warm process ends it at its deadline and passes the
answer on unread. So nothing that a picture did to its decoder reaches the next picture, and nothing of a task is in the
memory that the next picture's process begins with.

No codec is imported at the top: the service imports this module to name its functions.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import time
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from ...lazy_dataclass import dataclass
from . import libc, process_limits
from .cage import Cage, CageUnavailable, Mode
from .caged_types import WITH_THREADS, is_in_force

OPEN_FILES = 128  # the source, 64 variants, and the process's own
MAX_DESCRIPTORS = 100  # of one task
MAX_ANSWER = 1 << 16  # bytes
CHUNK = 1 << 16  # bytes
CAGED = b"c"  # the first byte that a child writes
# What is sent with the descriptors of a task: the seconds that it has, and whether it needs the optional codecs.
ORDER = struct.Struct("=d?")


@dataclass(frozen=True, slots=True)
class Launch:
    """How a warm process is launched. `landlock_abi_at_most` holds Landlock down, for tests."""

    parent: int  # the service's process id
    niceness: int
    cage: Mode
    landlock_abi_at_most: int | None = None


class WarmProcess:
    """The sockets of this process, one for tasks and their children, one for the ends of tasks, and the cage."""

    def __init__(self, service: socket.socket, ends: socket.socket, cage: Cage, decoders: Mapping[str, str]) -> None:
        """`decoders`: the versions of the optional ones, as the service knows them."""
        self._service = service
        self._ends = ends
        self._cage = cage
        self._decoders = decoders
        self._has_optional_codecs = False

    def serve(self) -> None:
        """Perform the tasks that the service sends, until it is gone. Sends a messages.TaskEnd for each."""
        while True:
            sent, files, _, _ = socket.recv_fds(self._service, ORDER.size, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if not sent:
                return
            seconds, needs_optional_codecs = ORDER.unpack(sent)
            if needs_optional_codecs and not self._has_optional_codecs:
                self._load_optional_codecs()
            end, status, answer = self.perform(files, seconds)
            self._ends.send(json.dumps({"end": end, "status": status}).encode() + b"\n" + answer)

    def _load_optional_codecs(self) -> None:
        """For this task and all later ones. Until one needs them, the process of each picture begins without them.

        If they are not what the service knows of them, this process ends: no task has begun then, and the next one
        tells what there is now.
        """
        from ...imaging.warm_up import use_encoder, use_optional_codecs

        try:
            if not is_in_force(self._cage.posture):
                use_encoder()
            elif (found := use_optional_codecs()) != self._decoders:
                raise ImportError(f"the optional decoders are {found}, and were {self._decoders}")
        except BaseException:  # of which the pool, whose one task this process is, would tell nobody
            traceback.print_exc()
            os._exit(1)
        self._has_optional_codecs = True
        _share_memory()

    def perform(self, files: list[int], seconds: float) -> tuple[str, int, bytes]:
        """Perform the task of these files, which are closed. Its child has so many seconds.

        Returns the members of messages.TaskEnd. Only a child that never entered the cage counts as not begun, whatever
        its exit status is: the picture decides about that.
        """
        deadline = time.monotonic() + seconds
        answers, answer = os.pipe()
        try:
            child = self._fork(files, answer)
        except OSError:
            os.close(answers)
            return "not_forked", 0, b""
        finally:
            for descriptor in (*files, answer):
                os.close(descriptor)  # also so that the pipe ends with the child
        handle = os.pidfd_open(child)
        try:
            socket.send_fds(self._service, [b"1"], [handle])  # begun: so that the service can end the child too
            end, read = _read_answer(answers, handle, deadline)
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.close(handle)
            os.close(answers)
        caged, read = read[:1], read[1:]
        if end == "ended":
            end = "not_caged" if not caged else "answered" if status == 0 and read else "died"
        return end, status, read if end == "answered" else b""

    def _fork(self, files: list[int], answer: int) -> int:
        child = libc.fork()
        if child:
            return child
        status = 1
        try:
            status = self._in_child(files, answer)
        finally:
            os._exit(status)

    def _in_child(self, files: list[int], answer: int) -> int:
        """Enter the cage, perform the task and write its answer. Returns the exit status. Raises OSError."""
        text, *files = files
        with os.fdopen(text, "rb") as stream:
            task = json.load(stream)
        self._cage.enter(
            {*files, answer},
            memory_bytes=task["memory_ceiling"],
            file_bytes=task["file_ceiling"],
            threads=task["mime"] in WITH_THREADS,
        )
        os.write(answer, CAGED)
        _write(answer, _answer_of(task, files))
        return 0


_process: WarmProcess  # of this process: a pool calls functions, not methods
_hello: dict[str, Any]


def initialize(service: socket.socket, ends: socket.socket, launch: Launch) -> None:
    """Harden this process, load the codecs (not the optional ones) and use each once, and build the cage.

    The pool's initializer.
    """
    global _process, _hello
    _harden(launch)
    warnings.simplefilter("ignore")  # Pillow's warnings about damaged metadata
    from ...imaging.decoder import decoder_version
    from ...imaging.warm_up import use_codecs
    from . import task  # noqa: F401, so that no child imports it

    use_codecs()
    _hello = {"ready": os.getpid(), "decoder": decoder_version(), "decoders": {}, "posture": None, "unavailable": None}
    try:
        cage = Cage.build(launch.cage, landlock_abi_at_most=launch.landlock_abi_at_most)
    except CageUnavailable as error:
        _hello["unavailable"] = str(error)
        return
    _hello["posture"] = asdict(cage.posture)
    if is_in_force(cage.posture):
        _hello["decoders"] = _optional_decoders()
    _process = WarmProcess(service, ends, cage, _hello["decoders"])
    _share_memory()
    gc.enable()


def _share_memory() -> None:
    """Return what is free, and let no child's collection write to the pages that it shares with this process."""
    with suppress(AttributeError):  # not glibc
        libc.LIBC.malloc_trim(0)
    gc.freeze()


def _optional_decoders() -> dict[str, str]:
    """The versions of the decoders of HEIC and AVIF by MIME type, from a child that has used each once.

    In this process the two packages would cost each picture's process a millisecond: it copies or maps their memory.
    Raises ChildProcessError.
    """
    from ...imaging.warm_up import use_optional_codecs

    answers, answer = os.pipe()
    parent = os.getpid()
    if not (child := libc.fork()):
        status = 1
        try:
            process_limits.tie_to(parent)
            _write(answer, json.dumps(use_optional_codecs()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(answer)
    with os.fdopen(answers, "rb") as stream:
        found = stream.read()
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise ChildProcessError(f"the process that loads the optional codecs ended with {status}")
    versions: dict[str, str] = json.loads(found)
    return versions


def hello() -> str:
    """The message messages.Hello."""
    return json.dumps(_hello)


def serve() -> None:
    """Perform tasks for the rest of this process's life: the pool's own way for each takes three threads there."""
    _process.serve()


def _harden(launch: Launch) -> None:
    """End with the service (prctl(2), PR_SET_PDEATHSIG), and take away what neither this process nor a child needs.

    Ctrl-C, which a terminal sends to all processes, is ignored. The process gets its own process group but not its own
    session: Linux divides the processor among sessions first (autogroups), and niceness has no effect between sessions.
    """
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    process_limits.tie_to(launch.parent)
    with suppress(OSError):  # no /proc: the memory ceilings still hold
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, the kernel kills a worker first
    libc.call("prctl", process_limits.PR_SET_DUMPABLE, 0, 0, 0, 0)  # no process of this user reads or traces it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    os.nice(launch.niceness)


def _answer_of(task: dict[str, Any], files: list[int]) -> bytes:
    from .task import out_of_memory, perform

    exhausted = json.dumps(out_of_memory(task)).encode()  # made while there is memory
    try:
        source, outputs = _streams(task, files)
        return json.dumps(perform(task, source, outputs)).encode()
    except MemoryError:
        return exhausted


def _streams(task: dict[str, Any], files: list[int]) -> tuple[BinaryIO, Mapping[str, BinaryIO]]:
    source, *outputs = files
    return os.fdopen(source, "rb"), {
        name: os.fdopen(output, "r+b") for name, output in zip(task["outputs"], outputs, strict=True)
    }


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read_answer(answers: int, child: int, deadline: float) -> tuple[str, bytes]:
    """Read what the child (a pidfd) writes, until it has ended, writes too much or its time is over."""
    waiting, answer = select.poll(), b""
    waiting.register(answers, select.POLLIN)
    waiting.register(child, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)}
        if not ready:
            return "time_limit", b""
        if answers not in ready:  # and it has ended: a pipe that its own child may hold open has nothing more
            return "ended", answer
        if part := os.read(answers, CHUNK):
            answer += part
            if len(answer) > MAX_ANSWER:
                return "answer_too_long", b""
        elif child in ready:
            return "ended", answer
        else:
            waiting.unregister(answers)
