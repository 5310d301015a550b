"""A time limit counts only the time in which the service ran."""

import os
import signal
import subprocess
import sys
import time

import anyio
import pytest

from imgsvc.jobs.lanes import time_limit
from imgsvc.jobs.lanes.time_limit import TimeLimit
from tests.support.server_process import ROOT, until
from tests.support.speed import seconds

STOPPED = """
import anyio, asyncio, os, sys, time
from imgsvc.jobs.lanes.time_limit import TimeLimit

async def main():
    with TimeLimit(2) as limit:
        print("running", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(limit.paused_seconds)

anyio.run(main)
"""


async def test_body_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError), TimeLimit(0.2):
        await anyio.sleep_forever()
    assert 0.1 < time.monotonic() - began < seconds(10)


async def test_body_in_time_and_its_errors_pass() -> None:
    with TimeLimit(60) as limit:
        await anyio.sleep(0.01)
    assert limit.paused_seconds == 0
    with pytest.raises(KeyError), TimeLimit(60):
        raise KeyError


async def test_cancellation_from_outside_is_none_of_its_own() -> None:
    with anyio.move_on_after(0.05) as scope:
        with TimeLimit(60):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_time_in_which_the_loop_stood_still_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(time_limit, "SLACK_SECONDS", 0.05)
    with TimeLimit(0.5) as limit:
        time.sleep(1)  # noqa: ASYNC251, the pause itself
        await anyio.sleep(0.1)
    assert limit.paused_seconds > 0.5


@pytest.mark.process
def test_process_that_was_stopped_has_its_time_afterwards() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "running\n"
        os.kill(process.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: time.monotonic() - stopped > 3.5)
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert float(process.stdout.readline()) > 1
        assert process.wait() == 0
