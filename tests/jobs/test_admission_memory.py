"""An upload is let in by what is in memory, which is that of the table after every kind of change."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from imgsvc.jobs.table import admission_memory, transactions
from imgsvc.jobs.table.job_table import JobTable
from imgsvc.jobs.table.quota import Quota, RateLimited
from imgsvc.jobs.table.sql import QUERIES
from tests.jobs.test_fairness import accept, claim, table
from tests.support.new_jobs import new_job

QUOTA = Quota(1000, timedelta(hours=1))
ENDED = Quota(1000, timedelta(0))  # every window has
WRITES_WINDOWS = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM) upload_rate_limits")
MOST = 10
# How a window changes, by the statement. One that joins the .sql files must be here.
WAYS: dict[str, Callable[[JobTable], Awaitable[Any]]] = {
    "set_rate_window": lambda t: accept(t, new_job("alice")),
    "drop_rate_windows": lambda t: t.limits.drop_rate_windows(ENDED),
    "erase_windows": lambda t: t._write(transactions.execute("erase_windows", org_id="org", user_id="alice")),
}


async def used(t: JobTable, user: str = "alice") -> int:
    return (await t.limits.admission("org", user, QUOTA, MOST))[1].used


async def asked(t: JobTable, monkeypatch: pytest.MonkeyPatch, user: str = "alice", fewer_than: int = MOST) -> bool:
    """Whether an upload would ask the table."""
    with monkeypatch.context() as patch:
        patch.setattr(t._readers, "fetch", None)
        try:
            await t.limits.admission("org", user, QUOTA, fewer_than)
        except TypeError:
            return True
    return False


def test_every_statement_that_changes_a_window_is_in_the_list() -> None:
    assert {name for name, statement in QUERIES.items() if WRITES_WINDOWS.search(statement)} == WAYS.keys()


@pytest.mark.parametrize("way", WAYS)
async def test_window_in_memory_is_that_of_the_table(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with table(tmp_path) as t:
        assert await used(t) == 0
        for number in (1, 2):
            await accept(t, new_job("alice"))
            assert not await asked(t, monkeypatch)
            assert await used(t) == number
        await WAYS[way](t)
        assert await used(t) == (3 if way == "set_rate_window" else 0)
        assert await asked(t, monkeypatch, "bob")


async def test_change_that_is_rolled_back(tmp_path: Path) -> None:
    async def fails(db: Any) -> None:
        await transactions.accept(db, new_job("alice"), QUOTA)
        raise LookupError

    async with table(tmp_path) as t:
        await accept(t, new_job("alice"))
        assert await used(t) == 1
        with pytest.raises(LookupError):
            await t._write(fails)
        assert await used(t) == 1
        with pytest.raises(RateLimited):
            await t.accept(new_job("alice"), replace(QUOTA, max_uploads=1))
        assert await used(t) == 1


async def test_jobs_are_counted_before_they_could_be_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with table(tmp_path) as t:
        for number in range(MOST):
            await accept(t, new_job("alice"))
            waiting, _ = await t.limits.admission("org", "alice", QUOTA, MOST)
            assert waiting == number + 1
        assert await asked(t, monkeypatch)
        await claim(t)
        assert (await t.limits.admission("org", "alice", QUOTA, MOST))[0] == MOST - 1
        assert not await asked(t, monkeypatch)


async def test_rows_that_were_changed_past_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("alice"))
        await used(t)
        t.look_again()
        assert await asked(t, monkeypatch)


async def test_the_users_who_uploaded_last_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_memory, "REMEMBERED", 2)
    async with table(tmp_path) as t:
        for user in ("alice", "bob", "alice", "carol"):
            await accept(t, new_job(user))
            await used(t, user)
        assert [await asked(t, monkeypatch, user) for user in ("alice", "bob", "carol")] == [False, True, False]
