"""Rows for a job table without a service."""

import uuid

from imgsvc import Settings
from imgsvc.jobs.table.model import NewJob


def new_job(user: str, render_bytes: int = 1000, preview_bytes: int | None = None) -> NewJob:
    return NewJob(
        job_id=str(uuid.uuid4()),
        image_id=str(uuid.uuid4()),
        user_id=user,
        org_id="org",
        bucket="b",
        staging_path="x",
        original_filename="x.jpg",
        client_metadata={},
        trace_id="t",
        mime_type="image/jpeg",
        content_length=1,
        sha256="0" * 64,
        pixels=1,
        preview_bytes=preview_bytes,
        render_bytes=render_bytes,
        storage_backend="local",
        recipe=Settings().images.recipe,
        max_attempts=3,
    )
