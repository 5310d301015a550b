"""A cluster under load: what the service keeps, what it forgets, and what it costs. `./run torture tests/cluster`."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from fixtures import make
from tests.support.cluster import WHY, Cluster, ClusterService, children, give_way
from tests.support.server_process import ServerProcess, until
from tests.support.waiting_jobs import wait_again

pytestmark = [pytest.mark.process, pytest.mark.torture]
TICKETS = int(os.environ.get("TICKETS", "100000"))  # of the long run
# Jobs a second, of which all processes on one machine must do their part: 200, if it has as many processors.
RATE, ROUNDS = int(os.environ.get("RATE") or min(200, 50 * (os.cpu_count() or 1))), 3
LOOK_SECONDS = 0.5
CARRIED = 0.9  # of RATE, by both sides, else neither is measured at that rate
TICKS = os.sysconf("SC_CLK_TCK")
NOWHERE = {  # rendering: neither here nor elsewhere
    "IMGSVC_WORKERS_ENGINE": "dask",
    "IMGSVC_WORKERS_SCHEDULER": "tls://127.0.0.1:1",
    "IMGSVC_WORKERS_LOCAL_PREVIEW": "false",
}


def small() -> bytes:
    """A picture whose four variants have some 4 KB each."""
    return make.encoded(make.photo(96, 72), "PNG")


def count(database: Path, condition: str, table: str = "processing_jobs") -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()[0])


def completed(server: ServerProcess) -> int:
    return count(server.places.database, "status = 'completed'")


@contextmanager
def with_waiting(server: ClusterService, jobs: int, module: str = "imgsvc") -> Iterator[ClusterService]:
    """A service, run by this module, for which so many uploads wait when it starts."""
    environ, server.environ = server.environ, {**server.environ, **NOWHERE}
    with server:
        first = server.upload(small()).json()["job_id"]
        assert server.stop() == 0
        wait_again(server.places.database, first, jobs - 1)
        server.environ, server.module = environ, module
        server.start()
        yield server


def test_service_is_killed_with_500_tickets_out(own_cluster: Cluster, tmp_path: Path) -> None:
    """Nothing is published twice, no attempt is counted, and no file is left (the invariants look at the end)."""
    with with_waiting(own_cluster.made_service(tmp_path / "far"), 800) as far:
        own_cluster.start_prepared(250, seconds=4).joined()
        until(lambda: far.data()["cluster"]["tickets_out"] >= 500, 120)
        far.kill_and_start()
        database = far.places.database
        until(lambda: completed(far) == 800, 300)
        assert count(database, "attempt_count + deaths > 0") == 0
        ended = "event_type = 'completed'"
        assert count(database, ended, "image_upload_events") == 800
        assert (
            count(
                database,
                f"rowid IN (SELECT min(rowid) FROM image_upload_events WHERE {ended} GROUP BY job_id)",
                "image_upload_events",
            )
            == 800
        )
        assert len(far.files("storage")) == 4 * 800
        until(lambda: [path.name for path in (database.parent / "scratch").iterdir()] in ([], ["health"]))


def pss(pid: int) -> float:
    """Proportional set size in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def test_memory_does_not_grow_with_the_tickets(own_cluster: Cluster, tmp_path: Path) -> None:
    """PSS of scheduler, gateway and service after the first 10,000 tickets (or half of them), and after the last."""
    with with_waiting(own_cluster.made_service(tmp_path / "far"), TICKETS) as far:
        for _ in range(2):
            own_cluster.start_prepared(16).joined()
        database, began = far.places.database, time.monotonic()
        seen = []
        for done in (min(10_000, TICKETS // 2), TICKETS):
            while completed(far) < done:
                time.sleep(1)
            pids = {"scheduler": own_cluster.scheduler.pid, "gateway": far.gateway(), "service": far.service_pid}
            seen.append({name: pss(pid) for name, pid in pids.items()})
        rate = TICKETS / (time.monotonic() - began)
        print(f"\n{TICKETS} tickets, {rate:.0f}/s; PSS in MB after the first: {shown(seen[0])}; then: {shown(seen[1])}")
        assert count(database, "attempt_count + deaths > 0") == 0
        for name, first in seen[0].items():
            assert seen[1][name] <= 1.05 * first, name


def shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {figure:.1f}" for name, figure in figures.items())


@dataclass(frozen=True, slots=True)
class Moment:
    """Completed jobs at a moment in monotonic seconds, and processor seconds until then: `loop` is its thread."""

    seconds: float
    jobs: int
    loop: float
    service: float
    gateway: float

    @classmethod
    def of(cls, server: ClusterService, jobs: int) -> Self:
        """As soon as so many jobs are completed."""
        wait_seldom(server, jobs)
        pid, gateway = server.service_pid, server.gateway()
        loop = int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
        return cls(time.monotonic(), completed(server), loop, own_spent(pid), own_spent(gateway))


@dataclass(frozen=True, slots=True)
class Held:
    """How long the loop was held up (p99 in ms): in all, and without the time in which it waited for a processor."""

    lag: float
    own: float
    rate: float  # jobs a second
    cost: dict[str, float]  # ms of processor time of a job

    @classmethod
    def between(cls, first: Moment, last: Moment, looks: Path) -> Self:
        rows = [tuple(map(float, line.split())) for line in looks.read_text().splitlines()]
        within = [(late, waited) for when, late, waited in rows if first.seconds <= when <= last.seconds]
        jobs = last.jobs - first.jobs
        parts = ("loop", "service", "gateway")
        cost = {part: 1000 * (getattr(last, part) - getattr(first, part)) / jobs for part in parts}
        own = p99([max(0.0, late - waited) for late, waited in within])
        return cls(p99([late for late, _ in within]), own, jobs / (last.seconds - first.seconds), cost)

    def __str__(self) -> str:
        costs = ", ".join(f"{part} {ms:.2f}" for part, ms in self.cost.items())
        return f"p99 {self.lag:.1f} ms ({self.own:.1f} with a processor) at {self.rate:.0f}/s; ms a job: {costs}"


def wait_seldom(server: ClusterService, jobs: int) -> None:
    """Until so many are completed: each look at the table takes a processor from what is measured."""
    began = time.monotonic()
    while completed(server) < jobs:
        assert time.monotonic() - began < 300
        time.sleep(LOOK_SECONDS)


def p99(seconds: list[float]) -> float:
    return 1000 * sorted(seconds)[int(len(seconds) * 0.99)]


def held_up(server: ClusterService, jobs: int) -> Held:
    """While the jobs are done but for the first and last tenth."""
    with with_waiting(server, jobs, "tests.support.measured_service"):
        first = Moment.of(server, jobs // 10)
        last = Moment.of(server, jobs * 9 // 10)
        wait_seldom(server, jobs)
        assert server.stop() == 0
    return Held.between(first, last, Path(server.environ["MEASURED_FILE"]))


def test_loop_is_held_up_no_more_than_by_local_jobs(own_cluster: Cluster, tmp_path: Path) -> None:
    """RATE jobs a second, whose pictures are not decoded: by lanes here, then by a worker, and so on.

    Scheduler and worker would be other machines. Here they get only the processor time that nothing else wants, so that
    the loop does not wait for a processor where it would not; the gateway belongs to the service, and competes with it.
    """
    places = RATE // 10  # so that a job has a tenth of a second until its turn comes
    give_way(own_cluster.scheduler.pid)
    give_way(own_cluster.start_prepared(places, rate=RATE).joined().process.pid)
    sides = {
        "local": {"IMGSVC_WORKERS_ENGINE": "local", "MEASURED_LANES": f"{places} {RATE}"},
        "far": {"IMGSVC_WORKERS_LOCAL_PREVIEW": "true"},
    }
    table: dict[str, list[Held]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name, environment in sides.items():
            folder = tmp_path / f"{name}{number}"
            server = own_cluster.made_service(folder, MEASURED_FILE=str(folder / "looks"), **environment)
            table[name].append(held_up(server, 10 * RATE))
            print(f"\n{name}: {table[name][-1]}", end="")
    for rows in table.values():
        assert max(one.rate for one in rows) >= CARRIED * RATE, "this machine does not carry so many: set RATE"
    assert min(one.lag for one in table["far"]) <= 2 * min(one.lag for one in table["local"])


def own_spent(pid: int) -> float:
    """Processor seconds of a process itself."""
    return sum(map(int, stat_of(pid)[11:13])) / TICKS if pid else 0.0


def stat_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def spent(pid: int) -> float:
    """Processor seconds of a process, its children, and those of them that have ended."""
    try:
        fields = stat_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS + sum(map(spent, children(pid)))


def test_four_workers_take_no_more_than_lanes_of_this_machine(own_cluster: Cluster, tmp_path: Path) -> None:
    """Processor time of a photo, of all that works on it: on two processors that is what their number is divided by."""
    photo, photos = make.jpeg(4000, 3000), int(os.environ.get("PHOTOS", "24"))  # as a telephone takes it
    plain = {"IMGSVC_IMAGES_REUSE": "false", "IMGSVC_WORKERS_LOCAL_PREVIEW": "true"}
    (tmp_path / "local").mkdir()
    workers = [own_cluster.start_worker(1, 700).joined() for _ in range(4)]
    with (
        ServerProcess(tmp_path / "local", real=WHY, **plain, IMGSVC_WORKERS_COUNT="2") as local,
        own_cluster.service(tmp_path / "far", 4, **plain) as far,
    ):
        trees = {
            local: [local.service_pid],
            far: [far.service_pid, own_cluster.scheduler.pid, *(one.process.pid for one in workers)],
        }
        best: dict[ServerProcess, float] = {}
        walls: dict[ServerProcess, float] = {}
        for _ in range(ROUNDS):
            for server, pids in trees.items():
                before, began = sum(map(spent, pids)), time.monotonic()
                done = completed(server)
                for number in range(photos):
                    server.upload(photo, user=f"user{number}")
                until(lambda: completed(server) == done + photos, 300)  # noqa: B023
                best[server] = min(best.get(server, 1e9), (sum(map(spent, pids)) - before) / photos)
                walls[server] = min(walls.get(server, 1e9), (time.monotonic() - began) / photos)
        figures = {"local": local, "four workers": far}
        print(
            "\n"
            + ", ".join(
                f"{name}: {best[one]:.3f} s of processor a photo, {walls[one]:.3f} s" for name, one in figures.items()
            )
        )
        print(f"ratio {best[local] / best[far]:.3f} by processor time, {walls[local] / walls[far]:.3f} by the clock")
        assert best[local] / best[far] >= 0.9
