"""A worker, which is a process of the service's own user, can't read the service's secrets out of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import SECRET, ServerProcess

pytestmark = pytest.mark.process
NOBODY = 65534
PROBE = """
import ctypes, json, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
pid, found = int(sys.argv[1]), {}
for name in ("environ", "mem", "maps"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as stream:
            stream.read(1)
        found[name] = "read"
    except OSError as error:
        found[name] = type(error).__name__
libc = ctypes.CDLL(None, use_errno=True)
found["seize"] = libc.ptrace(0x4206, pid, 0, 0)
print(json.dumps(found))
"""


def block(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_environment_block_holds_no_secret_and_the_service_works(tmp_path: Path) -> None:
    hidden = {"AWS_SECRET_ACCESS_KEY": "aws-secret", "AWS_ACCESS_KEY_ID": "id"}
    real = "a fork has the block of the process that it is forked from"
    with ServerProcess(tmp_path, real=real, **hidden, TZ="Europe/Berlin") as server:
        shown = block(server.process.pid)
        assert SECRET.encode() not in shown
        assert b"aws-secret" not in shown
        for worker in server.workers():
            assert SECRET.encode() not in block(worker)
            assert b"TZ=Europe/Berlin" in block(worker)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_process_of_the_same_user_can_not_read_or_trace_the_service(tmp_path: Path) -> None:
    """Both as `nobody`; that user can't read the interpreter's folder here, so it is imported before."""
    tmp_path.chmod(0o777)
    service = (
        "import re, sys, os; from imgsvc.service.process_privacy import deny_tracing, keep_only\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "if sys.argv[1] == 'private': keep_only(re.compile('PATH')); deny_tracing()\n"
        "else: import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # setuid made it not dumpable
        "fds = len(os.listdir('/proc/self/fd')); open('/proc/self/statm').read(); open('/proc/self/stat').read()\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    found = {}
    for kind in ("private", "plain"):
        with subprocess.Popen(
            [sys.executable, "-c", service, kind],
            env={"PATH": os.environ["PATH"], "JWT_SECRET_KEY": SECRET},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            found[kind] = subprocess.check_output([sys.executable, "-c", PROBE, str(process.pid)], text=True).strip()
            assert (SECRET.encode() in block(process.pid)) == (kind == "plain")
            process.kill()
    refused = "PermissionError"
    assert found["private"] == f'{{"environ": "{refused}", "mem": "{refused}", "maps": "{refused}", "seize": -1}}'
    assert '"environ": "read"' in found["plain"]
