"""Maintenance tasks for the operator: starting one, its progress, and cancelling it. Only one runs at a time."""

from starlette.requests import Request
from starlette.responses import Response

from ...maintenance.report import StorageTask
from ...maintenance.requests import BackupRequest, GcRequest, MaintenanceRequest, MigrateRequest, VerifyRequest
from ..openapi.operations import Answer, by_method, operation
from ..state import state_of
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.later import Handler
from ..wire.problems import NO_STORE
from . import auth

BEGUN = Answer("The task has started; GET /api/v1/operator/storage/task shows its progress.", StorageTask)


def _starting(kind: type[MaintenanceRequest], summary: str, description: str) -> Handler:
    """Build the endpoint that starts a task of this kind. Both texts are for the API document."""

    async def start(request: Request) -> Response:
        await auth.require_operator(request)
        wanted = await json_body(request, kind)
        return json_response(StorageTask.of(state_of(request).maintenance.start(wanted)), 202, NO_STORE)

    start.__name__, start.__doc__ = kind.verb, description
    declare = operation(
        f"operator_storage_{kind.verb}",
        "operator",
        summary,
        access="operator_acting",
        body=kind,
        answers={202: BEGUN},
        errors=("task_running",),
    )
    return declare(start)


verify = _starting(
    VerifyRequest,
    "Compare the table with the stored files",
    "Checks that every file of a row exists with its size, and that every file has a row. Changes nothing.",
)
gc = _starting(GcRequest, "Remove files without a row", "They are only listed, unless `dry_run` is false.")
migrate = _starting(
    MigrateRequest,
    "Move images to another backend",
    "Images stay available: each is copied, read back and compared before its old copy is removed.",
)
backup = _starting(
    BackupRequest,
    "Make a backup",
    "In a folder on the service's machine. A backup contains the service's secrets.",
)


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
