"""How fast a thousand images move to S3, are checked there, move back, and are backed up, beside a service.

`./run bench storage [--images N]`: a real service and a real S3 server on this machine, which share its processors. The
measure is a plain client, four requests at a time, that puts the same files and reads each back, as a move does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fixtures import make
from tests.support.s3 import S3Server
from tests.support.server_process import ServerProcess, until

AT_ONCE = 4
SIDE = (640, 480)


def filled(server: ServerProcess, images: int) -> None:
    photos = [make.jpeg(*SIDE, seed) for seed in range(8)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        receipts = list(pool.map(lambda number: server.upload(photos[number % len(photos)]).json(), range(images)))
    for receipt in receipts:
        until(lambda: server.job(receipt["job_id"])["status"] == "completed", 600)  # noqa: B023, called at once


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def command(server: ServerProcess, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "imgsvc", "storage", *arguments, "--json"],
        cwd=server.folder,
        env=server.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def plain_copy(s3: S3Server, folder: Path) -> int:
    """Bytes that went there and came back."""
    bucket = s3.bucket()

    def copy(path: Path) -> int:
        body = path.read_bytes()
        s3.client.put_object(Bucket=bucket, Key=path.name, Body=body)
        assert s3.client.get_object(Bucket=bucket, Key=path.name)["Body"].read() == body
        return len(body)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(copy, [path for path in folder.rglob("*.webp") if path.is_file()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name, S3Server(Path(name) / "s3") as s3:
        environment = {**s3.environment(s3.bucket()), "STORAGE_BACKEND": "local"}
        limits = {"RATE_LIMIT_MAX_UPLOADS": "1000000", "IMGSVC_JOBS_MAX_WAITING": "100000", "LOG_LEVEL": "ERROR"}
        with ServerProcess(Path(name), **environment, **limits) as server:
            print(f"{images} images of {SIDE[0]} x {SIDE[1]}: {timed(lambda: filled(server, images)):.1f} s to make")
            moved = 0

            def measure() -> None:
                nonlocal moved
                moved = plain_copy(s3, server.folder / "storage")

            plain = timed(measure)
            print(f"{'plain client, put and read back':<34} {plain:7.1f} s   {moved / 1e6:.1f} MB, {4 * images} files")
            for what, arguments in (
                ("migrate --to s3", ("migrate", "--to", "s3")),
                ("verify", ("verify", "--grace", "0")),
                ("verify --digests", ("verify", "--digests", "--grace", "0")),
                ("backup --with-s3", ("backup", str(Path(name) / "backup"), "--with-s3")),
                ("backup --with-s3, a second time", ("backup", str(Path(name) / "backup"), "--with-s3")),
                ("migrate --to local", ("migrate", "--to", "local")),
            ):
                took = timed(lambda: command(server, *arguments))  # noqa: B023, called at once
                print(
                    f"{what:<34} {took:7.1f} s   {images / took:7.1f} images/s   {took / plain:.2f} x the plain client"
                )


if __name__ == "__main__":
    main()
