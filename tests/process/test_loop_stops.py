"""Promise 5: starting a worker stops the event loop no longer than starting any program must, whatever memory it has.

A fork copies the page tables of the service, 50 ms for 600 MB; vfork does not. The figures are compared within one run.
"""

import json
import subprocess
import sys

import pytest

from tests.support.server_process import ROOT

pytestmark = pytest.mark.process
BALLAST_MB = 600
TIMES = 5
SCRIPT = """
import asyncio, json, statistics, subprocess, sys, time
import uvloop
from imgsvc.jobs.lanes.pool import Launcher

WINDOW = 0.05  # seconds after each start, so that both are disturbed alike
COMMAND = [sys.executable, "-P", "-c", "import imgsvc.jobs.lanes.warm, sys; sys.stdin.read()"]

async def longest_stop(until):
    worst, before = 0.0, time.perf_counter()
    while not until.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        worst, before = max(worst, now - before), now
    return worst

async def bare():
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    await asyncio.sleep(WINDOW)
    process.kill()
    process.communicate()

async def launched(launcher):
    pool = await launcher.launch(0, "best")
    await asyncio.sleep(WINDOW)
    await pool.close()

async def main(megabytes, times):
    ballast = bytearray(b"x") * (megabytes << 20)
    launcher = Launcher()
    found = {"bare": [], "launched": []}
    for _ in range(times):
        found["bare"].append(await longest_stop(asyncio.ensure_future(bare())))
        found["launched"].append(await longest_stop(asyncio.ensure_future(launched(launcher))))
    launcher.close()
    print(json.dumps({name: statistics.median(values) * 1000 for name, values in found.items()}), len(ballast))

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


def test_starting_a_worker_stops_the_loop_no_longer_than_a_bare_start() -> None:
    command = [sys.executable, "-c", SCRIPT, str(BALLAST_MB), str(TIMES)]
    for last in (False, False, True):  # others use this machine too
        ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert ran.returncode == 0, ran.stderr[-2000:]
        found = json.loads(ran.stdout.rpartition("}")[0] + "}")
        print(found)
        if found["launched"] <= 3 * found["bare"]:
            return
        assert not last, found
