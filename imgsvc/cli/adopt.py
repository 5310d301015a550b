"""`imgsvc storage adopt`, which works only while no service runs."""

import asyncio

from ..maintenance.adopt import Adoption, adopt
from ..maintenance.progress import MaintenanceFailed
from ..settings import Settings
from ..telemetry import logs
from .data_folder import failing_for_data_folder
from .errors import CommandFailed
from .maintenance_summary import megabytes
from .service_client import running


def adopted(settings: Settings, *, dry_run: bool) -> Adoption:
    """Raises CommandFailed."""
    if running(settings):
        raise CommandFailed(f"a service runs on the data folder {settings.data}: stop it first")
    logs.configure(settings.log.model_copy(update={"level": "WARNING"}))
    with failing_for_data_folder(settings, MaintenanceFailed):
        return asyncio.run(adopt(settings, dry_run=dry_run))


def words(found: Adoption) -> str:
    """What was found, one line for each place, and what was done."""
    jobs = ", ".join(f"{count} {status}" for status, count in found.jobs.items()) or "no jobs"
    lines = (
        f"database        {found.database}: {jobs}; {_id(found.database_id)}",
        f"data folder     {found.data_folder}: {found.uploads} staged uploads, {found.set_aside} set aside; "
        f"{_id(found.data_folder_id)}",
        f"storage folder  {found.storage_folder}: {found.stored_files} files ({megabytes(found.stored_bytes)}), "
        f"{found.foreign_files} foreign; {_id(found.storage_folder_id)}",
        f"adopt: both folders now have the ID {found.instance}. Nothing was removed."
        if found.done
        else "adopt: would give both folders to this database and remove nothing. Add --yes to do it.",
    )
    return "\n".join(lines)


def _id(found: str | None) -> str:
    return f"id {found}" if found else "no id"
