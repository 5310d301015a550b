"""A job as JSON: for its uploader, and for the operator, by the API and by the command line."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field

from .answer_model import COMPLETED, CREATED, IMAGE_ID, JOB_ID, STARTED, AnswerModel, example
from .failures import JOB_CODES
from .table.model import Job, Status
from .table.reports import Event

MAX_EVENTS = 200  # the most audit events in a ShownJob


STATUS: dict[str, Any] = {
    "job_id": JOB_ID,
    "image_id": IMAGE_ID,
    "status": "processing",
    "created_at": CREATED,
    "started_at": STARTED,
    "completed_at": None,
    "error": None,
    "error_code": None,
    "retryable": None,
    "attempts": 0,
    "next_attempt_at": None,
    "ready": ["thumbnail"],
}


class JobStatus(AnswerModel):
    """A job's status. `attempts` counts failed attempts; `ready` lists the variants that can be fetched already."""

    model_config = example(**STATUS)

    job_id: str
    image_id: str
    status: Status
    created_at: str
    started_at: str | None
    completed_at: str | None
    error: str | None
    error_code: Annotated[str | None, Field(examples=list(JOB_CODES))]
    retryable: bool | None
    attempts: int
    next_attempt_at: str | None
    ready: list[str]

    @classmethod
    def of(cls, job: Job, **more: Any) -> Self:
        """`more` are the fields that a subclass adds."""
        over = job.status == "completed"
        return cls(
            job_id=job.job_id,
            image_id=job.image_id,
            status=job.status,
            created_at=job.created_at,
            started_at=job.started_at,
            completed_at=job.completed_at,
            error=None if over else job.last_error,
            error_code=None if over else job.error_code,
            retryable=job.retryable if job.last_error and not over else None,
            attempts=job.attempt_count,
            next_attempt_at=job.next_attempt_at,
            ready=[variant.name for variant in job.recipe.variants if variant.name in job.ready],
            **more,
        )


LISTED: dict[str, Any] = {
    "job_id": JOB_ID,
    "image_id": IMAGE_ID,
    "status": "failed",
    "created_at": CREATED,
    "started_at": STARTED,
    "completed_at": None,
    "error": "The image could not be stored.",
    "error_code": "storage_error",
    "retryable": True,
    "attempts": 3,
    "next_attempt_at": None,
    "ready": [],
    "user_id": "alice",
    "org_id": "default-org",
    "bucket": "holiday",
    "content_length": 2_482_113,
    "failed_at": COMPLETED,
    "can_retry": True,
}


class ListedJob(JobStatus):
    """`content_length` is in bytes; `can_retry` is true if a failed job's uploaded bytes are still kept."""

    model_config = example(**LISTED)

    user_id: str | None
    org_id: str | None
    bucket: str
    content_length: int
    failed_at: str | None
    can_retry: bool

    @classmethod
    def of(cls, job: Job, **more: Any) -> Self:
        return super().of(
            job,
            user_id=job.user_id,
            org_id=job.org_id,
            bucket=job.storage_bucket,
            content_length=job.content_length,
            failed_at=job.failed_at,
            can_retry=job.can_retry,
            **more,
        )


class AuditEvent(AnswerModel):
    event: str
    created_at: str
    facts: dict[str, Any]


class ShownJob(ListedJob):
    """With its audit trail, newest first.

    `thumbnail_url` is that of the smallest ready variant, relative to the service's root; null if none is ready.
    """

    model_config = example(
        **LISTED,
        trace_id="3b1f0c9a-6a55-4a0e-9d6b-0d9c1f3c7a10",
        mime_type="image/jpeg",
        original_filename="IMG_0042.jpg",
        storage_backend="local",
        thumbnail_url=None,
        events=[{"event": "failed", "created_at": COMPLETED, "facts": {"run": 3, "code": "storage_error"}}],
    )

    trace_id: str
    mime_type: str
    original_filename: str | None
    storage_backend: str
    thumbnail_url: str | None = None
    events: list[AuditEvent]

    @classmethod
    def with_events(cls, job: Job, events: Sequence[Event]) -> Self:
        return cls.of(
            job,
            trace_id=job.trace_id,
            mime_type=job.mime_type,
            original_filename=job.original_filename,
            storage_backend=job.storage_backend,
            events=[AuditEvent(event=one.kind, created_at=one.created_at, facts=one.facts) for one in events],
        )
