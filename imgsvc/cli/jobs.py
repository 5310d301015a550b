"""Jobs for the command line, from the running service or directly from the data folder."""

from typing import Any, Protocol
from urllib.parse import quote

from ..jobs.data_folder import DataFolder
from ..jobs.deletion_hold import DeletionHold
from ..jobs.housekeeping import Housekeeping
from ..jobs.restart import NotRetryable, Restart
from ..jobs.table.model import Job
from ..jobs.views import MAX_EVENTS, ListedJob, ShownJob
from ..settings import Settings
from ..storage.keys import IS_UUID
from ..storage.registry import storage_registry
from .data_folder import with_data_folder
from .errors import CommandFailed
from .service_client import Running, running


class Jobs(Protocol):
    """The source of jobs. Every method may raise CommandFailed."""

    retried: str  # what happens to a restarted job, in words

    def listed(self, status: str | None, limit: int) -> list[dict[str, Any]]: ...
    def shown(self, job_id: str) -> dict[str, Any]: ...
    def retry(self, job_id: str) -> None: ...


class OfService:
    """Through the operator's API of the running service."""

    retried = "waits for its turn"

    def __init__(self, service: Running) -> None:
        self._service = service

    def listed(self, status: str | None, limit: int) -> list[dict[str, Any]]:
        query: dict[str, str | int] = {"limit": limit} | ({"status": status} if status else {})
        return list(self._service.call("GET", "/api/v1/operator/jobs", params=query)["jobs"])

    def shown(self, job_id: str) -> dict[str, Any]:
        return self._service.call("GET", f"/api/v1/operator/jobs/{quote(job_id, safe='')}")

    def retry(self, job_id: str) -> None:
        self._service.call("POST", f"/api/v1/operator/jobs/{quote(job_id, safe='')}/retry")


class OfDataFolder:
    """From the data folder, which is locked for that time: a starting service waits for it."""

    retried = "waits for the next start of the service"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def listed(self, status: str | None, limit: int) -> list[dict[str, Any]]:
        async def work(data: DataFolder) -> list[dict[str, Any]]:
            return [ListedJob.of(job).model_dump() for job in await data.overview.recent(limit, status)]

        return with_data_folder(self._settings, work, NotRetryable)

    def shown(self, job_id: str) -> dict[str, Any]:
        async def work(data: DataFolder) -> dict[str, Any]:
            job = await _job(data, job_id)
            events = await data.overview.events(job.job_id, MAX_EVENTS)
            return ShownJob.with_events(job, events).model_dump()

        return with_data_folder(self._settings, work, NotRetryable)

    def retry(self, job_id: str) -> None:
        async def work(data: DataFolder) -> None:
            async with storage_registry(self._settings, instance=data.instance) as stores:
                housekeeping = Housekeeping.of(self._settings, data, stores.storages, DeletionHold())
                restart = Restart(data.table, data.staging_area, housekeeping)
                await restart.restart((await _job(data, job_id)).job_id)

        with_data_folder(self._settings, work, NotRetryable)


async def _job(data: DataFolder, job_id: str) -> Job:
    job = await data.table.job(job_id.lower()) if IS_UUID.fullmatch(job_id) else None
    if job is None:
        raise CommandFailed("Job not found")
    return job


def jobs_of(settings: Settings) -> Jobs:
    """Raises CommandFailed."""
    service = running(settings)
    return OfService(service) if service else OfDataFolder(settings)
