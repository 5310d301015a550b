"""A seccomp filter around a whole process, as a container runtime puts it there."""

import ctypes
import struct

from imgsvc.jobs.lanes.libc import call

NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, AT_LEAST, ANSWER = 0x20, 0x15, 0x35, 0x06
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000


def refuse(number: int, error: int | None, *, first_argument: int | None = None) -> None:
    """Refuse one system call, or that with this first argument, to this process and its children.

    `error` is the errno; with None the process is ended, as by systemd's SystemCallFilter=.
    """
    refusal = KILL_PROCESS if error is None else ERRNO | error
    instructions = [(LOAD, 0, 0, 0), (EQUAL, 0, 3, number), (LOAD, 0, 0, 16)]
    instructions.append((AT_LEAST, 0, 1, 0) if first_argument is None else (EQUAL, 0, 1, first_argument))
    instructions += [(ANSWER, 0, 0, refusal), (ANSWER, 0, 0, ALLOW)]
    program = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    pointer = ctypes.create_string_buffer(struct.pack("Hxxxxxx", len(instructions)) + bytes(8))
    code = ctypes.create_string_buffer(program)
    struct.pack_into("P", pointer, 8, ctypes.addressof(code))
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", SET_SECCOMP, FILTER, pointer, 0, 0)
