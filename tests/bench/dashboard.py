"""The dashboard's data beside a great many jobs: how long it takes, and what it costs other requests.

`./run bench dashboard [--jobs N]`: fills a table, starts the service on it, asks.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from imgsvc.access.operator_auth import TOKEN_FILE
from tests.support.many_jobs import fill
from tests.support.server_process import ServerProcess

FRESH_SECONDS = 1.05  # one answer is shared for a second: a request for fresh data waits for it to pass
LOOKS, POLLERS, ASKED = 40, 8, 1500


def milliseconds(ask: Callable[[], httpx.Response], times: int, pause: float = 0) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        assert ask().status_code == 200
        found.append(1000 * (time.perf_counter() - began))
        time.sleep(pause)
    return sorted(found)


def told(name: str, found: list[float]) -> None:
    print(
        f"{name:<44} median {statistics.median(found):6.2f} ms   99 % {found[int(len(found) * 0.99)]:6.2f} ms   "
        f"worst {found[-1]:6.2f} ms   ({len(found)})"
    )


def measure(server: ServerProcess) -> None:
    operator = {"Authorization": f"Bearer {(server.folder / 'data' / TOKEN_FILE).read_text().strip()}"}

    def data() -> httpx.Response:
        return server.http.get(f"{server.url}/dashboard/data", headers=operator)

    def info() -> httpx.Response:
        return other.get(f"{server.url}/info")

    milliseconds(data, 3)
    told("/dashboard/data, fresh", milliseconds(data, LOOKS, FRESH_SECONDS))
    told("/dashboard/data, within the same second", milliseconds(data, ASKED))
    with httpx.Client() as other:
        milliseconds(info, 50)
        told("/info, no dashboard open", milliseconds(info, ASKED))
        over = threading.Event()

        def poll() -> None:
            with httpx.Client() as client:
                while not over.wait(0.1):
                    client.get(f"{server.url}/dashboard/data", headers=operator)

        pollers = [threading.Thread(target=poll) for _ in range(POLLERS)]
        for poller in pollers:
            poller.start()
        told(f"/info, {POLLERS} dashboards asking ten times a second", milliseconds(info, ASKED))
        over.set()
        for poller in pollers:
            poller.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        fill(folder / "data" / "imgsvc.db", given.jobs)
        print(f"a table of {given.jobs:,} jobs, made in {time.monotonic() - began:.0f} s")
        with ServerProcess(folder, LOG_LEVEL="ERROR") as server:
            time.sleep(5)  # waiting jobs of the table have no uploads and end as failed
            measure(server)


if __name__ == "__main__":
    main()
