"""Lists of images beside a great many others: what a page costs, and what the indexes cost an upload.

`./run bench lists [--images N] [--folder FOLDER]`: fills a table of N images and one of 1,000, half of each one user's,
asks for every filter and every pair, the first page and the 1,000th, and compares the processor time of pages of the
same length: where fewer than 50 images of the small table match, the large one is asked for as many. Then it uploads to
the large table and to a copy without the indexes of lists, in turn. A folder is kept and used again.

`./run bench lists uploads` compares the uploads alone, in a table of 100,000 by default. Either ends with 1
if a limit is passed: a page at most 3 times, a 202 at most 1.1 times.
"""

import argparse
import asyncio
import itertools
import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import structlog

from fixtures import make
from imgsvc import testing
from imgsvc.http.wire.list_query import context_of
from imgsvc.jobs.table.listing import FIRST, ImageFilter, Position
from tests.conftest import Service
from tests.support.many_jobs import fill

SMALL, PAGE, DEEP = 1_000, 50, 1_000
TIMES, UPLOADS = 15, 400
MOST_OF_A_PAGE, MOST_OF_AN_UPLOAD = 3.0, 1.1
USER = "user-0"
FILTERS: dict[str, dict[str, str]] = {
    "bucket": {"bucket": "team/a"},
    "completed": {"status": "completed"},
    "failed": {"status": "failed"},
    "name": {"q": "img"},
    "one name": {"q": "img_0000"},
    "sha256": {"sha256": f"{7:064x}"},
    "since": {"created_after": "2020-01-01T00:00:00Z"},
    "before": {"created_before": "2090-01-01T00:00:00Z"},
}
NEW_INDEXES = (
    "images_of_user",
    "images_of_user_in_bucket",
    "images_of_user_unfinished",
    "images_of_user_by_name",
    "images_of_org",
    "images_in_bucket",
    "images_by_name",
    "images_by_sha256",
)  # images_expiring stays: the sweep that reads it would read the whole table beside the uploads


def queries() -> Iterator[tuple[str, dict[str, str]]]:
    """Every filter and every pair, by name."""
    for size in (0, 1, 2):
        for names in itertools.combinations(FILTERS, size):
            if not {"completed", "failed"} <= {*names} and not {"name", "one name"} <= {*names}:
                merged: dict[str, str] = {}
                for name in names:
                    merged |= FILTERS[name]
                yield " + ".join(names) or "(none)", merged


async def milliseconds(s: Service, query: dict[str, str], limit: int = PAGE) -> tuple[float, int]:
    """The least processor time of a page, and how many images it has."""
    headers, found = s.bearer(USER), []
    for _ in range(TIMES):
        began = time.process_time()
        response = await s.http.get("/api/v1/images", params={**query, "limit": str(limit)}, headers=headers)
        found.append(time.process_time() - began)
        assert response.status_code == 200, response.text
    return 1000 * min(found), len(response.json()["images"])


async def deep_cursor(s: Service) -> str:
    """The cursor of the 1,000th page without a filter."""
    after: Position | None = FIRST
    wanted = ImageFilter(org_id="default-org", user_id=USER)
    for _ in range(DEEP - 1):
        assert after is not None, "there are fewer pages"
        after = (await s.state.jobs.lists.page(wanted, after, PAGE)).next
    assert after is not None
    return s.state.access.cursors.of(after.created_at, after.image_id, context_of("user own", wanted))


async def upload_milliseconds(s: Service, number: int) -> float:
    """The processor time of a 202."""
    data = make.jpeg(64, 40 + number % 100)
    headers = s.bearer(USER) | {"Content-Type": "image/jpeg"}
    began = time.process_time()
    response: httpx.Response = await s.http.post("/api/v1/images/upload?bucket=photos", content=data, headers=headers)
    taken = time.process_time() - began
    assert response.status_code == 202, response.text
    return 1000 * taken


def opened(folder: Path) -> Any:
    limits = {"max_uploads": 1_000_000}
    return testing.settings_in(
        folder / "data", rate_limit=limits, jobs={"max_waiting": 10_000_000}, log={"level": "ERROR"}
    )


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Service]:
    """A service that accepts and renders nothing."""
    async with testing.serving(opened(folder)) as (app, http):
        http.headers.pop("Authorization", None)
        s = Service(app, opened(folder), http)
        s.state.jobs.queue.hold()
        yield s


