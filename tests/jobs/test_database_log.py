"""The write-ahead log gives its space back: what a long snapshot made it grow by is not kept beside the reserve."""

import aiosqlite
import pytest

from imgsvc.jobs.table import database
from imgsvc.jobs.table.transactions import execute
from tests.conftest import Starter
from tests.support.speed import within

LIMIT = 256 << 10


async def test_log_shrinks_once_a_snapshot_is_over(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOG_BYTES", LIMIT)
    async with start() as s:
        log = s.settings.database.path.with_name("imgsvc.db-wal")
        table = s.state.jobs.table

        async def note_much(db: aiosqlite.Connection) -> None:
            await db.execute(
                "INSERT INTO image_upload_events (event_type, metadata, created_at) "
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
                "SELECT 'much', hex(randomblob(4000)), '2020' FROM n"
            )

        async with table._readers.snapshot():
            await table._write(note_much)
            grown = log.stat().st_size
            assert grown > 4_000_000
        with within(10):
            while log.stat().st_size > LIMIT:
                await table._write(execute("touch", now="2020"))
