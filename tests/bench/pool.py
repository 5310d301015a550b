"""`./run bench pool`: what a process for each picture costs, beside a bare worker that is used again.

Processor seconds are those of the worker and its children; the kinds of worker take turns. Times are medians. Ratios
travel from machine to machine, milliseconds don't, and nothing else should run meanwhile. It ends with 1 if a figure is
beyond its limit.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import structlog
from rich.console import Console
from rich.table import Table

from fixtures import make
from imgsvc.jobs.lanes.cage import Mode
from imgsvc.jobs.lanes.files import output_names
from imgsvc.jobs.lanes.messages import Rendered, Task
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings import Settings
from tests.bench.cage import compared
from tests.bench.rendering import proportional_bytes
from tests.support.render_task import render_task
from tests.support.server_process import ROOT

IMAGES = {"preview": 20, "render": 4}  # of a round
MEGABYTE = 1 << 20
MOST = {"preview": 1.5, "render": 1.03}  # times the processor time of a reused worker
NOTICED_MS = 10  # within which the death of a worker should be noticed
console = Console()


class ReusedWorker:
    """A process that performs each task itself (`tests.bench.pool_worker`)."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.bench.pool_worker"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        self.pid = self._process.pid

    async def ready(self) -> None:
        """Wait until it has loaded its codecs."""
        await self._line()

    async def spent(self, task: Task, images: int) -> float:
        """Processor seconds."""
        assert self._process.stdin
        order = {"task": asdict(task), "images": images, "outputs": output_names(task)}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return float(await self._line())

    async def _line(self) -> str:
        assert self._process.stdout
        return await asyncio.to_thread(self._process.stdout.readline)

    async def close(self) -> None:
        self._process.communicate()


class Lane:
    """A lane of the service, with a child for each picture."""

    def __init__(self, cage: Mode) -> None:
        self._lane = ProcessLane("bench", nice=0, jobs_per_process=10_000, cage=cage)

    async def spent(self, task: Task, images: int) -> float:
        """Processor seconds of the warm process and its children."""
        await self._lane.start()
        before = self._used()
        for _ in range(images):
            assert isinstance(await self._lane.run(task), Rendered)
        return self._used() - before

    def _used(self) -> float:
        times = psutil.Process(self._lane.pid).cpu_times()
        return times.user + times.system + times.children_user + times.children_system

    async def close(self) -> None:
        await self._lane.close()


async def processor(task: Task, rounds: int) -> bool:
    """Processor time for an image: of a reused worker, of a child for each picture, and of a caged one.

    Returns whether the ratios are within their limits.
    """
    reused = ReusedWorker()
    await reused.ready()
    workers: dict[str, ReusedWorker | Lane] = {
        "reused worker": reused,
        "child": Lane("off"),
        "caged child": Lane("best"),
    }
    table = Table(
        f"least of {rounds} rounds", *workers, "ratio, caged", "at most", "", title="processor time for an image"
    )
    within = True
    for kind, images in IMAGES.items():
        one = replace(task, kind=kind)  # type: ignore[arg-type]
        rows: dict[str, list[float]] = {way: [] for way in workers}
        for worker in workers.values():
            await worker.spent(one, 2)  # to warm up
        for _ in range(rounds):
            for way, worker in workers.items():
                rows[way].append(await worker.spent(one, images) / images)
        least = {way: min(row) for way, row in rows.items()}
        ratio = least["caged child"] / least["reused worker"]
        table.add_row(kind, *(f"{seconds * 1000:.1f} ms" for seconds in least.values()), *compared(ratio, MOST[kind]))
        within &= ratio <= MOST[kind]
    for worker in workers.values():
        await worker.close()
    console.print(table)
    return within


