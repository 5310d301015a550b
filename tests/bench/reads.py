"""What a read costs, beside a bare handler that sends the same status, headers and body from memory.

`./run bench reads [--json]`: a real service and a bare Starlette application under the same Hypercorn, asked in turn
within one run. The measure is the processor time (utime + stime) of the server's process for each request, the least of
the rounds; requests per second, their median, are beside. Large variants are compared with Starlette's FileResponse.
`--log INFO` measures with request lines. `--server imgsvc` puts the bare handler under the service's own server.

`./run bench reads growth`: beside a million jobs. `./run bench reads beside-encoders`: latencies beside busy workers.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fixtures import make
from tests.bench.reading import beside_encoders, growth
from tests.bench.reading.answers import Subject, answers, bare
from tests.bench.reading.load import WITHOUT_WRK, Read
from tests.support.server_process import ServerProcess

IMAGES = "/api/v1/images"
ROUNDS, SECONDS, WARM_UP_SECONDS = 7, 2, 1
SMALL_BYTES = 64 * 1024
REAL = "its processor time is measured"
OTHERS = {"growth": growth, "beside-encoders": beside_encoders}


@dataclass(frozen=True, slots=True)
class Figure:
    """Of one read: microseconds of processor time for each request, the least; requests per second, the median."""

    read: str
    connections: int
    log: str
    own_us: float
    bare_us: float
    own_per_second: float
    bare_per_second: float

    @property
    def ratio(self) -> float:
        return self.own_us / self.bare_us

    @property
    def target(self) -> float:
        """What the ratio is to be at most."""
        return 1.0 if "FileResponse" in self.read else 1.55 if self.log == "INFO" else 1.25


def made(server: ServerProcess) -> list[Read]:
    """Ten images and a large one, and the reads of them that are measured."""
    photo, detailed = make.jpeg(2000, 1500, quality=85), make.jpeg(3200, 2400)
    receipts = [server.upload(data).json() for data in (*[photo] * 10, detailed)]
    for receipt in receipts:
        assert server.job_ended(receipt["job_id"])["status"] == "completed"
    one, *_, large = receipts
    batch = ",".join(receipt["image_id"] for receipt in receipts[:10])
    direct = f"{IMAGES}/{one['image_id']}/direct?size="
    sizes = _sizes(server, one["image_id"])
    small = max((name for name in sizes if sizes[name] <= SMALL_BYTES), key=lambda name: sizes[name])
    stored = server.http.get(f"{server.url}{IMAGES}/{one['image_id']}?size={small}").json()["url"]
    etag = server.http.head(f"{server.url}{direct}{small}").headers["ETag"]
    files = [
        Read(f"direct {size >> 10} KB, FileResponse", f"{IMAGES}/{large['image_id']}/direct?size={name}")
        for name, size in _sizes(server, large["image_id"]).items()
        if SMALL_BYTES < size <= 1 << 20
    ]
    return [
        Read("info", f"{IMAGES}/{one['image_id']}"),
        Read("all", f"{IMAGES}/{one['image_id']}/all"),
        Read("job", f"{IMAGES}/jobs/{one['job_id']}"),
        Read("batch of 10", f"{IMAGES}/batch?image_ids={batch}"),
        Read(f"direct {sizes['thumbnail'] / 1024:.1f} KB", direct + "thumbnail"),
        Read(f"direct {sizes[small] >> 10} KB", direct + small),
        Read(f"/storage {sizes[small] >> 10} KB", stored),
        Read("304", direct + small, headers={"If-None-Match": etag}),
        Read("HEAD", direct + small, "HEAD"),
        *files,
    ]


def _sizes(server: ServerProcess, image_id: str) -> dict[str, int]:
    page = server.http.get(f"{server.url}{IMAGES}/{image_id}/all").json()
    return {name: variant["size_bytes"] for name, variant in page["metadata"]["variants"].items()}


def measured(own: Subject, other: Subject, reads: list[Read], given: argparse.Namespace) -> Iterator[Figure]:
    for connections in given.connections:
        for number, read in enumerate(reads):
            if given.only and given.only not in read.name:
                continue
            beside = Read(read.name, f"/{number}", read.method, read.headers)
            for subject, asked in ((own, read), (other, beside)):
                subject.round(asked, connections, WARM_UP_SECONDS)
            rounds = [
                (own.round(read, connections, given.seconds), other.round(beside, connections, given.seconds))
                for _ in range(given.rounds)
            ]
            ours, theirs = zip(*rounds, strict=True)
            yield Figure(
                read.name,
                connections,
                given.log,
                min(one[0] for one in ours),
                min(one[0] for one in theirs),
                statistics.median(one[1] for one in ours),
                statistics.median(one[1] for one in theirs),
            )


def told(figure: Figure) -> str:
    mark = "" if figure.ratio <= figure.target else f"   over {figure.target:g}"
    return (
        f"{figure.read:<28} {figure.connections:>4} {figure.own_us:9.0f} us {figure.bare_us:9.0f} us "
        f"{figure.ratio:6.2f}   {figure.own_per_second:7.0f}/s {figure.bare_per_second:7.0f}/s{mark}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    parser.add_argument("--log", choices=("WARNING", "INFO"), default="WARNING", help="INFO: with request lines")
    parser.add_argument("--server", choices=("hypercorn", "imgsvc"), default="hypercorn", help="of the bare handler")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a round")
    parser.add_argument("--only", default="", help="only the reads whose name contains this")
    return parser.parse_args()


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        OTHERS[sys.argv.pop(1)].main()
        return
    given = arguments()
    if not shutil.which("wrk"):
        print(WITHOUT_WRK, file=sys.stderr)
    with tempfile.TemporaryDirectory() as name, ServerProcess(Path(name), real=REAL, LOG_LEVEL=given.log) as server:
        reads = made(server)
        found = asyncio.run(answers(server, reads))
        with bare(Path(name), found, given.server) as other:
            if not given.json:
                print(f"{'log ' + given.log:<28} {'at once':>4} {'ours':>7} {'bare':>12} {'ratio':>9}")
            for figure in measured(Subject(server.url, server.service_pid), other, reads, given):
                shown = json.dumps({**asdict(figure), "ratio": round(figure.ratio, 3)}) if given.json else told(figure)
                print(shown, flush=True)


if __name__ == "__main__":
    main()
