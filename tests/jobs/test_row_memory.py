"""The memory of completed rows is exact: whatever changes a row, no read returns it as it was before."""

import re
import tracemalloc
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import aiosqlite
import anyio
import pytest
import pytest_asyncio

from fixtures import make
from imgsvc.http.api.images import all_urls, batch_entry
from imgsvc.jobs.image_changes import crops_around
from imgsvc.jobs.table import transactions, usage
from imgsvc.jobs.table.database import Readers
from imgsvc.jobs.table.job_table import JobTable
from imgsvc.jobs.table.model import Job, as_text, now
from imgsvc.jobs.table.row_memory import RowMemory
from imgsvc.jobs.table.sql import QUERIES
from imgsvc.storage.bounded_memory import BoundedMemory
from tests.conftest import WAIT_SECONDS, Service, shared_service
from tests.support.speed import within

TINY = make.tiny()
CHANGING = re.compile(r"^\s*(UPDATE|DELETE FROM|REPLACE INTO|INSERT OR REPLACE INTO) processing_jobs\b", re.MULTILINE)

RECORDED = {"processed_paths": "{}", "processing_metadata": "{}", "recipe": "{}"}
# Every kind of change of a completed row. A statement that joins queries.sql must be here or in the next list.
CHANGES: dict[str, Callable[[JobTable, Job], Awaitable[Any]]] = {
    "delete": lambda table, job: table.delete(job),
    "copying": lambda table, job: table.files.copying(job, "other"),
    "move": lambda table, job: table.files.move(job, "other"),
    "copies_removed": lambda table, job: _moved_and_copies_removed(table, job),
    "source_removed": lambda table, job: table.files.source_removed(job),
    "raise_revision": lambda table, job: table._write(
        lambda db: db.execute_fetchall(QUERIES["raise_revision"], {"job_id": job.job_id})
    ),
    "record_render": lambda table, job: table._write(
        transactions.execute("record_render", job_id=job.job_id, backend=job.storage_backend, **RECORDED)
    ),
    "set_focal": lambda table, job: _patched(table, job, focal=(0.5, 0.5)),
    "fold_name": lambda table, job: table._write(_folded),
    "patch": lambda table, job: _patched(table, job, expires_at=as_text(now() + timedelta(days=1))),
    "free_key": lambda table, job: table._write(transactions.execute("free_key", job_id=job.job_id)),
}
# What a statement does to a row that is completed and not deleted: nothing. Its values, where it has some.
NOT_OF_A_COMPLETED_ROW: dict[str, dict[str, Any]] = {
    "claim": {"queue": "renders"},
    "claim_again": {"queue": "renders"},
    "requeue": {"undone": 1},
    "end_preview": {"preview": "done", "death": 0, "processed_paths": "{}", "processing_metadata": "{}"},
    "complete": {
        "processed_paths": "{}",
        "processing_metadata": "{}",
        "source_bytes": None,
        "source_sha256": None,
    },
    "erase_job": {"mark": ""},
    "drop_kept_source": {},
    "clear_erased_jobs": {"mark": "", "number": 0},
    "again_later": {"death": 0, "message": "", "code": "", "next_attempt_at": ""},
    "fail": {"death": 0, "message": "", "code": "", "attempt": 0, "retryable": 0, "processed_paths": "{}"},
    "retry": {},
    "release_due": {},
    "replay": {},
    "replay_waiting": {},
    "clamp_retries": {"latest": ""},
    "variants_removed": {},
    "list_again": {"processed_paths": "{}", "also_in": None},
    "expire_source": {"before": as_text(now() + timedelta(days=1))},
    "drop_deleted": {"after": 0, "upto": 1 << 40, "before": as_text(now() + timedelta(days=1))},
}


async def _folded(db: aiosqlite.Connection) -> None:
    await db.execute("UPDATE job_counting SET names_upto = 0")
    await usage.fold_names(db)


async def _patched(table: JobTable, job: Job, **changes: Any) -> None:
    assert await table.patch(job, changes, lambda _: None, crops_around)


async def _moved_and_copies_removed(table: JobTable, job: Job) -> None:
    await table.files.move(job, "other")
    await table.files.copies_removed(job, job.storage_backend)


s = shared_service(server={"cache_mb": 1})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(s: Service) -> Job:
    """A completed job whose source is gone, so that nothing but a test changes its row."""
    ids = await s.completed(TINY, bucket="b")
    with within(WAIT_SECONDS):
        while (job := await s.state.jobs.table.job(ids["job_id"])) is None or job.staging_path is not None:
            await anyio.sleep(0.01)
    return job


async def copied(s: Service, image: Job) -> Job:
    """A row of its own, as the image's."""
    names = [row[1] for row in await s.sql("PRAGMA table_info (processing_jobs)")]
    job_id = str(uuid.uuid4())
    given = {"job_id": job_id, "image_id": str(uuid.uuid4()), "staging_path": "kept", "idempotency_key": job_id}
    values = ", ".join(f"'{given[name]}'" if name in given else name for name in names)
    await s.sql(f"INSERT INTO processing_jobs SELECT {values} FROM processing_jobs WHERE job_id = ?", image.job_id)
    job = await s.state.jobs.table.job(job_id)
    assert job is not None
    return job


