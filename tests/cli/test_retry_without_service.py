"""`imgsvc jobs retry` while nothing runs: for jobs of every backend, and never with a traceback."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from imgsvc import Settings, testing
from imgsvc.cli.errors import CommandFailed
from imgsvc.cli.jobs import jobs_of
from imgsvc.storage.base import StorageError
from imgsvc.storage.memory import MemoryStorage
from tests.conftest import Service
from tests.support.s3 import S3Server


class Refusing(MemoryStorage):
    """Takes nothing but the health check's file."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if bucket != ".health":
            raise StorageError("refused")
        await super().put(bucket, key, source)

    async def remove(self, bucket: str, key: str) -> bool:
        if bucket != ".health":
            raise StorageError("refused")
        return await super().remove(bucket, key)


def failed_job(folder: Path, backend: str, **sections: Any) -> tuple[Settings, str]:
    """The settings of a stopped service, and a job that failed for good since its backend refused everything."""
    settings = testing.settings_in(folder, jobs={"max_attempts": 1}, **sections)

    async def work() -> str:
        async with testing.serving(settings, storage=Refusing(backend)) as (app, http):
            s = Service(app, settings, http)
            job = await s.ended(await s.upload(make.jpeg(64, 48)))
            assert (job["status"], job["error_code"]) == ("failed", "storage_error")
            return str(job["job_id"])

    return settings, asyncio.run(work())


def test_job_of_s3_begins_anew(tmp_path: Path, s3: S3Server) -> None:
    settings, job_id = failed_job(tmp_path, "s3", s3=s3.settings(s3.bucket()))
    jobs = jobs_of(settings)
    jobs.retry(job_id)
    assert jobs.shown(job_id)["status"] == "pending"


def test_storage_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    away = {"bucket": "pictures", "endpoint_url": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b"}
    settings, job_id = failed_job(tmp_path, "s3", s3={**away, "attempts": 1})
    with pytest.raises(CommandFailed, match="can't be removed from the storage now"):
        jobs_of(settings).retry(job_id)


def test_backend_that_is_not_configured_is_said_in_one_line(tmp_path: Path) -> None:
    settings, job_id = failed_job(tmp_path, "s3")
    with pytest.raises(CommandFailed, match="can't be removed from the storage now"):
        jobs_of(settings).retry(job_id)


def test_damaged_database_is_said_in_one_line(tmp_path: Path) -> None:
    settings, job_id = failed_job(tmp_path, "s3")
    settings.database.path.write_bytes(b"no database at all\n" * 1000)
    with pytest.raises(CommandFailed, match="not a database"):
        jobs_of(settings).retry(job_id)
