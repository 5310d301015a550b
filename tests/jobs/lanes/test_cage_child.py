"""What a child finds, and leaves, once it has entered the cage."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.caged_child import Scripts

Child = Callable[..., Any]
HEAD = """
    import json, os, signal, sys, time
    from pathlib import Path
    from imgsvc.jobs.lanes.cage import Cage
    from tests.support.caged_child import said_in
    cage = Cage.build("{mode}")
"""


@pytest.fixture
def child(script: Scripts) -> Child:
    return lambda code, mode="best": script(HEAD.format(mode=mode) + code)


def test_it_holds_its_own_descriptors_alone(child: Child) -> None:
    assert child("""
    kept, other, far = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY), 900
    os.dup2(other, far)
    def readable():
        found = []
        for number in (kept, other, far):
            try:
                found.append(len(os.read(number, 5)))
            except OSError:
                found.append(None)
        return found
    print(json.dumps(said_in(cage, readable, [kept])))
    """) == [5, None, None]


def test_its_standard_descriptors_lead_nowhere(child: Child) -> None:
    assert child("""
    print(json.dumps(said_in(cage, lambda: [os.read(0, 1).decode(), os.write(1, b"x"), os.write(2, b"x")])))
    """) == ["", 1, 1]


@pytest.mark.parametrize("ending", ["os.abort()", "os.kill(os.getpid(), signal.SIGABRT)"])
def test_it_may_end_itself_as_libraries_do(child: Child, ending: str) -> None:
    code = f"""
    print(json.dumps(said_in(cage, lambda: {ending})))
    """
    assert child(code) == {"signal": signal.SIGABRT}


def test_it_dies_with_the_process_that_forked_it(child: Child) -> None:
    """The script's child forks into the cage and is killed; what it forked must not go on."""
    assert (
        child("""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        cage = Cage.build("best")
        caged = os.fork()
        if caged == 0:
            cage.enter([write], memory_bytes=1 << 26, file_bytes=0)
            os.write(write, b"in")
            time.sleep(60)
        os.waitpid(caged, 0)
    os.close(write)
    assert os.read(read, 2) == b"in"
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    print(json.dumps(os.read(read, 2).decode()))  # the end of the pipe: no process holds it any more
    """)
        == ""
    )


def test_it_does_not_enter_when_its_parent_is_gone(child: Child) -> None:
    assert (
        child("""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:  # the cage was built by another process than this one's parent
        if os.fork() == 0:
            try:
                cage.enter([write], memory_bytes=1 << 26, file_bytes=0)
            except ProcessLookupError:
                os.write(write, b"refused")
        os._exit(0)
    os.waitpid(middle, 0)
    os.close(write)
    print(json.dumps(os.read(read, 7).decode()))
    """)
        == "refused"
    )


def test_it_has_no_capabilities_and_can_not_be_dumped(child: Child) -> None:
    found = child("""
    read, write = os.pipe()
    ready, says = os.pipe()
    child = os.fork()
    if child == 0:
        cage.enter([read, says], memory_bytes=1 << 26, file_bytes=0)
        os.write(says, b"in")
        os.read(read, 1)
        os._exit(0)
    assert os.read(ready, 2) == b"in"
    status = dict(line.split(":\\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
    owner = os.stat(f"/proc/{child}/mem").st_uid
    os.write(write, b"x")
    os.waitpid(child, 0)
    print(json.dumps({"caps": status["CapPrm"] + status["CapEff"], "nnp": status["NoNewPrivs"], "owner": owner}))
    """)
    assert found == {"caps": "0" * 32, "nnp": "1", "owner": 0}


def test_memory_is_counted_from_where_it_enters(child: Child) -> None:
    assert child("""
    before = bytearray(120 << 20)
    grow = lambda: [len(bytearray(140 << 20)) >> 20, list(before[:1])]  # together more than the limit
    def too_much():
        try:
            return len(bytearray(257 << 20))
        except MemoryError:
            return "refused"
    print(json.dumps([said_in(cage, grow), said_in(cage, too_much)]))
    """) == [[140, [0]], "refused"]


def test_calls_of_later_kernels_are_refused_as_missing(child: Child) -> None:
    """With a call that this kernel has in the place of one that it may have some day."""
    assert child("""
    from imgsvc.jobs.lanes import libc, seccomp
    FACCESSAT2 = 439
    seccomp.UNKNOWN_CALLS = range(FACCESSAT2, FACCESSAT2 + 1)
    attempt = lambda: libc.call("syscall", FACCESSAT2, -1, b"", 0, 0)
    print(json.dumps([said_in(cage, attempt), said_in(Cage.build("best"), attempt)]))
    """) == [{"errno": "ENOENT"}, {"errno": "ENOSYS"}]


def test_off_limits_memory_and_dumps_and_leaves_the_rest(child: Child) -> None:
    assert child(
        """
    import resource
    def free():
        os.close(os.open("/dev/null", os.O_RDONLY))
        limits = [resource.getrlimit(one)[0] for one in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)]
        try:
            bytearray(257 << 20)
        except MemoryError:
            return limits
    print(json.dumps(said_in(cage, free)))
    """,
        mode="off",
    ) == [0, 128]


def test_pictures_of_every_kind_come_out_as_without_a_cage(script: Scripts) -> None:
    found = script("from tests.support import caged_pictures; caged_pictures.main()")
    assert len(found) > 20
    assert all(caged == free and len(free) == 64 for caged, free in found.values()), found