async def in_the_database(s: Service, job: Job) -> Job | None:
    s.state.jobs.table.memory.clear()
    return await s.state.jobs.table.job_of_image(job.image_id)


def test_every_statement_that_changes_a_row_is_in_a_list() -> None:
    found = {name for name, statement in QUERIES.items() if CHANGING.search(statement)}
    assert found == CHANGES.keys() | NOT_OF_A_COMPLETED_ROW.keys()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("read", ["job", "job_of_image", "images"])
async def test_change_between_query_and_fill(
    s: Service, image: Job, monkeypatch: pytest.MonkeyPatch, kind: str, read: str
) -> None:
    table, job, fetch = s.state.jobs.table, await copied(s, image), Readers.fetch
    raced: list[str] = []

    async def fetch_and_change(readers: Readers, query: str, values: dict[str, Any]) -> Any:
        rows = await fetch(readers, query, values)
        if query == read and not raced:
            raced.append(query)
            await CHANGES[kind](table, job)
        return rows

    table.memory.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Readers, "fetch", fetch_and_change)
        await reads(table, job)[read]()
    assert raced
    assert await reads(table, job)[read]() == await in_the_database(s, job)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", CHANGES)
async def test_change_of_a_row_in_memory(s: Service, image: Job, kind: str) -> None:
    table, job = s.state.jobs.table, await copied(s, image)
    for read in reads(table, job).values():
        await read()
    hits = table.memory.hits
    for read in reads(table, job).values():
        assert await read() == job
    assert table.memory.hits == hits + 3
    await CHANGES[kind](table, job)
    seen = [await read() for read in reads(table, job).values()]
    assert seen == [await in_the_database(s, job)] * 3
    assert kind in ("source_removed", "free_key", "fold_name") or seen[0] != job


def reads(table: JobTable, job: Job) -> dict[str, Callable[[], Awaitable[Job | None]]]:
    async def images() -> Job | None:
        return (await table.images([job.image_id])).get(job.image_id)

    return {
        "job": lambda: table.job(job.job_id),
        "job_of_image": lambda: table.job_of_image(job.image_id),
        "images": images,
    }


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", NOT_OF_A_COMPLETED_ROW)
async def test_other_changes_leave_a_completed_row_alone(s: Service, image: Job, kind: str) -> None:
    job = await copied(s, image)
    values = {"job_id": job.job_id, "run": job.run, "now": as_text(now()), **NOT_OF_A_COMPLETED_ROW[kind]}
    await s.state.jobs.table._write(transactions.execute(kind, **values))
    assert await in_the_database(s, job) == job


@pytest.mark.asyncio(loop_scope="module")
async def test_rolled_back_change_is_forgotten_too(s: Service, image: Job) -> None:
    """Its row has not changed, but the memory need not know that."""
    table, job = s.state.jobs.table, await copied(s, image)
    await table.job(job.job_id)

    async def fail(db: Any) -> None:
        await transactions.delete(db, job.job_id)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await table._write(fail)
    misses = table.memory.misses
    assert await table.job(job.job_id) == job
    assert table.memory.misses == misses + 1


@pytest.mark.asyncio(loop_scope="module")
async def test_only_completed_rows_are_kept(s: Service) -> None:
    table = s.state.jobs.table
    failed = await s.ended(await s.upload(TINY[: len(TINY) // 2]))
    misses = table.memory.misses
    for _ in range(3):
        assert (await table.job(failed["job_id"])) is not None
        assert await table.job_of_image("unknown") is None
    assert table.memory.misses == misses + 6


@pytest.mark.asyncio(loop_scope="module")
async def test_size_of_the_memory(s: Service, image: Job) -> None:
    """Rows take no more than they are counted with, what is made of them included, and the oldest go first."""
    urls = s.state.stores.urls
    job = await copied(s, image)
    memory = BoundedMemory(4 << 20)
    rows = RowMemory(memory)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1000):
            copy = Job.__new__(Job)
            texts = {
                name: str(text)[:-1] + str(text)[-1:] for name, text in vars(job).items() if name.endswith("_text")
            }
            fields = {name: value for name, value in vars(job).items() if name in Job.__dataclass_fields__}
            vars(copy).update(fields | texts | {"job_id": f"{job.job_id[:-6]}{number:06}"})
            with rows.fetch() as fetch:
                rows.keep(fetch, "job", copy)
            for name in copy.ready:
                assert copy.stored(name).etag
            assert copy.recipe.variants and copy.client_metadata == {}
            await all_urls(urls, copy)
            for size in copy.ready:
                await batch_entry(urls, copy, size)
            assert len(copy.derived) == 2 + len(copy.ready)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < memory.held_bytes < memory.max_bytes
    assert rows.get("job", f"{job.job_id[:-6]}{0:06}") is None
    assert rows.get("job", f"{job.job_id[:-6]}{999:06}") is not None
