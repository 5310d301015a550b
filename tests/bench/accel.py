"""`./run bench accel`: nginx sending a variant for the service (X-Accel-Redirect), beside sending it plainly.

In turn within one run, with the server block of the guide to proxies. Requests per second are medians; the processor
time for each request, of nginx and of the service together, is the least of the rounds.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from fixtures import make
from tests.bench.reading.answers import Subject
from tests.support.nginx import NGINX, nginx
from tests.support.papers import runs
from tests.support.server_process import ServerProcess

IMAGES = "/api/v1/images"
REAL = "its processor time is measured"
ROUNDS, SECONDS, CONNECTIONS = 7, 2, 16
REQUESTS = re.compile(r"(\d+) requests in ")


@dataclass(frozen=True, slots=True)
class Figure:
    variant: str
    size_bytes: int
    accel_us: float
    plain_us: float
    accel_per_second: float
    plain_per_second: float


@dataclass(frozen=True, slots=True)
class Site:
    """nginx before the service, and the processes of both."""

    url: str
    nginx: Subject
    service: Subject

    def round(self, path: str, seconds: int) -> tuple[float, float]:
        """(microseconds of processor time for each request, requests per second)."""
        before = self._processor_seconds()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", "Host: img.example.org", self.url + path]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = REQUESTS.search(told)
        assert found and "Non-2xx" not in told, told
        return 1e6 * (self._processor_seconds() - before) / int(found[1]), int(found[1]) / seconds

    def _processor_seconds(self) -> float:
        return self.nginx.processor_seconds() + self.service.processor_seconds()


def measured(site: Site, paths: dict[str, tuple[str, str]], given: argparse.Namespace) -> Iterator[Figure]:
    """`paths`: of each variant that through the service, and that of the file."""
    for variant, pair in paths.items():
        with httpx.Client(verify=False, headers={"Host": "img.example.org"}) as client:
            bodies = {client.get(site.url + path).content for path in pair}
        assert len(bodies) == 1
        rounds = [[site.round(path, given.seconds) for path in pair] for _ in range(given.rounds + 1)][1:]
        accel, plain = zip(*rounds, strict=True)
        yield Figure(
            variant,
            len(bodies.pop()),
            min(one[0] for one in accel),
            min(one[0] for one in plain),
            statistics.median(one[1] for one in accel),
            statistics.median(one[1] for one in plain),
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("./run bench accel", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a round")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each variant")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if not NGINX:
        sys.exit("nginx is not installed")
    settings, text = runs("docs/guides/proxy.md", "accel")
    environ = dict(re.findall(r"^(\w+)=(\S+)", settings, re.MULTILINE))
    environ.pop("IMGSVC_STORAGE_GROUP")  # nginx runs as this user here
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="accel-")))
        pictures = folder / "pictures"
        environ |= {"STORAGE_PATH": str(pictures), "IMGSVC_SERVER_TRUSTED_PROXIES": "127.0.0.1/32"}
        server = stack.enter_context(ServerProcess(folder, real=REAL, LOG_LEVEL="WARNING", **environ))
        image = server.job_ended(server.upload(make.jpeg(3200, 2400)).json()["job_id"])["image_id"]
        text = text.replace("/srv/imgsvc", str(pictures))
        text = text.replace("location = /metrics", f"location /plain/ {{ alias {pictures}/; }} location = /metrics")
        port = stack.enter_context(nginx(folder, text, server.url))
        own = Subject(server.url, server.service_pid)
        site = Site(f"https://127.0.0.1:{port}", Subject("", int((folder / "nginx.pid").read_text())), own)
        names = {path.parent.name: path.relative_to(pictures) for path in pictures.rglob("*.webp")}
        paths = {size: (f"{IMAGES}/{image}/direct?size={size}", f"/plain/{name}") for size, name in names.items()}
        for figure in measured(site, paths, given):
            print(json.dumps(asdict(figure)) if given.json else shown(figure), flush=True)


def shown(figure: Figure) -> str:
    return (
        f"{figure.variant:<10} {figure.size_bytes / 1024:7.1f} KB  accel {figure.accel_us:6.0f} us "
        f"{figure.accel_per_second:7.0f}/s   plain {figure.plain_us:6.0f} us {figure.plain_per_second:7.0f}/s   "
        f"{figure.accel_us / figure.plain_us:5.2f} x the processor time"
    )


if __name__ == "__main__":
    main()