async def throughput(task: Task, rounds: int) -> None:
    """Images per second of as many workers as there are processors, all busy, in turn: medians."""
    count, images = len(os.sched_getaffinity(0)), IMAGES["render"]
    reused, lanes = [ReusedWorker() for _ in range(count)], [Lane("best") for _ in range(count)]
    for one in reused:
        await one.ready()
    sides: dict[str, Sequence[ReusedWorker | Lane]] = {"reused workers": reused, "pools": lanes}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):  # the first is not counted
        for side, workers in sides.items():
            began = time.perf_counter()
            folders = [_own_folder(task, place) for place in range(count)]
            orders = zip(workers, folders, strict=True)
            await asyncio.gather(*(worker.spent(order, images) for worker, order in orders))
            rates[side] += [count * images / (time.perf_counter() - began)] if number else []
    for workers in sides.values():
        for worker in workers:
            await worker.close()
    medians = {side: statistics.median(found) for side, found in rates.items()}
    words = ", ".join(f"{rate:.2f}/s by {count} {side}" for side, rate in medians.items())
    console.print(f"renders: {words}, ratio {medians['pools'] / medians['reused workers']:.3f}")


def _own_folder(task: Task, place: int) -> Task:
    folder = Path(task.folder) / str(place)
    folder.mkdir(exist_ok=True)
    return replace(task, folder=str(folder))


async def starts(task: Task, rounds: int) -> None:
    """Time until a worker is ready and until its first preview, and what an idle one takes, alternating."""
    preview = replace(task, kind="preview")
    found: dict[str, list[tuple[float, float, int]]] = {"reused worker": [], "warm process": []}
    for _ in range(rounds):
        found["reused worker"].append(await _bare_start(preview))
        found["warm process"].append(await _lane_start(preview))
    table = Table("worker", "ready", "first preview", "idle memory (PSS)", title=f"medians of {rounds} starts")
    for name, rows in found.items():
        ready, first, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        table.add_row(name, f"{ready * 1000:.0f} ms", f"{first * 1000:.0f} ms", f"{memory / MEGABYTE:.1f} MB")
    console.print(table)


async def _bare_start(task: Task) -> tuple[float, float, int]:
    began = time.perf_counter()
    worker = ReusedWorker()
    await worker.ready()
    ready = time.perf_counter() - began
    await worker.spent(task, 1)
    first, memory = time.perf_counter() - began, proportional_bytes(worker.pid)
    await worker.close()
    return ready, first, memory


async def _lane_start(task: Task) -> tuple[float, float, int]:
    began = time.perf_counter()
    lane = ProcessLane("bench", nice=0, jobs_per_process=1000)
    await lane.start()
    ready = time.perf_counter() - began
    assert isinstance(await lane.run(task), Rendered)
    first, memory = time.perf_counter() - began, proportional_bytes(lane.pid or 0)
    await lane.close()
    return ready, first, memory


async def tasks(task: Task) -> bool:
    """What the way to a worker and back adds to a task, and how soon its death is noticed; whether that is in time."""
    preview = replace(task, kind="preview", mime="image/png", sha256="0" * 64)  # refused at once: its digest is wrong
    lane = ProcessLane("bench", nice=0, jobs_per_process=10_000)
    await lane.start()
    took: list[float] = []
    for _ in range(200):
        began = time.perf_counter()
        await lane.run(preview)
        took.append(time.perf_counter() - began)
    console.print(f"a task that is refused at once: median {statistics.median(took) * 1000:.1f} ms there and back")

    noticed: list[float] = []
    for _ in range(10):
        await lane.start()
        render = asyncio.create_task(lane.run(task))
        await asyncio.sleep(0.2)
        began = time.perf_counter()
        os.kill(lane.pid or 0, signal.SIGKILL)
        await render
        noticed.append(time.perf_counter() - began)
    await lane.close()
    milliseconds = sorted(seconds * 1000 for seconds in noticed)
    median = statistics.median(milliseconds)
    console.print(
        f"a worker that is killed: median {median:.1f} ms until its task has failed, "
        f"{sum(one <= NOTICED_MS for one in milliseconds)} of {len(milliseconds)} within {NOTICED_MS} ms: "
        f"{'holds' if median <= NOTICED_MS else 'ABOVE'}"
    )
    return median <= NOTICED_MS


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
        within = asyncio.run(processor(task, given.rounds))
        asyncio.run(throughput(task, given.rounds))
        asyncio.run(starts(task, 4 * given.rounds))
        within &= asyncio.run(tasks(task))
    raise SystemExit(not within)


if __name__ == "__main__":
    main()
