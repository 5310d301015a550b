"""`./run bench pool`: what a process for each picture costs, beside a bare worker that is used again.

Processor seconds are those of the worker and its children (getrusage); the kinds of worker take turns, picture by
picture. Times are medians. Ratios travel from machine to machine, milliseconds don't, and nothing else should run
meanwhile.
"""

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import structlog
from rich.console import Console
from rich.table import Table

from fixtures import make
from imgsvc.jobs.lanes.messages import Rendered, Task
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings import Settings
from imgsvc.testing import perform_here
from tests.bench.rendering import proportional_bytes
from tests.support.render_task import render_task
from tests.support.server_process import ROOT

IMAGES = {"preview": 15, "render": 2}  # of a round
MEGABYTE = 1 << 20
console = Console()


class Worker:
    """A process that does each task in itself or in a child for each (`tests.bench.pool_worker`)."""

    def __init__(self, way: str) -> None:
        command = [sys.executable, "-m", "tests.bench.pool_worker", way]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def perform(self, task: Task) -> float:
        """Processor seconds."""
        stdin, stdout = self._pipes()
        print(json.dumps(asdict(task)), file=stdin, flush=True)
        return float(stdout.readline())

    def close(self) -> None:
        self._pipes()[0].close()
        self._process.wait()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin and self._process.stdout
        return self._process.stdin, self._process.stdout


def processor(task: Task, rounds: int) -> None:
    """Processor time of a reused worker, of a child for each picture, and of a caged one, picture by picture."""
    workers = {way: Worker(way) for way in ("reused", "off", "best")}
    columns = (f"{name}: least, median" for name in ("reused worker", "child", "caged child"))
    table = Table("processor time", *columns, "ratio, caged")
    for kind, images in IMAGES.items():
        one = replace(task, kind=kind)  # type: ignore[arg-type]
        rows: dict[str, list[float]] = {way: [] for way in workers}
        for number in range(rounds * images + 1):
            for way, worker in workers.items():
                spent = worker.perform(one)
                if number:  # the first one warms up
                    rows[way].append(spent)
        least, middle = ({way: take(row) for way, row in rows.items()} for take in (min, statistics.median))
        ratio = f"{least['best'] / least['reused']:.2f}, {middle['best'] / middle['reused']:.2f} x"
        table.add_row(kind, *(f"{least[way] * 1000:.1f}, {middle[way] * 1000:.1f} ms" for way in workers), ratio)
    for worker in workers.values():
        worker.close()
    console.print(table)


@contextmanager
def bare() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


async def starts(task: Task, rounds: int) -> None:
    """Time until a worker is ready and until its first preview, and what an idle one takes, alternating."""
    preview = replace(task, kind="preview")
    found: dict[str, list[tuple[float, float, int]]] = {"reused worker": [], "warm process": []}
    for _ in range(rounds):
        found["reused worker"].append(await asyncio.to_thread(_bare_start, preview))
        found["warm process"].append(await _lane_start(preview))
    table = Table("worker", "ready", "first preview", "idle memory (PSS)", title=f"medians of {rounds} starts")
    for name, rows in found.items():
        ready, first, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        table.add_row(name, f"{ready * 1000:.0f} ms", f"{first * 1000:.0f} ms", f"{memory / MEGABYTE:.1f} MB")
    console.print(table)


def _bare_start(task: Task) -> tuple[float, float, int]:
    began = time.perf_counter()
    with bare() as pool:
        pid = pool.submit(_pid_of_worker).result()
        ready = time.perf_counter() - began
        pool.submit(perform_here, task).result()
        return ready, time.perf_counter() - began, proportional_bytes(pid)


def _pid_of_worker() -> int:
    import os

    import imgsvc.jobs.lanes.task  # noqa: F401, the codecs

    return os.getpid()


async def _lane_start(task: Task) -> tuple[float, float, int]:
    began = time.perf_counter()
    lane = ProcessLane("bench", nice=0, jobs_per_process=1000)
    await lane.start()
    ready = time.perf_counter() - began
    assert isinstance(await lane.run(task), Rendered)
    first, memory = time.perf_counter() - began, proportional_bytes(lane.pid or 0)
    await lane.close()
    return ready, first, memory


async def tasks(task: Task) -> None:
    """What the way to a worker and back adds to a task, and how soon its death is noticed."""
    preview = replace(task, kind="preview", mime="image/png", sha256="0" * 64)  # refused at once: its digest is wrong
    lane = ProcessLane("bench", nice=0, jobs_per_process=10_000)
    await lane.start()
    took: list[float] = []
    for _ in range(200):
        began = time.perf_counter()
        await lane.run(preview)
        took.append(time.perf_counter() - began)
    await lane.close()
    console.print(f"a task that is refused at once: median {statistics.median(took) * 1000:.1f} ms there and back")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, help="a JPEG to measure with; without it a drawn one of 6 MP")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="four times as many starts")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as name:
        data = given.photo.read_bytes() if given.photo else make.jpeg(2725, 2225)
        task = render_task(Path(name), data, Settings().images.recipe)
        console.print(f"{len(data) / 1e6:.2f} MB")
        processor(task, given.rounds)
        asyncio.run(starts(task, 4 * given.rounds))
        asyncio.run(tasks(task))


if __name__ == "__main__":
    main()
