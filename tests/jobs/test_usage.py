"""image_storage_bytes is what lies in the storage: over restarts, deletions, and while the first sum is still made."""

import sqlite3
from collections import Counter
from contextlib import closing
from datetime import timedelta
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc import Settings
from imgsvc.jobs.table import usage
from imgsvc.jobs.table.model import now
from imgsvc.jobs.table.writer import DatabaseUnavailable
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.older_database import back_to_schema
from tests.support.speed import within
from tests.support.traffic import Told, told, told_when

PICTURES = [make.jpeg(160, 120), make.jpeg(325, 225, seed=2), make.jpeg(50, 75, seed=3)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "COUNTING_DELAY_SECONDS", 0)
    monkeypatch.setattr(usage, "COUNTING_PAUSE_SECONDS", 0)


def lying(s: Service) -> dict[str, int]:
    """{variant: bytes} of the files in the storage folder."""
    found: Counter[str] = Counter()
    for name in s.stored():
        found[name.split("/")[-2]] += (s.settings.storage.path / name).stat().st_size
    return dict(found)


def counted(now: Told) -> dict[str, int]:
    """The figures; variants of which there are none are left out."""
    return {dict(labels)["size"]: int(n) for (name, labels), n in now.items() if name == "image_storage_bytes" and n}


async def told_to_be_lying(s: Service) -> dict[str, int]:
    """The figures, once they match the folder: readers see a commit a moment before it is counted."""
    return counted(await told_when(s, lambda now: counted(now) == lying(s)))


def known(now: Told) -> bool:
    return any(name == "image_storage_bytes" for name, _ in now)


async def upload_all(s: Service) -> list[str]:
    return [(await s.completed(picture))["image_id"] for picture in PICTURES]


async def delete(s: Service, image_id: str) -> None:
    assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200


async def sums_of(s: Service) -> dict[str, Any]:
    """What the table of sums says, and what counting all rows says."""
    kept = await s.sql("SELECT name, total FROM job_sums WHERE kind = 'jobs' AND total <> 0 ORDER BY name")
    scan = "SELECT status, count(*) FROM processing_jobs WHERE deleted_at IS NULL GROUP BY status ORDER BY status"
    return {"kept": kept, "scanned": await s.sql(scan)}


def age(settings: Settings) -> None:
    """Make the database one of the version before, which knew no sums."""
    with closing(sqlite3.connect(settings.database.path)) as db, db:
        back_to_schema(db, 4)


async def test_exact_over_restarts_and_deletions(start: Starter) -> None:
    async with start() as s:
        first, second, _ = await upload_all(s)
        assert await told_to_be_lying(s) == lying(s) != {}
        await delete(s, first)
        assert await told_to_be_lying(s) == lying(s)
        before = lying(s)
    async with start() as s:
        assert counted(await told(s)) == lying(s) == before
        await delete(s, second)
        await s.completed(PICTURES[0])
        assert await told_to_be_lying(s) == lying(s) != before
        found = await sums_of(s)
        assert found["kept"] == found["scanned"] == [("completed", 2)]


