"""Whose turn it is: the claims, on a real table without lanes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiosqlite
import anyio

from imgsvc.jobs.counters import JobCounters
from imgsvc.jobs.retry import Decision, Failure
from imgsvc.jobs.table.admission_memory import AdmissionMemory
from imgsvc.jobs.table.database import Readers, open_for_writing
from imgsvc.jobs.table.job_table import JobTable
from imgsvc.jobs.table.model import Job, NewJob, QueueName, as_text, now
from imgsvc.jobs.table.quota import Quota
from imgsvc.jobs.table.row_memory import RowMemory
from imgsvc.jobs.table.transactions import Blocked
from imgsvc.jobs.table.waiting_jobs import WaitingJobs
from imgsvc.jobs.table.writer import Writer
from imgsvc.storage.bounded_memory import BoundedMemory
from tests.support.new_jobs import new_job

GIGABYTE = 1 << 30


@asynccontextmanager
async def table(path: Path) -> AsyncIterator[JobTable]:
    db, waiting = await open_for_writing(path / "db"), WaitingJobs()
    admissions = AdmissionMemory(waiting)
    await waiting.watch(db)
    await admissions.watch(db)

    def transaction_ended(committed: bool) -> None:
        waiting.count_changes()
        admissions.settle(committed)

    writer = Writer(db, on_transaction=transaction_ended)
    try:
        async with Readers(path / "db") as readers, anyio.create_task_group() as group:
            group.start_soon(writer.run)
            try:
                yield JobTable(readers, writer, JobCounters(), RowMemory(BoundedMemory(0)), waiting, admissions)
            finally:
                writer.close()  # its task ends for nothing else
    finally:
        await db.close()  # its thread would keep a failed test's process


async def accept(t: JobTable, new: NewJob) -> None:
    await t.accept(new, Quota(1000, timedelta(hours=1)))


async def claim(t: JobTable, queue: QueueName = "renders", free: int = GIGABYTE) -> Job:
    job = await t.claim(queue, free, nothing_running=False)
    assert isinstance(job, Job)
    return job


async def test_one_users_thousand_do_not_keep_another_waiting(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for _ in range(100):
            await accept(t, new_job("greedy"))
        for _ in range(10):
            await claim(t)
        await accept(t, new_job("modest"))
        assert "modest" in [(await claim(t)).user_id for _ in range(2)]


async def test_two_users_take_turns(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for user in ("a", "a", "a", "b", "b", "b"):
            await accept(t, new_job(user))
        assert [(await claim(t)).user_id for _ in range(6)] == ["a", "b", "a", "b", "a", "b"]


async def test_long_absence_earns_no_credit(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("sleeper"))
        await claim(t)
        for _ in range(50):
            await accept(t, new_job("busy"))
            await claim(t)
        for user in ("busy", "busy", "sleeper", "sleeper", "sleeper"):
            await accept(t, new_job(user))
        order = [(await claim(t)).user_id for _ in range(5)]
        assert order[:3].count("busy") >= 1


async def test_job_that_does_not_fit_is_waited_for_not_overtaken(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("a", render_bytes=5000))
        await accept(t, new_job("b", render_bytes=10))
        assert await t.claim("renders", 100, nothing_running=False) == Blocked(5000)
        assert (await claim(t, free=5000)).user_id == "a"


async def test_job_larger_than_a_shrunken_budget_runs_when_nothing_else_does(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("a", render_bytes=5000))
        assert isinstance(await t.claim("renders", 100, nothing_running=True), Job)


async def test_preview_comes_first_and_then_the_render(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("a", preview_bytes=10))
        assert await t.claim("renders", GIGABYTE, nothing_running=True) is None
        job = await claim(t, "previews")
        assert await t.claim("renders", GIGABYTE, nothing_running=True) is None
        assert await t.end_preview(job, "failed", {}, {})
        assert (await claim(t)).job_id == job.job_id


async def test_overtaken_run_changes_nothing(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("a"))
        first = await claim(t)
        assert await t.requeue(first)
        second = await claim(t)
        assert second.run == first.run + 1
        assert not await t.complete(first, {"thumbnail": "stale"}, {})
        assert not await t.requeue(first)
        assert not await t.unsuccessful(first, Failure("timeout", "late"), Decision("fail"))
        assert await t.complete(second, {"thumbnail": "fresh"}, {"variants": {}})
        row = await t.job(first.job_id)
        assert row
        assert (row.status, row.paths) == ("completed", {"thumbnail": "fresh"})
        assert not await t.unsuccessful(second, Failure("timeout", "after the end"), Decision("fail"))


async def test_after_a_death_the_job_runs_alone(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("a"))
        await t.unsuccessful(await claim(t), Failure("worker_crashed", "died", death=True), Decision("retry"))
        assert await t.release_due() == 1
        assert await t.claim("renders", GIGABYTE, nothing_running=False) == Blocked(None)
        job = await t.claim("renders", GIGABYTE, nothing_running=True)
        assert isinstance(job, Job)
        assert (job.deaths, job.attempt_count) == (1, 1)


async def test_what_took_too_long_goes_to_the_end_of_the_line(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for user in ("slow", "a", "a", "slow", "b"):
            await accept(t, new_job(user))
        slow = await claim(t)
        assert slow.user_id == "slow"
        assert await t.unsuccessful(slow, Failure("timeout", "It took too long."), Decision("retry"))
        await accept(t, new_job("c"))
        assert await t.release_due() == 1
        order = [await claim(t) for _ in range(6)]
        assert order[-1].job_id == slow.job_id
        assert sorted(job.user_id or "" for job in order[:-1]) == ["a", "a", "b", "c", "slow"]
        assert (order[-1].attempt_count, order[-1].preview) == (1, "none")


async def test_another_failure_keeps_its_turn(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for user in ("first", "a", "b"):
            await accept(t, new_job(user))
        first = await claim(t)
        assert await t.unsuccessful(first, Failure("storage_error", "It was full."), Decision("retry"))
        assert await t.release_due() == 1
        assert (await claim(t)).job_id == first.job_id


async def test_cheap_previews_go_before_dear_ones_that_came_just_before(tmp_path: Path) -> None:
    megabyte = 1 << 20
    async with table(tmp_path) as t:
        dear = [new_job(f"user {number}", preview_bytes=60 * megabyte) for number in range(20)]
        for new in dear:
            await accept(t, new)
        await accept(t, new_job("stranger", preview_bytes=17 * megabyte))
        assert (await claim(t, "previews")).user_id == "stranger"
        assert [(await claim(t, "previews")).job_id for _ in dear] == [new.job_id for new in dear]


async def test_dear_previews_wait_a_bounded_time(tmp_path: Path) -> None:
    megabyte = 1 << 20
    async with table(tmp_path) as t:
        dear, cheap = new_job("a", preview_bytes=60 * megabyte), new_job("b", preview_bytes=17 * megabyte)
        await accept(t, dear)
        await accept(t, cheap)

        async def begin_earlier(db: aiosqlite.Connection) -> None:
            earlier = as_text(now() - timedelta(seconds=2 * (60 - 17) + 5))
            await db.execute("UPDATE processing_jobs SET created_at = ? WHERE job_id = ?", [earlier, dear.job_id])

        await t._write(begin_earlier)
        assert (await claim(t, "previews")).job_id == dear.job_id


async def test_give_back_costs_neither_start_nor_attempt(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("a"))
        for _ in range(20):
            job = await claim(t)
            await t.requeue(job)
        row = await t.job(job.job_id)
        assert row
        assert (row.status, row.starts, row.attempt_count, row.run) == ("pending", 0, 0, 20)


async def test_every_transition_leaves_an_event(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        new = new_job("a", preview_bytes=1)
        await accept(t, new)
        await t.end_preview(await claim(t, "previews"), "done", {"thumbnail": "k"}, {})
        await t.unsuccessful(await claim(t), Failure("timeout", "slow"), Decision("retry"))
        await t.release_due()
        await t.complete(await claim(t), {}, {})
        async with t._readers.lend() as db:
            rows = await db.execute_fetchall(
                "SELECT event_type FROM image_upload_events WHERE job_id = ?", [new.job_id]
            )
        kinds = [row[0] for row in rows]
        assert kinds == ["accepted", "processing", "preview_done", "processing", "retrying", "processing", "completed"]
