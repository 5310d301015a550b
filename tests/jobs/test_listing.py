"""Lists of images in the table: which images, in which order, by which plan, and over how many rows."""

import itertools
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from imgsvc.jobs.table import listing, usage
from imgsvc.jobs.table.database import Readers, open_for_writing
from imgsvc.jobs.table.listing import FIRST, ImageFilter, ImageLists, Position
from imgsvc.jobs.table.model import Job, folded
from tests.support.many_jobs import fill

JOBS = 600
FILTERS: dict[str, dict[str, Any]] = {
    "bucket": {"bucket": "team/a"},
    "completed": {"status": "completed"},
    "failed": {"status": "failed"},
    "error": {"error_code": "storage_error"},
    "name": {"name": "img_0"},
    "few names": {"name": "img_00003"},
    "sha256": {"sha256": f"{7:064x}"},
    "since": {"since": "2020-01-01T00:00:00.000000+00:00"},
    "before": {"before": "2090-01-01T00:00:00.000000+00:00"},
}
SCOPES: dict[str, dict[str, Any]] = {
    "own": {"org_id": "default-org", "user_id": "user-0"},
    "org": {"org_id": "default-org"},
    "all": {},
}


def combinations() -> Iterator[tuple[str, ...]]:
    """Every filter and every pair of filters."""
    for size in (0, 1, 2):
        for names in itertools.combinations(FILTERS, size):
            if not {"completed", "failed"} <= {*names} and not {"name", "few names"} <= {*names}:
                yield names


def wanted(scope: str, names: tuple[str, ...]) -> ImageFilter:
    merged = dict(SCOPES[scope])
    for name in names:
        merged |= FILTERS[name]
    return ImageFilter(**merged)


class Explained(Readers):
    """Records the plan of each statement that it executes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.plans: dict[str, list[str]] = {}

    async def select(self, query: str, statement: str, parameters: dict[str, Any]) -> list[aiosqlite.Row]:
        async with self.lend() as db:
            plan = await db.execute_fetchall(f"EXPLAIN QUERY PLAN {statement}", parameters)
            self.plans[statement] = [row["detail"] for row in plan]
        return await super().select(query, statement, parameters)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists") / "imgsvc.db"
    fill(path, JOBS, half=True)
    return path


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[ImageLists, Explained]]:
    async with Explained(path) as readers:
        yield ImageLists(readers), readers


async def walked(lists: ImageLists, one: ImageFilter, limit: int) -> list[str]:
    """The image IDs of all pages."""
    found: list[str] = []
    after: Position | None = FIRST
    while after is not None:
        page = await lists.page(one, after, limit)
        assert len(page.jobs) <= limit
        found += [job.image_id for job in page.jobs]
        after = page.next
    return found


def expected(path: Path, one: ImageFilter) -> list[str]:
    """By looking at each row."""
    return chosen(jobs_of(path), one)


def jobs_of(path: Path) -> list[Job]:
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        rows = db.execute(
            "SELECT * FROM processing_jobs WHERE deleted_at IS NULL ORDER BY created_at DESC, image_id DESC"
        ).fetchall()
    return [Job.of(row) for row in rows]


def chosen(jobs: list[Job], one: ImageFilter) -> list[str]:
    return [job.image_id for job in jobs if matches(job, one)]


def matches(job: Job, one: ImageFilter) -> bool:
    return (
        (one.org_id is None or job.org_id == one.org_id)
        and (one.user_id is None or job.user_id == one.user_id)
        and (one.bucket is None or job.storage_bucket == one.bucket)
        and (one.status is None or job.status == one.status)
        and (one.error_code is None or job.error_code == one.error_code)
        and (one.sha256 is None or job.sha256 == one.sha256)
        and (one.name is None or folded(job.original_filename or "").startswith(one.name))
        and job.created_at >= one.since
        and (not one.before or job.created_at < one.before)
    )


@pytest.mark.parametrize("few", [listing.FEW_NAMES, 1], ids=["sorted", "walked"])
@pytest.mark.parametrize("scope", SCOPES)
async def test_every_filter_and_pair(scope: str, few: int, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FEW_NAMES", few)
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 40)
    monkeypatch.setattr(listing, "FEW_LOOKED_AT", 15)
    jobs = jobs_of(database)
    async with opened(database) as (lists, readers):
        for names in combinations():
            one = wanted(scope, names)
            assert await walked(lists, one, 7) == chosen(jobs, one), names
        assert len(readers.plans) > 10
        for statement, plan in readers.plans.items():
            assert plan and all(step.startswith("SEARCH processing_jobs USING") for step in plan), (statement, plan)


async def test_page_between_times(database: Path) -> None:
    rows = expected(database, wanted("own", ()))
    async with opened(database) as (lists, _):
        page = await lists.page(wanted("own", ()), FIRST, 200)
        moments = [job.created_at for job in page.jobs]
        between = replace(wanted("own", ()), since=moments[150], before=moments[50])
        assert await walked(lists, between, 30) == rows[51:151]


async def test_rare_images_are_looked_for_a_bounded_time(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may be empty, and says where the search goes on."""
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 10)
    monkeypatch.setattr(listing, "FEW_LOOKED_AT", 4)
    rare = ImageFilter(**SCOPES["own"], bucket="team/a", sha256=f"{7:064x}")
    rare_name = ImageFilter(**SCOPES["own"], status="completed", bucket="team/b", before="2090")
    async with opened(database) as (lists, _):
        for one in (rare, rare_name):
            assert await walked(lists, one, 50) == expected(database, one)
        first = await lists.page(ImageFilter(bucket="photos", org_id="nobody's"), FIRST, 50)
        assert first.jobs == [] and first.next is not None


async def test_names_of_an_older_version_are_folded(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "imgsvc.db"
    shutil.copy(database, path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE processing_jobs SET folded_name = NULL, original_filename = 'Stra\u00dfe.JPG'")
        db.execute("UPDATE processing_jobs SET original_filename = NULL WHERE deleted_at IS NOT NULL")
        db.execute("UPDATE job_counting SET names_upto = 0")
    writing = await open_for_writing(path)
    while await usage.fold_names(writing):
        pass
    found = list(
        await writing.execute_fetchall("SELECT DISTINCT folded_name FROM processing_jobs WHERE deleted_at IS NULL")
    )
    counting = list(await writing.execute_fetchall("SELECT names_upto FROM job_counting"))
    await writing.close()
    assert [row[0] for row in found] == ["strasse.jpg"] and counting[0][0] is None
