"""A maintenance task as JSON: its progress and findings."""

from typing import Literal

from pydantic import BaseModel

from ..jobs.answer_model import COMPLETED, JOB_ID, STARTED, example
from ..jobs.table.model import as_text
from .progress import Finding
from .runner import Task


class StorageTask(BaseModel):
    """The running maintenance task, or the last one. `done` and `total` count the items of this `phase`.

    `well`: nothing wrong was found, or everything was done. `findings` are the first ones; `counts` has all by kind,
    and the other figures of this kind of task (bytes where the name says so).
    """

    model_config = example(
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
            verb=task.request.verb,
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
