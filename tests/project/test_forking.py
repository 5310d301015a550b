"""A forked process is what a test takes it for: the program, with a folder, an environment and an ending of its own."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import begin, run
from tests.support.server_process import ROOT, InlineServer

pytestmark = pytest.mark.process


def test_says_and_ends_as_a_process_that_was_started(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    for arguments in (["--version"], [], ["jobs", "lost"], ["jobs", "list"], ["serve", "--port", "x"]):
        forked, started = (
            run(arguments, folder=tmp_path, environ=environ, real=real) for real in ("", "to compare with")
        )
        assert (forked.returncode, forked.stdout, forked.stderr) == (
            started.returncode,
            started.stdout,
            started.stderr,
        )


def test_has_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "IMGSVC_SERVER_PORT": "0"}
    process = begin(["serve"], folder=tmp_path, environ=environ, inline=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    assert process.stdout and process.stdout.readline().startswith("imgsvc listens on")
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    assert (tmp_path / "data").is_dir()
    links = {int(one.name): str(one.readlink()) for one in Path(f"/proc/{process.pid}/fd").iterdir()}
    assert links[0] == "/dev/null"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_killed_one_says_by_what(tmp_path: Path) -> None:
    with InlineServer(tmp_path) as server:
        server.signal(signal.SIGKILL)
        assert server.ended() == -signal.SIGKILL
        server.start()
