"""A job that meets an unforeseen error ends in a recorded state, wherever the error comes from."""

import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest

from imgsvc import testing
from imgsvc.jobs import deletion, settlement
from imgsvc.jobs.lanes import files
from imgsvc.jobs.table.file_table import FileTable
from imgsvc.jobs.table.job_table import JobTable
from imgsvc.storage.base import StorageError
from imgsvc.storage.memory import MemoryStorage
from tests.support.speed import within

QUICK = {"retry_delay_seconds": 0.05}


@pytest.fixture(autouse=True)
def again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "RECORD_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(files, "FILES_AGAIN_SECONDS", 0.05)


class Failing(MemoryStorage):
    """Raises what it is given, one after the other, instead of storing; `refuses` says for which keys."""

    def __init__(self, *errors: Exception, refuses: Callable[[str], bool] = lambda key: "large" in key) -> None:
        super().__init__()
        self.errors = list(errors)
        self.refuses = refuses

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if self.refuses(key) and self.errors:
            raise self.errors.pop(0)
        await super().put(bucket, key, source)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug in a storage"), ExceptionGroup("several", [KeyError("x")]), StorageError("full")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("variant", ["thumbnail", "large"])
async def test_storage_that_raises_anything_costs_an_attempt(tmp_path: Path, error: Exception, variant: str) -> None:
    storage = Failing(error, refuses=lambda key: variant in key)
    async with testing.serving(testing.settings_in(tmp_path, jobs=QUICK), storage=storage) as (app, client):
        job = await client.ready((await client.upload(testing.picture())).json()["job_id"])
        assert job["attempts"] == (variant == "large")
        assert not storage.errors
        assert not app.state.service.jobs.queue.active_runs


class Reads:
    """Raises instead of reading a job, for the given number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *errors: Exception) -> None:
        self.errors = list(errors)
        kind = JobTable if hasattr(JobTable, name) else FileTable
        real = getattr(kind, name)

        async def failing(table: object, *values: Any, **more: Any) -> Any:
            if self.errors and runs_on_a_lane():
                raise self.errors.pop(0)
            return await real(table, *values, **more)

        monkeypatch.setattr(kind, name, failing)


def runs_on_a_lane() -> bool:
    """Whether a run asks, and no request."""
    task = anyio.get_current_task()
    return "_finish" in (task.name or "")


async def test_failing_read_after_a_storage_error_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch, "job", sqlite3.OperationalError("disk I/O error"))
    storage = Failing(StorageError("full"))
    async with testing.serving(testing.settings_in(tmp_path, jobs=QUICK), storage=storage) as (_, client):
        job = await client.ready((await client.upload(testing.picture())).json()["job_id"])
        assert job["attempts"] == 1
    assert not reads.errors


@pytest.mark.parametrize("name", ["complete", "unsuccessful", "end_preview"])
@pytest.mark.parametrize("error", [RuntimeError("a bug of ours"), sqlite3.OperationalError("locked")])
async def test_record_that_fails_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    reads = Reads(monkeypatch, name, error)
    storage = Failing(StorageError("full"))
    async with testing.serving(testing.settings_in(tmp_path, jobs=QUICK), storage=storage) as (_, client):
        await client.ready((await client.upload(testing.picture())).json()["job_id"])
    assert not reads.errors


class Slow(MemoryStorage):
    """Holds what is put under `large` until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.publishing, self.go = anyio.Event(), anyio.Event()

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if "large" in key:
            self.publishing.set()
            await self.go.wait()
        await super().put(bucket, key, source)


@pytest.mark.parametrize("name", ["list_again", "job"])
async def test_removal_after_a_deletion_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(deletion, "END_RUN_SECONDS", 0.1)
    reads = Reads(monkeypatch, name, RuntimeError("a bug of ours"), RuntimeError("a bug of ours"))
    storage = Slow()
    async with testing.serving(testing.settings_in(tmp_path), storage=storage) as (app, client):
        accepted = (await client.upload(testing.picture())).json()
        await storage.publishing.wait()
        queue = app.state.service.jobs.queue
        # While removals are held back the row must list the files again.
        with app.state.service.jobs.deletion_hold.held() if name == "list_again" else nullcontext():
            assert (await client.delete(f"/api/v1/images/{accepted['image_id']}")).status_code == 200
            storage.go.set()
            with within(10):
                while queue.active_runs:
                    await anyio.sleep(0.01)
        if name == "job":
            assert [key for _, key in storage._stored if accepted["image_id"] in key] == []
        assert not reads.errors
