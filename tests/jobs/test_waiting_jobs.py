"""A lane asks an empty queue nothing, and asks again after every kind of change that lets a job wait."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from imgsvc.jobs.retry import Decision, Failure
from imgsvc.jobs.table import transactions
from imgsvc.jobs.table.job_table import JobTable
from imgsvc.jobs.table.model import Job, now
from imgsvc.jobs.table.sql import QUERIES
from tests.jobs.test_fairness import GIGABYTE, accept, claim, table
from tests.support.new_jobs import new_job

LETS_WAIT = re.compile(
    r"INSERT INTO processing_jobs|\bqueue = (?!NULL|:|')|SET queue = '|UPDATE job_sources SET twin = NULL"
    r"|DELETE FROM job_sources"
)
FAILURE = Failure("storage_unavailable", "It can't be stored.")
SEARCHED = "UPDATE job_sources SET twin = 'another' WHERE job_id = :job_id"
# How a claimed job waits again, or another one does, by the statement. One that joins queries.sql must be here.
WAYS: dict[str, Callable[[JobTable, Job], Awaitable[Any]]] = {
    "insert_job": lambda t, _: accept(t, new_job("bob")),
    "requeue": lambda t, job: t.requeue(job),
    "end_preview": lambda t, job: t.end_preview(job, "failed", {}, {}),
    "release_due": lambda t, job: _later(t, job),
    "retry": lambda t, job: _failed_and_retried(t, job),
    "replay": lambda t, job: t.recover(job.job_id, job.run),
    "drop_twin": lambda t, job: t.decline_twin(job, "gone"),
    "drop_twins": lambda t, job: _with_twin(t, job, t.drop_twins),
    "drop_source": lambda t, job: _with_twin(t, job, lambda: _drop_source(t, job)),
}


async def _later(t: JobTable, job: Job) -> None:
    await t.unsuccessful(job, FAILURE, Decision("retry", retryable=True, delay_seconds=0.0))
    await empty(t)
    assert await t.release_due(now() + timedelta(seconds=1)) == 1


async def _failed_and_retried(t: JobTable, job: Job) -> None:
    await t.unsuccessful(job, FAILURE, Decision("fail", retryable=True, delay_seconds=0.0))
    await t.files.variants_removed(job)
    await empty(t)
    assert await t.retry(job) is not None


async def _with_twin(t: JobTable, job: Job, drop: Callable[[], Awaitable[Any]]) -> None:
    """It waits with a twin, and so for no lane, until `drop`."""

    async def give(db: Any) -> None:
        await db.execute(SEARCHED, {"job_id": job.job_id})
        assert await transactions.ended(db, "requeue", job, "given_back", {"undone": 1})

    await t._write(give)
    await empty(t)
    await drop()


async def _drop_source(t: JobTable, job: Job) -> None:
    await t._write(transactions.execute("drop_source", job_id=job.job_id))


async def empty(t: JobTable) -> None:
    """No queue has a job, and the table knows it."""
    for queue in ("previews", "renders"):
        assert await t.claim(queue, GIGABYTE, nothing_running=False) is None
        assert not t._waiting.may_wait(queue)


def test_every_statement_that_lets_a_job_wait_is_in_the_list() -> None:
    assert {name for name, statement in QUERIES.items() if LETS_WAIT.search(statement)} == WAYS.keys()


@pytest.mark.parametrize("way", WAYS)
async def test_job_that_waits_is_found(tmp_path: Path, way: str) -> None:
    async with table(tmp_path) as t:
        await accept(t, replace(new_job("alice"), reuse=True))
        job = await claim(t)
        await empty(t)
        await WAYS[way](t, job)
        await claim(t)


async def test_preview_that_waits_is_found(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await empty(t)
        await accept(t, new_job("alice", preview_bytes=1000))
        job = await claim(t, "previews")
        await empty(t)
        await t.end_preview(job, "done", {}, {})
        assert (await claim(t)).job_id == job.job_id


async def test_empty_queue_is_asked_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with table(tmp_path) as t:
        await empty(t)
        monkeypatch.setattr(transactions, "claim", None)
        await empty(t)
        t.look_again()
        with pytest.raises(TypeError):
            await claim(t)


async def test_claim_of_the_last_job_says_that_none_is_left(tmp_path: Path) -> None:
    """So the next idle lane sends no query either, and a render may take a second lane."""
    async with table(tmp_path) as t:
        await accept(t, new_job("alice"))
        await accept(t, new_job("bob", preview_bytes=1000))
        await claim(t, "previews")
        assert t.may_wait
        await claim(t)
        assert not t.may_wait
        await accept(t, new_job("alice"))
        assert t.may_wait


async def test_job_that_joins_while_a_claim_finds_none(tmp_path: Path) -> None:
    """The claim began before; its end must not hide the job."""
    async with table(tmp_path) as t:
        before = t._waiting.changes()
        await accept(t, new_job("alice"))
        t._waiting.found_none(before, "renders")
        await claim(t)


async def test_transaction_that_is_rolled_back(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("alice"))
        job = await claim(t)
        await empty(t)

        async def fails(db: Any) -> None:
            await transactions.ended(db, "requeue", job, "given_back", {"undone": 1})
            raise LookupError

        with pytest.raises(LookupError):
            await t._write(fails)
        await empty(t)
