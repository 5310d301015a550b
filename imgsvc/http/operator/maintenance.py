"""The operator's upkeep of what is stored: one piece at a time, started here, looked at and ended here."""

from typing import Literal

import structlog
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import as_text
from ...maintenance.progress import Finding
from ...maintenance.requests import BackupRequest, GcRequest, MaintenanceRequest, MigrateRequest, VerifyRequest
from ...maintenance.runner import Task
from ..openapi.operations import Answer, by_method, operation
from ..state import state_of
from ..wire.json_body import json_body
from ..wire.json_response import COMPLETED, JOB_ID, STARTED, json_response, shown
from ..wire.problems import NO_STORE
from . import auth

log = structlog.get_logger()


class StorageTask(BaseModel):
    """The running maintenance task, or the last one. `done` and `total` count the items of this `phase`.

    `well`: nothing wrong was found, or everything was done. `findings` are the first ones; `counts` has all by kind,
    and the other figures of this kind of task (bytes where the name says so).
    """

    model_config = shown(
        task_id=JOB_ID,
        verb="verify",
        state="done",
        began_at=STARTED,
        ended_at=COMPLETED,
        phase="files",
        done=4001,
        total=4001,
        counts={"images": 1000, "files": 4000, "bytes": 1_234_567_890, "missing": 1},
        findings=[
            {
                "kind": "missing",
                "backend": "local",
                "path": f"holiday/processed/large/{JOB_ID}_large.webp",
                "image_id": JOB_ID,
                "size_bytes": None,
                "expected_bytes": 138_240,
            }
        ],
        found=1,
        well=False,
        error=None,
    )

    task_id: str | None = None
    verb: str | None = None
    state: Literal["none", "running", "done", "failed", "cancelled"] = "none"
    began_at: str | None = None
    ended_at: str | None = None
    phase: str = ""
    done: int = 0
    total: int = 0
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    found: int = 0
    well: bool | None = None
    error: str | None = None

    @classmethod
    def of(cls, task: Task | None) -> "StorageTask":
        if task is None:
            return cls()
        progress = task.progress
        return cls(
            task_id=task.task_id,
            verb=task.order.verb,
            state=task.state,
            began_at=as_text(task.began_at),
            ended_at=as_text(task.ended_at) if task.ended_at else None,
            phase=progress.phase,
            done=progress.done,
            total=progress.total,
            counts=dict(progress.counts),
            findings=progress.findings if task.state != "running" else [],
            found=progress.found,
            well=task.well,
            error=task.error,
        )


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
    return json_response(StorageTask.of(state_of(request).upkeep.task))


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
    upkeep = state_of(request).upkeep
    upkeep.cancel()
    return json_response(StorageTask.of(upkeep.task), 202, NO_STORE)


current = by_method(GET=task, DELETE=cancel)


async def _begin(request: Request, kind: type[MaintenanceRequest]) -> Response:
    await auth.require_operator(request)
    order = await json_body(request, kind)
    return json_response(StorageTask.of(state_of(request).upkeep.start(order)), 202, NO_STORE)
