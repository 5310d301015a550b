"""`./run bench cage`: what the cage costs, in one run that alternates between lanes with and without it.

Processor time per picture is what the warm process and its children have used, the least of several rounds. Ratios
travel from machine to machine, seconds don't. It ends with 1 if a ratio is above its limit.
"""

import argparse
import asyncio
import logging
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psutil
import structlog
from rich.console import Console
from rich.table import Table

from fixtures import make
from imgsvc.jobs.lanes.cage import Mode
from imgsvc.jobs.lanes.messages import Rendered, Task
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings.jobs import Images
from tests.support.render_task import render_task

ROUNDS, PHOTOS, STARTS = 5, 20, 20
CEILING = 1 << 30  # bytes
LIMIT = 300  # seconds
CAGES: tuple[Mode, ...] = ("off", "best")
KINDS: tuple[Literal["render", "preview"], ...] = ("render", "preview")
MOST = {"image": 1.03, "start": 1.2}  # times as much as without the cage; an image has a preview and a render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, help="a JPEG to measure with; without it a drawn one of 6 MP")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the processor time")
    options = parser.parse_args()
    given = options.photo
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    data = given.read_bytes() if given else make.jpeg(2725, 2225)
    raise SystemExit(not asyncio.run(measure(data, options.rounds)))


async def measure(data: bytes, rounds: int) -> bool:
    """Print the table. Returns whether every ratio is within its limit."""
    shown = Table("", "without the cage", "with it", "ratio", "at most", "")
    image: dict[str, float] = dict.fromkeys(CAGES, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            task = replace(
                render_task(Path(folder), data, Images().recipe), kind=kind, memory_ceiling=CEILING, time_limit=LIMIT
            )
            spent = await processor_seconds(task, rounds)
            image = {cage: image[cage] + spent[cage] for cage in CAGES}
            shown.add_row(f"processor time of a {kind}", *milliseconds(spent), f"{ratio_of(spent):.3f}", "", "")
    shown.add_row("of an image, both together", *milliseconds(image), *compared(ratio_of(image), MOST["image"]))
    within = ratio_of(image) <= MOST["image"]
    for name, spent in (await start_seconds()).items():
        shown.add_row(name, *milliseconds(spent), *compared(ratio_of(spent), MOST["start"]))
        within &= ratio_of(spent) <= MOST["start"]
    Console().print(shown)
    return within


def milliseconds(spent: Mapping[str, float]) -> list[str]:
    return [f"{spent[cage] * 1000:.1f} ms" for cage in CAGES]


def ratio_of(spent: Mapping[str, float]) -> float:
    return spent["best"] / spent["off"]


def compared(ratio: float, most: float) -> tuple[str, str, str]:
    """A ratio, its limit, and whether it is within it."""
    return f"{ratio:.3f}", f"{most:.2f}", "holds" if ratio <= most else "ABOVE"


async def processor_seconds(task: Task, count: int) -> dict[str, float]:
    """Of one picture, the least of the rounds, which alternate."""
    rounds: dict[str, list[float]] = {cage: [] for cage in CAGES}
    async with started("off") as free, started("best") as caged:
        for number in range(count + 1):  # the first is not counted
            for cage, lane in {"off": free, "best": caged}.items():
                before = used(lane)
                for picture in range(PHOTOS):
                    outcome = await lane.run(replace(task, id=f"job.{number * PHOTOS + picture}"))
                    assert isinstance(outcome, Rendered), outcome
                rounds[cage] += [(used(lane) - before) / PHOTOS] if number else []
    return {cage: min(values) for cage, values in rounds.items()}


async def start_seconds() -> dict[str, dict[str, float]]:
    """Medians of the time until a worker is ready, and of the processor time of a worker that does nothing else."""
    times: dict[str, list[float]] = {cage: [] for cage in CAGES}
    spent: dict[str, list[float]] = {cage: [] for cage in CAGES}
    for _ in range(STARTS):
        for cage in CAGES:
            began, before = time.perf_counter(), of_ended_children()
            async with started(cage):
                times[cage].append(time.perf_counter() - began)
            spent[cage].append(of_ended_children() - before)
    found = {"start of a worker": times, "processor time of a start": spent}
    return {name: {cage: statistics.median(row[cage]) for cage in CAGES} for name, row in found.items()}


@asynccontextmanager
async def started(cage: Mode) -> AsyncIterator[ProcessLane]:
    lane = ProcessLane("render", nice=0, jobs_per_process=1_000_000, cage=cage)
    try:
        await lane.start()
        yield lane
    finally:
        await lane.close()


def of_ended_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def used(lane: ProcessLane) -> float:
    """Processor seconds of a lane's warm process and of its children so far."""
    times = psutil.Process(lane.pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


if __name__ == "__main__":
    main()