async def pages(folder: Path, lengths: dict[str, int]) -> dict[str, tuple[float, int]]:
    found = {}
    async with served(folder) as s:
        for name, query in queries():
            found[name] = await milliseconds(s, query, max(1, lengths.get(name, PAGE)))
        if folder.name != "small":
            found["1,000th page"] = await milliseconds(s, {"after": await deep_cursor(s)})
    return found


async def uploads(*folders: Path) -> list[list[float]]:
    """The times of 202s by folder: one upload to each in turn, so that what else runs here takes from all alike."""
    found: list[list[float]] = [[] for _ in folders]
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(served(folder)) for folder in folders]
        for number in range(UPLOADS):
            for place, s in enumerate(services):
                found[place].append(await upload_milliseconds(s, number))
    return found


def quartile(times: list[float]) -> float:
    return sorted(times)[len(times) // 4]


def without_indexes(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "data" / "imgsvc.db")) as db:
        for name in NEW_INDEXES:
            db.execute(f"DROP INDEX {name}")
        db.executescript(
            "DROP INDEX jobs_recent; CREATE INDEX jobs_recent ON processing_jobs (created_at) WHERE deleted_at IS NULL;"
            "DROP INDEX jobs_recent_of_status;"
            "CREATE INDEX jobs_recent_of_status ON processing_jobs (status, created_at) WHERE deleted_at IS NULL;"
        )


def filled(folder: Path, size: int) -> Path:
    if not (folder / "data" / "imgsvc.db").exists():
        began = time.monotonic()
        fill(folder / "data" / "imgsvc.db", size, half=True)
        print(f"a table of {size:,} images, made in {time.monotonic() - began:.0f} s")
    return folder


def measure(folder: Path, images: int) -> bool:
    """Whether every page keeps the limit."""
    small, large = filled(folder / "small", SMALL), filled(folder / "large", images)
    base = asyncio.run(pages(small, {}))
    found = asyncio.run(pages(large, {name: length for name, (_, length) in base.items()}))
    base["1,000th page"] = base["(none)"]
    print(f"processor time of a page of at most {PAGE}, among {images:,} images and among {SMALL:,}")
    for name, (taken, length) in found.items():
        before = base[name][0]
        print(f"{name:<24} {length:3} images {taken:7.2f} ms {before:7.2f} ms   {taken / before:5.2f} ×")
    worst = max(taken / base[name][0] for name, (taken, _) in found.items())
    print(f"the worst is {worst:.2f} ×; at most {MOST_OF_A_PAGE:g} is wanted")
    return worst <= MOST_OF_A_PAGE


def measure_uploads(folder: Path, images: int) -> bool:
    """Whether an upload keeps the limit."""
    large, bare = filled(folder / "large", images), folder / "bare"
    if not bare.exists():
        shutil.copytree(large, bare)
        without_indexes(bare)
    taken, before = (quartile(times) for times in asyncio.run(uploads(large, bare)))
    print(f"a 202 takes {taken:.2f} ms with the indexes of lists, {before:.2f} ms without: {taken / before:.2f} ×")
    print(f"lower quartiles of {UPLOADS} uploads to each, in turn; at most {MOST_OF_AN_UPLOAD:g} is wanted")
    return taken / before <= MOST_OF_AN_UPLOAD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=["pages", "uploads"], help="measure this part alone")
    parser.add_argument("--images", type=int, help="1,000,000 unless given, or 100,000 for the uploads alone")
    parser.add_argument("--folder", type=Path, help="where the tables are kept")
    parser.add_argument("--fill", action="store_true", help="fill the tables and measure nothing")
    given = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )  # its lines would be measured
    images = given.images or (100_000 if given.part == "uploads" else 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        if given.fill:
            for one, size in (("small", SMALL), ("large", images)):
                fill(folder / one / "data" / "imgsvc.db", size, half=True)
            return
        parts = (
            [measure_uploads]
            if given.part == "uploads"
            else [measure]
            if given.part == "pages"
            else [measure, measure_uploads]
        )
        kept = [part(folder, images) for part in parts]
    raise SystemExit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
