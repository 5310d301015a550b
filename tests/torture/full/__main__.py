"""`./run torture full`: 10,000 jobs waiting beside 1,000,000 completed, against an empty service.

The start, from the command to the first 200, takes at most 1.2 times as long (clock and processor; medians of starts in
turn). The service's own memory (PSS), while both render the same photos, is at most 1.1 times as much. The order in
which the table hands out 10,000 jobs of many users, while more come, is that of a model.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import anyio
import httpx

from fixtures import make
from tests.bench.memory import sampled, with_comment
from tests.support.many_jobs import fill
from tests.support.memory import memory
from tests.support.server_process import ServerProcess
from tests.support.waiting_jobs import wait_again
from tests.torture.full.turns import differences
from tests.torture.report import Report, add_option

MOST_START, MOST_MEMORY = 1.2, 1.1
SETTINGS = {"IMGSVC_WORKERS_COUNT": "1", "IMGSVC_IMAGES_REUSE": "false", "IMGSVC_STORAGE_RESERVE_MB": "0"}
PHOTO = make.jpeg(1633, 1225)
TICKS = os.sysconf("SC_CLK_TCK")
TURN_USERS = 50


def service(folder: Path) -> ServerProcess:
    return ServerProcess(folder, real="its start and its memory are measured", **SETTINGS)


def prepared(folder: Path, completed: int, waiting: int) -> Path:
    """A site with so many jobs. The waiting ones have a real upload each."""
    folder.mkdir()
    if completed:
        fill(folder / "data/imgsvc.db", completed, only_completed=True)
    server = service(folder)
    server.start()
    try:
        for pid in server.workers() if waiting else ():
            os.kill(pid, signal.SIGSTOP)
        job_id = server.upload(PHOTO).json()["job_id"]
        if not waiting:
            server.job_ended(job_id)
    finally:
        server.signal(signal.SIGKILL)
        server.ended()
        server.http.close()
    if waiting:
        wait_again(server.places.database, job_id, waiting - 1)
    return folder


def start(folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of the service's processor, from the command to the first 200. It is stopped again."""
    server = service(folder)
    began = time.perf_counter()
    server.start()
    try:
        assert httpx.get(f"{server.url}/api/v1/health/live").status_code == 200
        spent = time.perf_counter() - began
        fields = Path(f"/proc/{server.service_pid}/stat").read_text().rpartition(")")[2].split()
        return spent, (int(fields[11]) + int(fields[12])) / TICKS
    finally:
        server.stop()
        server.http.close()


def memory_mb(folder: Path, seconds: float, *, feed: bool) -> float:
    """The service's median PSS while it renders. `feed`: photos come by HTTP, as many as it takes."""
    server, over = service(folder), threading.Event()
    server.start()

    def upload() -> None:
        number = 0
        while not over.is_set():
            number += 1
            accepted = server.upload(with_comment(PHOTO, number)).json()
            server.job_ended(accepted["job_id"])

    thread = threading.Thread(target=upload)
    try:
        if feed:
            thread.start()
        found = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.2)
            found.append(sampled(server.service_pid).service)
        return statistics.median(found[len(found) // 2 :])
    finally:
        over.set()
        if feed:
            thread.join()
        server.stop()
        server.http.close()


def attack(folder: Path, given: argparse.Namespace, report: Report, *, measured: bool = True) -> None:
    """Add figures and findings. Not `measured`: of a machine that others use."""
    report.step("filling the tables")
    full = prepared(folder / "full", given.completed, given.waiting)
    empty = prepared(folder / "empty", 0, 0)
    turns = folder / "turns"
    turns.mkdir()
    if given.completed:
        fill(turns / "db", given.completed, only_completed=True)
    starts: dict[Path, list[tuple[float, float]]] = {empty: [], full: []}
    report.step(f"{given.rounds} starts of each")
    for _ in range(given.rounds):
        for one, found in starts.items():
            found.append(start(one))
    medians = {one: [statistics.median(column) for column in zip(*found, strict=True)] for one, found in starts.items()}
    clock, processor = (there / alone for there, alone in zip(medians[full], medians[empty], strict=True))
    report.step("memory, while both render")
    memories = memory_mb(empty, given.seconds, feed=True), memory_mb(full, given.seconds, feed=False)
    report.add(
        {
            "waiting beside completed": f"{given.waiting:,} beside {given.completed:,}",
            "start, clock, full beside empty": f"{clock:.2f}",
            "start, processor, full beside empty": f"{processor:.2f}",
            "memory of the service, full beside empty": f"{memories[1] / memories[0]:.3f} ({memories[0]:.0f} MB)",
        }
    )
    if measured and processor > MOST_START:
        report.findings.append(f"A start takes {processor:.2f} times the processor time of an empty one.")
    if measured and memories[1] > MOST_MEMORY * memories[0]:
        report.findings.append(f"The service takes {memories[1] / memories[0]:.2f} times the memory of an empty one.")
    report.step(f"the order of {given.turns} turns")
    different = anyio.run(differences, turns / "db", given.turns, TURN_USERS, given.seed)
    report.add({"claims in another order than the model's": f"{different} of {given.turns}"})
    if different:
        report.findings.append(f"{different} claims are of another job than the model's.")


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("./run torture full", description=__doc__)
    parser.add_argument("--completed", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=10_000, help="jobs whose order is compared")
    parser.add_argument("--rounds", type=int, default=7, help="starts of each")
    parser.add_argument("--seconds", type=float, default=20, help="in which memory is sampled")
    parser.add_argument("--seed", default="1")
    add_option(parser)
    return parser.parse_args(arguments)


def main() -> int:
    given = options()
    report = Report("Full", given.seed)
    with tempfile.TemporaryDirectory(prefix="full-", dir=memory()) as folder:
        try:
            attack(Path(folder), given, report)
        finally:
            report.write(given.report)
    return report.printed()


if __name__ == "__main__":
    sys.exit(main())
