"""`./run torture soak [--minutes N]`: at 80 % of what the machine renders, then a report of what has grown.

The minutes are divided into six parts. What the last one uses is compared with the second one: memory (PSS of the
service and its workers), open files, the write-ahead log, requests in progress, rows of tables that should be empty,
and the p99 of reads.
"""

import argparse
import json
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx

from fixtures import make
from tests.bench.memory import sampled
from tests.bench.uploading.service import Watched, upload_at_once
from tests.support.receiver import SECRET, Receiver
from tests.support.server_process import ServerProcess
from tests.torture.report import Report, add_option
from tests.torture.soak.traffic import Traffic, statuses

PARTS, LOAD, SAMPLE_SECONDS = 6, 0.8, 5
WARM_UP = 24  # images, whose rate is what the machine can do
MOST_GROWTH, MOST_SLOWER = 1.05, 1.5
PASSING = {  # tables whose rows belong to something that goes on
    "renders": "SELECT count(*) FROM renders WHERE state <> 'failed'",
    "outbox": "SELECT count(*) FROM webhook_outbox WHERE state = 'waiting'",
    "retired": "SELECT count(*) FROM retired_keys",
    "waiting": "SELECT count(*) FROM processing_jobs WHERE deleted_at IS NULL"
    " AND status IN ('pending', 'processing', 'retrying')",
}


@dataclass(frozen=True, slots=True)
class Sample:
    part: int
    memory_mb: float
    open_files: int
    log_mb: float
    in_progress: float
    passing_rows: int
    p99_ms: float


def sample(server: ServerProcess, traffic: Traffic, part: int) -> Sample:
    log = server.places.database.with_name(server.places.database.name + "-wal")
    with closing(sqlite3.connect(f"file:{server.places.database}?mode=ro", uri=True, timeout=30)) as db:
        rows = sum(int(db.execute(query).fetchone()[0]) for query in PASSING.values())
    metrics = httpx.get(f"{server.url}/metrics", headers=server.operator, timeout=30).text
    lines = (line for line in metrics.splitlines() if line.startswith("http_requests_in_progress"))
    return Sample(
        part,
        sampled(server.service_pid).total,
        server.watched.open_files,
        log.stat().st_size / 1e6 if log.exists() else 0.0,
        float(next(lines, "0 0").split()[-1]),
        rows,
        traffic.counts.p99() * 1000,
    )


def soak(server: ServerProcess, photos: list[bytes], minutes: float, seed: int) -> tuple[list[Sample], Traffic]:
    watched = Watched(server)
    began = time.perf_counter()
    for photo in photos:
        upload_at_once(server.url, photo, WARM_UP // len(photos), 4)
    rate = WARM_UP // len(photos) * len(photos) / (watched.all_done() - began)
    traffic = Traffic(server, photos, LOAD * rate, seed)
    start = time.monotonic()
    end = start + 60 * minutes
    print(f"{rate:.1f} images/s are rendered; {LOAD * rate:.1f} are uploaded each second for {minutes:g} minutes")
    thread = threading.Thread(target=traffic.run, args=(end,))
    thread.start()
    samples = []
    while thread.is_alive():
        thread.join(SAMPLE_SECONDS)
        part = min(PARTS - 1, int(PARTS * (time.monotonic() - start) / (end - start)))
        samples.append(sample(server, traffic, part))
        if sys.stderr.isatty():
            print(f"\r{time.monotonic() - start:.0f} s: {samples[-1]}", end="", file=sys.stderr, flush=True)
    watched.all_done()
    return samples, traffic


def compared(samples: list[Sample], traffic: Traffic) -> tuple[str, bool]:
    """The table, and whether all is within its limits."""
    second, last = ([one for one in samples if one.part == part] for part in (1, PARTS - 1))
    lines = [f"{'':<14} {'second':>10} {'last':>10} {'ratio':>7}   limit"]
    sound = not traffic.counts.wrong
    for name in ("memory_mb", "open_files", "log_mb", "in_progress", "passing_rows", "p99_ms"):
        before, after = (median(getattr(one, name) for one in part) for part in (second, last))
        limit = MOST_SLOWER if name == "p99_ms" else MOST_GROWTH
        few = max(before, after) <= 8  # a handful that comes and goes has no ratio
        ratio = after / before if before else 1.0
        sound &= few or ratio <= limit
        lines.append(f"{name:<14} {before:10.1f} {after:10.1f} {ratio:7.3f}   {'' if few else f'<= {limit}'}")
    counts = traffic.counts
    lines.append(f"{counts.accepted} accepted, {counts.refused} refused for now, {len(counts.wrong)} wrong answers")
    return "\n".join([*lines, *dict.fromkeys(counts.wrong)]), sound


def main() -> int:
    parser = argparse.ArgumentParser("./run torture soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--photo", type=Path, nargs="*", help="JPEGs to upload; without them drawn ones of 2 to 8 MP")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the samples")
    add_option(parser)
    given = parser.parse_args()
    report = Report("Soak", given.seed)
    drawn = [(1633, 1225, 1), (2309, 1732, 2), (3266, 2449, 3)]
    photos = [path.read_bytes() for path in given.photo or ()] or [make.jpeg(*one) for one in drawn]
    with tempfile.TemporaryDirectory() as folder, Receiver() as receiver:
        hook = {"name": "soak", "url": receiver.url, "secret": SECRET, "allow_private": True}
        environ = {"IMGSVC_WEBHOOKS": json.dumps([hook]), "IMGSVC_IMAGES_REUSE": "false", "IMGSVC_WORKERS_COUNT": "0"}
        with ServerProcess(Path(folder), real="its memory is measured", **environ) as server:
            samples, traffic = soak(server, photos, given.minutes, given.seed)
            ends = statuses(server, [job for job, _ in traffic.receipts.values()])
            traffic.close()
            text, sound = compared(samples, traffic)
            sound &= set(ends.values()) <= {"completed"}
            print(text)
            told = ", ".join(f"{count} {status}" for status, count in Counter(ends.values()).items())
            print(f"webhooks received: {len(receiver.received)}; images that were kept: {told}")
        report.text = text
        report.add({"minutes": given.minutes, "images that were kept": told}, [] if sound else ["A limit is exceeded."])
        report.write(given.report)
        if given.json:
            given.json.write_text(json.dumps([asdict(one) for one in samples]))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
