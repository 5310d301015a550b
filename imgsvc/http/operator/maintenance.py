"""The operator's upkeep of what is stored: one piece at a time, started here, looked at and ended here."""

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ...maintenance.report import StorageTask
from ...maintenance.requests import BackupRequest, GcRequest, MaintenanceRequest, MigrateRequest, VerifyRequest
from ..openapi.operations import Answer, by_method, operation
from ..state import state_of
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.problems import NO_STORE
from . import auth

log = structlog.get_logger()


BEGUN = {202: Answer("The task has started; GET /api/v1/operator/storage/task shows its progress.", StorageTask)}
ERRORS = ("task_running",)


@operation(
    "operator_storage_verify",
    "operator",
    "Compare the table with the stored files",
    access="operator_acting",
    body=VerifyRequest,
    answers=BEGUN,
    errors=ERRORS,
)
async def verify(request: Request) -> Response:
    """Checks that every file of a row exists with its size, and that every file has a row. Changes nothing."""
    return await _begin(request, VerifyRequest)


@operation(
    "operator_storage_gc",
    "operator",
    "Remove files without a row",
    access="operator_acting",
    body=GcRequest,
    answers=BEGUN,
    errors=ERRORS,
)
async def gc(request: Request) -> Response:
    """They are only listed, unless `dry_run` is false."""
    return await _begin(request, GcRequest)


@operation(
    "operator_storage_migrate",
    "operator",
    "Move images to another backend",
    access="operator_acting",
    body=MigrateRequest,
    answers=BEGUN,
    errors=ERRORS,
)
async def migrate(request: Request) -> Response:
    """Images stay available: each is copied, read back and compared before its old copy is removed."""
    return await _begin(request, MigrateRequest)


@operation(
    "operator_storage_backup",
    "operator",
    "Make a backup",
    access="operator_acting",
    body=BackupRequest,
    answers=BEGUN,
    errors=ERRORS,
)
async def backup(request: Request) -> Response:
    """In a folder on the service's machine. A backup contains the service's secrets."""
    return await _begin(request, BackupRequest)


@operation(
    "operator_storage_task",
    "operator",
    "The running maintenance task, or the last one",
    access="operator",
    answers={200: StorageTask},
)
async def task(request: Request) -> Response:
    """Since the service started; `state` is `none` when there was none."""
    await auth.require_reader(request)
    return json_response(StorageTask.of(state_of(request).maintenance.task))


@operation(
    "operator_storage_cancel",
    "operator",
    "Cancel the running maintenance task",
    access="operator_acting",
    answers={202: Answer("The task is ending.", StorageTask)},
)
async def cancel(request: Request) -> Response:
    """What it has done is kept; starting it again continues from there."""
    await auth.require_operator(request)
    upkeep = state_of(request).maintenance
    upkeep.cancel()
    return json_response(StorageTask.of(upkeep.task), 202, NO_STORE)


current = by_method(GET=task, DELETE=cancel)


async def _begin(request: Request, kind: type[MaintenanceRequest]) -> Response:
    await auth.require_operator(request)
    order = await json_body(request, kind)
    return json_response(StorageTask.of(state_of(request).maintenance.start(order)), 202, NO_STORE)
