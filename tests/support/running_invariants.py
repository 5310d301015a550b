"""What must hold of a running service that is asked nothing: its counters are those of a scan, and nothing grows."""

import sqlite3
import ssl
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.told_metrics import Sample, samples

CALM_SECONDS = 6  # for what is under way to end; jobs may go on
ANSWER_SECONDS = 10
SPARE_FILES = 6  # the health check's, a reader's snapshot, a connection that is just being closed
LANES = ("previews", "renders", "retrying")
SAMPLES = ("http_requests_in_progress", "image_processing_jobs_active", "image_storage_bytes", "job_queue_length")

Samples = Mapping[Sample, float]


@dataclass(frozen=True, slots=True)
class Watched:
    """A service that runs: `idle_files` is how many files it had open when it had just started.

    `operator` are the headers that let in to /metrics; None: nothing is asked there.
    """

    url: str
    operator: Mapping[str, str] | None
    pid: int
    database: Path
    idle_files: int

    @property
    def open_files(self) -> int:
        """Without sockets: how many of these there are is up to clients and to the store."""
        found = 0
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):  # it was closed just now
                found += not str(descriptor.readlink()).startswith("socket:")
        return found


def faults_of_running(watched: Watched) -> list[str]:
    """All that does not hold, as sentences, after it has had CALM_SECONDS to come to rest."""
    deadline = time.monotonic() + CALM_SECONDS
    while found := list(_faults(watched)):
        if time.monotonic() > deadline:
            return found
        time.sleep(0.05)
    return []


def _faults(watched: Watched) -> Iterator[str]:
    if watched.operator is not None:
        yield from _faults_of_counters(watched)
    if watched.open_files > watched.idle_files + SPARE_FILES:
        yield f"{watched.open_files} files are open; {watched.idle_files} were when it had started."


def _faults_of_counters(watched: Watched) -> Iterator[str]:
    rows = _scan(watched.database)
    told = _metrics(watched)
    if rows != _scan(watched.database):
        yield "Jobs change all the time: counters were not compared."
        return
    in_progress = _value(told, "http_requests_in_progress")
    if in_progress > 1:  # the question itself
        yield f"{in_progress - 1:.0f} requests are still in progress, and none was sent."
    if _value(told, "image_processing_jobs_active") > rows.running:
        yield f"{_value(told, 'image_processing_jobs_active'):.0f} jobs are said to run; {rows.running} do."
    for lane in LANES:
        said, waiting = _value(told, "job_queue_length", lane=lane), rows.waiting(lane)
        if said != waiting:
            yield f"{said:.0f} jobs are said to wait for {lane}; {waiting} do."
    yield from _faults_of_sums(told, rows.stored)


def _faults_of_sums(told: Samples, stored: Mapping[str, int]) -> Iterator[str]:
    for (name, labels), said in told.items():
        size = dict(labels).get("size", "")
        if name == "image_storage_bytes" and said != stored.get(size, 0):
            yield f"{said:.0f} bytes of the variant {size} are said to be stored; the rows name {stored.get(size, 0)}."


@dataclass(frozen=True, slots=True)
class Scan:
    """Jobs that are not deleted by (status, queue, whether they wait for a time), and bytes of the completed ones."""

    jobs: Mapping[tuple[str, str | None, bool], int]
    stored: Mapping[str, int]

    @property
    def running(self) -> int:
        return sum(jobs for (status, queue, _), jobs in self.jobs.items() if status == "processing" and not queue)

    def waiting(self, lane: str) -> int:
        if lane == "retrying":
            return sum(jobs for (status, _, due), jobs in self.jobs.items() if status == "retrying" and due)
        return sum(jobs for (_, queue, _), jobs in self.jobs.items() if queue == lane)


def _scan(database: Path) -> Scan:
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        jobs = db.execute(
            "SELECT status, queue, next_attempt_at IS NOT NULL, count(*) FROM processing_jobs"
            " WHERE deleted_at IS NULL GROUP BY 1, 2, 3"
        )
        counts = Counter({(status, queue, bool(due)): many for status, queue, due, many in jobs})
        stored = db.execute(
            "SELECT variant.key, sum(json_extract(variant.value, '$.size_bytes'))"
            " FROM processing_jobs AS job, json_each(job.processing_metadata, '$.variants') AS variant"
            " WHERE +job.status = 'completed' AND +job.deleted_at IS NULL GROUP BY 1"
        )
        return Scan(counts, dict(stored.fetchall()))


def _metrics(watched: Watched) -> Samples:
    request = urllib.request.Request(f"{watched.url}/metrics", headers=dict(watched.operator or {}))
    context = ssl._create_unverified_context() if watched.url.startswith("https") else None
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context) as answer:
        told = samples(answer.read().decode())
    return {sample: value for sample, value in told.items() if sample[0] in SAMPLES}


def _value(told: Samples, metric: str, **labels: str) -> float:
    return told[metric, frozenset(labels.items())]
