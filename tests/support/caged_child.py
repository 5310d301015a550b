"""Children in a cage, for scripts that a test runs outside of its own process: a cage is built with a single thread.

`python -m tests.support.caged_child` runs a script for each line, and writes (status, output, errors) of each as JSON.
"""

import errno
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Collection
from typing import Any

from imgsvc.jobs.lanes.cage import Cage

MEMORY, FILE = 256 << 20, 4 << 20  # bytes
WAIT_SECONDS = 60


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


class Scripts:
    """A process with a single thread that has the cage loaded, and runs each script in a child of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._process.communicate(timeout=WAIT_SECONDS)

    def __call__(self, code: str) -> Any:
        """What the script prints, as JSON. It must not fail, nor write to standard error."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(textwrap.dedent(code)) + "\n")
        self._process.stdin.flush()
        status, printed, said = json.loads(self._process.stdout.readline())
        assert status == 0 and not said, said
        return json.loads(printed)


def _run(code: str) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(said.fileno(), 2)
            status = 1
            try:
                exec(code, {"__name__": "script"})
                sys.stdout.flush()
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (printed, said):
            file.seek(0)
            texts.append(file.read().decode())
    return status, texts[0], texts[1]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