@pytest.mark.parametrize("page", [1, 2, 5000])
async def test_older_database_is_counted_once(start: Starter, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    async with start() as s:
        await upload_all(s)
        broken = await s.ended(await s.upload(make.jpeg(640, 480)[:9000], user="bob"))
        assert broken["status"] == "failed"
        with within(WAIT_SECONDS):  # the commit is seen a moment before it is counted
            while (hour := s.state.jobs.counters.performance(now() - timedelta(hours=1))).failed == 0:
                await anyio.sleep(0.01)
    age(s.settings)
    monkeypatch.setattr(usage, "PAGE", page)
    for _ in range(2):
        async with start() as s:
            assert counted(await told_when(s, known)) == lying(s)
            assert (
                s.state.jobs.counters.by_status() | {"completed": 3, "failed": 1} == s.state.jobs.counters.by_status()
            )
            again = s.state.jobs.counters.performance(now() - timedelta(hours=1))
            assert (again.completed, again.failed) == (hour.completed, hour.failed) == (3, 1)
            assert again.avg_ready_seconds == pytest.approx(hour.avg_ready_seconds, abs=0.5)
            assert again.avg_processing_seconds == pytest.approx(hour.avg_processing_seconds, abs=0.5)


async def test_exact_although_images_come_and_go_meanwhile(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """And although the first count was cut short by a stop."""
    async with start() as s:
        first, second, _ = await upload_all(s)
    age(s.settings)
    monkeypatch.setattr(usage, "PAGE", 1)
    monkeypatch.setattr(usage, "KEPT", timedelta(0))  # of the minutes there is one piece
    monkeypatch.setattr(usage, "COUNTING_PAUSE_SECONDS", 3600)
    async with start() as s:
        with within(WAIT_SECONDS):
            while await s.sql("SELECT bytes_upto FROM job_counting") != [(1,)]:
                await anyio.sleep(0.01)
        assert not known(await told(s)), "half a sum was shown"
        await s.completed(make.jpeg(500, 400, seed=7))
        await delete(s, first)
        passing = await s.completed(make.jpeg(400, 400, seed=8))
        await delete(s, passing["image_id"])
        assert (await s.sql("PRAGMA wal_checkpoint(TRUNCATE)"))[0][0] == 0, "a snapshot is open"
    monkeypatch.setattr(usage, "COUNTING_PAUSE_SECONDS", 0)
    async with start() as s:
        assert counted(await told_when(s, known)) == lying(s)
        await delete(s, second)
        assert await told_to_be_lying(s) == lying(s)


async def test_damaged_row_stops_nothing(start: Starter) -> None:
    async with start() as s:
        image_id = (await upload_all(s))[0]
        for damaged in ("nonsense", '{"variants": 5}', '{"variants": {"a": 5, "b": {"size_bytes": 1e40}}}', "[]"):
            await s.sql("UPDATE processing_jobs SET processing_metadata = ? WHERE image_id = ?", damaged, image_id)
        await s.completed(PICTURES[0])
        assert {"original", "large"} <= counted(await told(s)).keys()
    age(s.settings)
    async with start() as s:
        assert {"original", "large"} <= counted(await told_when(s, known)).keys()


async def test_start_reads_the_sums_alone(start: Starter) -> None:
    """Whatever lies in the rows: no statement of a start looks at the completed ones."""
    async with start() as s:
        await upload_all(s)
    with closing(sqlite3.connect(s.settings.database.path)) as db, db:
        db.execute("UPDATE job_sums SET total = 1000 WHERE kind = 'jobs' AND name = 'completed'")
    async with start() as s:
        assert s.state.jobs.counters.by_status()["completed"] == 1000


async def test_record_whose_answer_was_lost_is_recorded_once(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start(jobs={"max_attempts": 1}) as s:
        job_table, lost = s.state.jobs.table, iter([True])
        write = job_table._write

        async def losing(change: Any, **more: Any) -> Any:
            answer = await write(change, **more)
            if (
                answer is True
                and (await s.sql("SELECT status FROM processing_jobs")) == [("completed",)]
                and next(lost, False)
            ):
                raise DatabaseUnavailable("the answer is lost")
            return answer

        monkeypatch.setattr(job_table, "_write", losing)
        receipt = await s.completed(PICTURES[0])
        await s.state.jobs.queue.settled(receipt["job_id"])
        assert next(lost, None) is None
        events = "SELECT count(*) FROM image_upload_events WHERE job_id = ? AND event_type = 'completed'"
        assert await s.sql(events, receipt["job_id"]) == [(1,)]
        stats = (await s.http.get("/api/v1/health/stats")).json()
        assert (stats["status_breakdown"]["completed"], stats["performance_24h"]["completed_24h"]) == (1, 1)
        job = await job_table.job(receipt["job_id"])
        assert job is not None
        assert not await job_table.complete(job, {}, {})  # a second end of the same run changes nothing


async def test_variant_that_is_made_no_more_still_counts(start: Starter) -> None:
    async with start(images={"sizes": {"old": 100, "large": 300}}) as s:
        await s.completed(PICTURES[0])
    async with start(images={"sizes": {"large": 300}}) as s:
        assert counted(await told_when(s, known)).keys() == {"old", "large"}
