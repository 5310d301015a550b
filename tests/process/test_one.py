"""The service as process 1 of a container that has no init: it hears signals, and its own children leave nothing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import make
from tests.support.server_process import ServerProcess, children, is_running, until

pytestmark = pytest.mark.process
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


class ProcessOne(ServerProcess):
    command = (*NAMESPACE, sys.executable)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, real="a namespace is entered by the program that starts")

    @property
    def one(self) -> int:
        """Its process id as seen from here."""
        return children(self.process.pid)[0]

    @property
    def service_pid(self) -> int:
        return self.one


@pytest.mark.skipif(not can_unshare(), reason="no PID namespace can be made here (unshare, and the right to)")
def test_killed_worker_leaves_no_zombie_and_sigterm_stops_it(tmp_path: Path) -> None:
    with ProcessOne(tmp_path) as server:
        assert Path(f"/proc/{server.one}/status").read_text().partition("NSpid:")[2].split()[:2][1] == "1"
        victim = server.render_worker()
        os.kill(victim, signal.SIGKILL)
        accepted = server.upload(make.jpeg(200, 100))
        assert server.job_ended(accepted.json()["job_id"])["status"] == "completed"
        assert until(lambda: server.workers() and all(is_running(pid) for pid in server.workers()))
        assert victim not in server.workers()
        photo = server.upload(make.jpeg(2000, 1500)).json()["job_id"]
        picture = until(lambda: children(server.render_worker()))
        os.kill(server.render_worker(), signal.SIGKILL)  # the picture's process ends too, and is then the service's
        assert server.job_ended(photo)["status"] == "completed"
        assert picture and not Path(f"/proc/{picture[0]}").exists()
        one = server.one
        os.kill(one, signal.SIGTERM)
        assert server.ended() == 0
        assert not Path(f"/proc/{one}").exists()
