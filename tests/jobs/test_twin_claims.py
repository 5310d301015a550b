"""A job whose variants are there already is claimed with its acceptance, while the queue waits for such a job."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from imgsvc.jobs.table.database import open_for_writing
from imgsvc.jobs.table.job_table import JobTable
from imgsvc.jobs.table.quota import Quota, RateLimited
from imgsvc.jobs.table.transactions import Accepted, Claimed
from imgsvc.jobs.table.waiting_jobs import WaitingJobs
from tests.conftest import Starter
from tests.jobs.test_fairness import claim, table
from tests.support.new_jobs import new_job
from tests.support.reuse import PHOTO

MANY = Quota(1000, timedelta(hours=1))


async def upload(t: JobTable, quota: Quota = MANY, *, reuse: bool = True) -> Accepted:
    return await t.accept(replace(new_job("alice", preview_bytes=100), reuse=reuse), quota)


async def is_empty(t: JobTable) -> None:
    assert await t.claim("previews", 1 << 30, nothing_running=False) is None and not t.may_claim("previews")


@asynccontextmanager
async def with_a_completed_one(path: Path) -> AsyncIterator[JobTable]:
    async with table(path) as t:
        await upload(t)
        assert await t.end_preview(await claim(t, "previews"), "none", {}, {})
        assert await t.complete(await claim(t), {"thumbnail": "a.webp"}, {})
        yield t


async def is_waiting(t: JobTable) -> None:
    """The queue has found no job, and waits for one."""
    assert await t.claim_with_twin() is None


async def taken(t: JobTable) -> Claimed:
    claimed = await t.claim_with_twin()
    assert claimed is not None
    return claimed


async def test_claimed_with_its_acceptance(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        accepted = await upload(t)
        assert accepted.claimed and t.twins.may_wait
        claimed = await taken(t)
        assert claimed is accepted.claimed and claimed.twin
        assert (claimed.job.job_id, claimed.job.status, claimed.job.run) == (accepted.job.job_id, "processing", 1)
        assert not t.twins.may_wait and await t.claim_with_twin() is None
        assert await t.complete(claimed.job, {"thumbnail": "b.webp"}, {}, claimed.twin)


async def test_no_lane_looks_for_it(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        await is_empty(t)
        assert (await upload(t)).claimed and not t.may_claim("previews")
        assert (await upload(t)).claimed is None and t.may_claim("previews")


async def test_lane_looks_for_another_that_joined_meanwhile(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        await is_empty(t)
        accepted: list[Accepted] = []

        async def one(user: str) -> None:
            accepted.append(await t.accept(new_job(user, preview_bytes=100), MANY))

        async with anyio.create_task_group() as group:
            group.start_soon(one, "alice")
            group.start_soon(one, "bob")
        assert [bool(each.claimed) for each in accepted] == [True, False]
        assert t.may_claim("previews") and (await claim(t, "previews")).user_id == "bob"


async def test_claim_of_a_lane_in_between_counts(tmp_path: Path) -> None:
    """It begins after the job was taken, and ends before that is counted."""
    db, waiting = await open_for_writing(tmp_path / "db"), WaitingJobs()
    await waiting.watch(db)
    await db.close()
    waiting.found_none(waiting.changes(), "previews")
    before = waiting.changes()
    waiting.look_again()  # as if a job had joined
    waiting.found_none(waiting.changes(), "previews")
    waiting.taken_at_once(before, "previews")
    assert not waiting.may_wait("previews")
    waiting.look_again()
    assert waiting.may_wait("previews")


async def test_only_one_is_claimed_until_the_queue_waits_again(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        assert (await upload(t)).claimed is None, "nobody waits for it"
        first = await taken(t)
        await is_waiting(t)
        assert (await upload(t)).claimed is not None
        later = await upload(t)
        assert later.claimed is None and t.twins.may_wait
        assert [(await taken(t)).job.job_id for _ in range(2)][1] == later.job.job_id
        assert await t.requeue(first.job)
        assert (await taken(t)).job.job_id == first.job.job_id


async def test_job_without_a_twin_leaves_the_claim_to_the_next(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        other = await t.accept(replace(new_job("bob"), sha256="1" * 64), MANY)
        assert other.claimed is None and not other.has_twin
        assert (await upload(t, reuse=False)).claimed is None
        assert (await upload(t)).claimed is not None


async def test_refused_upload_leaves_the_claim_to_the_next(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        with pytest.raises(RateLimited):
            await upload(t, Quota(0, timedelta(hours=1)))
        assert (await upload(t)).claimed is not None


async def test_stopping_queue_is_handed_none_and_gives_back_what_it_was(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        handed = await upload(t)
        assert handed.claimed
        t.twins.close()
        assert (await upload(t)).claimed is None
        await t.give_back_handed()
        job = await t.job(handed.job.job_id)
        assert job and (job.status, job.starts, job.attempt_count) == ("pending", 0, 0)


async def test_claim_that_is_committed_after_the_stop_is_given_back(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        accepted: list[Accepted] = []
        async with anyio.create_task_group() as group:

            async def one() -> None:
                accepted.append(await upload(t))

            group.start_soon(one)
            await anyio.lowlevel.checkpoint()  # it has reserved the claim
            assert t.twins.reserve() is None
            t.twins.close()
            await t.give_back_handed()
        job = await t.job(accepted[0].job.job_id)
        assert accepted[0].claimed and job and (job.status, job.starts, job.attempt_count) == ("pending", 0, 0)


async def test_reservation_that_ends_after_the_wait_is_not_left_to_the_next(tmp_path: Path) -> None:
    async with with_a_completed_one(tmp_path) as t:
        await is_waiting(t)
        wait = t.twins.reserve()
        assert wait is not None
        assert (await upload(t)).claimed is None, "another has reserved it"
        await taken(t)
        t.twins.return_reservation(wait)
        assert t.twins.reserve() is None


async def test_what_is_handed_is_worked_on(start: Starter) -> None:
    async with start() as s:
        await s.completed(PHOTO)
        queue, twins = s.state.jobs.queue, s.state.jobs.table.twins
        queue.hold()
        twins.closed = False
        twins.want()
        job = (await s.upload(PHOTO)).json()["job_id"]
        assert queue.works_on(job, 1) and queue.active_runs == 0


async def test_service_completes_what_was_claimed_so(start: Starter) -> None:
    async with start() as s:
        await s.completed(PHOTO)
        job = await s.completed(PHOTO)
        assert await s.sql("SELECT run FROM processing_jobs WHERE job_id = ?", job["job_id"]) == [(1,)]
        kinds = await s.sql("SELECT event_type FROM image_upload_events WHERE job_id = ? ORDER BY rowid", job["job_id"])
        assert [kind for (kind,) in kinds] == ["accepted", "processing", "completed"]
