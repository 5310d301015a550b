"""The page of pictures with 100, 10,000 and 100,000 images: `./run bench pictures`.

The first grid, as a ratio of the best times of several rounds, which take turns, and the first paint where no script
arrives; and scrolling by 200 rows: the
longest task with a script, from a trace of the browser, and the most image nodes. Every variant is one small picture,
which the browser's side answers.
"""

import argparse
import asyncio
import signal
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.browser import chromium
from tests.support.dashboard_page import TOKEN
from tests.support.many_jobs import fill
from tests.support.scrolling import Scrolled, first_grid_ms, first_paint_ms, scrolled, visitor
from tests.support.server_process import ServerProcess

COUNTS = (100, 10_000, 100_000)
MOST_RATIO, MOST_TASK_MS, MOST_NODES = 1.2, 50.0, 300


async def measure(servers: dict[int, ServerProcess], rounds: int, runs: int) -> bool:
    chromium.optimizes = True
    best, painted = (dict.fromkeys(servers, float("inf")) for _ in range(2))
    async with AsyncExitStack() as stack:
        pages = {count: await stack.enter_async_context(visitor(server)) for count, server in servers.items()}
        for _ in range(rounds):
            for count, server in servers.items():
                best[count] = min(best[count], await first_grid_ms(pages[count], server))
                painted[count] = min(painted[count], await first_paint_ms(pages[count], server))
    found = {}
    for count in list(servers)[1:]:  # one page at a time: those of one host may share a process
        async with visitor(servers[count]) as page:
            found[count] = [await scrolled(page, servers[count]) for _ in range(runs)]
    await chromium.close()
    for count, milliseconds in best.items():
        ratio = milliseconds / best[COUNTS[0]]
        without = f"first paint without a script {painted[count]:.1f} ms"
        print(
            f"{count:>7,} images: first grid {milliseconds:6.1f} ms, {ratio:.2f} times that of {COUNTS[0]}; {without}"
        )
    good = [told(count, some) for count, some in found.items()]
    return all(good) and best[COUNTS[-1]] <= MOST_RATIO * best[COUNTS[0]]


def told(count: int, some: list[Scrolled]) -> bool:
    longest, busy = (statistics.median(getattr(one, name) for one in some) for name in ("longest_ms", "busy_ms"))
    nodes, rows = max(one.image_nodes for one in some), min(one.rows for one in some)
    print(
        f"{count:>7,} images: {rows} rows, longest task with a script {longest:.1f} ms (processor {busy:.1f} ms; "
        f"median of {len(some)}), at most {nodes} image nodes"
    )
    return longest < MOST_TASK_MS and nodes <= MOST_NODES


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the services end with it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        servers = {}
        try:
            for count in COUNTS:
                folder = Path(name) / str(count)
                fill(folder / "data" / "imgsvc.db", count)
                servers[count] = ServerProcess(folder, LOG_LEVEL="ERROR", OPERATOR_TOKEN=TOKEN).start()
            good = asyncio.run(measure(servers, given.rounds, given.runs))
        finally:
            for server in servers.values():
                server.process.kill()
                server.process.wait()
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
