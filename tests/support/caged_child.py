"""One child in a cage, for a script that a test runs as a process of its own (a cage is built with a single thread)."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Collection
from typing import Any

from imgsvc.jobs.lanes.cage import Cage

MEMORY, FILE = 256 << 20, 4 << 20  # bytes


def said_in(cage: Cage, work: Callable[[], object], keep: Collection[int] = ()) -> Any:
    """What `work` returns in a caged child, as JSON; {"signal": 6} if one ended it, {"errno": "EPERM"} for OSError."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cage.enter({*keep, write}, memory_bytes=MEMORY, file_bytes=FILE)
            try:
                answer = work()
            except OSError as error:
                answer = {"errno": errno.errorcode[error.errno or 0]}
            os.write(write, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        report = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"signal": -code} if code < 0 else json.loads(report)


def script(code: str, *arguments: str) -> Any:
    """What a script prints as JSON. It runs with warnings as errors, and must not write to standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)
