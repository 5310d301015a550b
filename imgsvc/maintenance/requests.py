"""Request models of maintenance tasks, shared by the CLI and the operator API."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..settings.fields import INTEGRAL, Matching
from .context import MaintenanceContext
from .progress import LISTED, Progress

Verb = Literal["verify", "gc", "migrate", "backup"]
Seconds = Annotated[float, Field(ge=0, le=366 * 86_400)]


class MaintenanceRequest(BaseModel):
    """A request. Strict: `0` is not accepted for the `false` that prevents a removal."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    verb: ClassVar[Verb]
    listed: Annotated[
        int,
        Field(ge=0, le=1000, description="How many findings to list; all are counted."),
        INTEGRAL,
    ] = LISTED


class VerifyRequest(MaintenanceRequest):
    """The extent of a verification."""

    verb = "verify"
    digests: Annotated[bool, Field(description="Also read every file and compare its SHA-256.")] = False
    grace_seconds: Annotated[
        Seconds, Field(description="Files without a row that are younger than this are not reported.")
    ] = 3600


class GcRequest(MaintenanceRequest):
    """The files to remove. Without `dry_run: false` they are only listed."""

    verb = "gc"
    older_than_seconds: Annotated[Seconds, Field(description="Only files that have not changed for this long.")] = (
        86_400
    )
    foreign: Annotated[bool, Field(description="Also files whose names this program does not use.")] = False
    dry_run: Annotated[bool, Field(description="Remove nothing.")] = True


class MigrateRequest(MaintenanceRequest):
    """The target of a migration."""

    verb = "migrate"
    to: Annotated[
        str,
        Matching(r"[a-z0-9]{1,32}", "the name of a backend: 1 to 32 letters a-z and digits"),
        Field(description="The name of a backend."),
    ]
    dry_run: Annotated[bool, Field(description="Move nothing.")] = False


class BackupRequest(MaintenanceRequest):
    """Destination and extent of a backup."""

    verb = "backup"
    destination: Annotated[
        str,
        Matching(r"/[^\x00]{1,1000}", "an absolute path of at most 1,001 characters"),
        Field(description="An absolute path: a new or empty folder, or an earlier backup."),
    ]
    with_s3: Annotated[bool, Field(description="Also copy the files of other backends.")] = False
    digests: Annotated[bool, Field(description="Also read the files of the earlier backup.")] = False
    dry_run: Annotated[bool, Field(description="Write nothing.")] = False


async def execute(request: MaintenanceRequest, context: MaintenanceContext, progress: Progress) -> bool:
    """Run the task; returns whether all is in order, or was done. Raises MaintenanceFailed or StorageError.

    What does the work is imported here: a start needs none of it.
    """
    match request:
        case VerifyRequest():
            from .verify import verify

            return await verify(
                context, progress, digests=request.digests, grace=timedelta(seconds=request.grace_seconds)
            )
        case GcRequest():
            from .gc import gc

            older_than = timedelta(seconds=request.older_than_seconds)
            return await gc(context, progress, older_than=older_than, foreign=request.foreign, dry_run=request.dry_run)
        case MigrateRequest():
            from .migrate import migrate

            return await migrate(context, progress, to=request.to, dry_run=request.dry_run)
        case BackupRequest():
            from .backup.backup import backup

            return await backup(
                context,
                progress,
                destination=Path(request.destination),
                with_s3=request.with_s3,
                digests=request.digests,
                dry_run=request.dry_run,
            )
    raise AssertionError(request)
