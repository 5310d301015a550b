"""One user's thousands beside another's single upload."""

import os
import signal
import statistics
import time
from functools import cache
from pathlib import Path

import httpx

from fixtures import make
from tests.bench.memory import with_comment
from tests.support.server_process import ServerProcess, bearer
from tests.support.waiting_jobs import wait_again
from tests.torture.connections.crowd import IMAGES, UPLOAD

MOST_PREVIEWS = 3


@cache
def large_photo() -> bytes:
    """4 MP, with a preview of its own."""
    return make.jpeg(2309, 1732)


def thumbnail_seconds(server: ServerProcess, rounds: int, first: int) -> float:
    """From the 202 to the thumbnail, the median over users who send a photo each."""
    spent = []
    with httpx.Client(timeout=60) as client:
        for number in range(first, first + rounds):
            headers = {**bearer(f"single{number}"), "Content-Type": "image/jpeg"}
            photo = with_comment(large_photo(), number)
            answer = client.post(f"{server.url}{UPLOAD}", content=photo, headers=headers)
            assert answer.status_code == 202, answer.text
            began, image = time.perf_counter(), answer.json()["image_id"]
            while client.get(f"{server.url}{IMAGES}/{image}/direct?size=thumbnail").status_code != 200:
                time.sleep(0.001)
            spent.append(time.perf_counter() - began)
            if first == 0:
                server.job_ended(answer.json()["job_id"])
    return statistics.median(spent)


def single_beside(folder: Path, jobs: int, rounds: int, environ: dict[str, str]) -> tuple[float, float, int]:
    """Seconds to the thumbnail on an idle service and beside so many that wait, and how many still wait after it."""
    with ServerProcess(folder, real="its times are measured", **environ) as server:
        thumbnail_seconds(server, 2, 0)
        alone = thumbnail_seconds(server, rounds, 0)
        for pid in server.workers():
            os.kill(pid, signal.SIGSTOP)
        first = server.upload(large_photo(), user="greedy").json()["job_id"]
        server.signal(signal.SIGKILL)
        server.ended()
        wait_again(server.places.database, first, jobs - 1, preview=True)
        server.start()
        beside = thumbnail_seconds(server, rounds, 1000)
        waiting = int(httpx.get(f"{server.url}/dashboard/data", headers=server.operator).json()["queue"]["previews"])
        server.leave_unchecked("thousands of jobs are still waiting, and their sums were written past the service")
    return alone, beside, waiting
