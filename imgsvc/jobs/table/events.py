"""The audit trail: events are written in the transaction of what they tell."""

import json
from typing import Any

import aiosqlite

from .model import as_text, now
from .sql import QUERIES


async def event(
    db: aiosqlite.Connection, kind: str, image_id: str | None, job_id: str | None, facts: dict[str, Any]
) -> None:
    values = {
        "event_type": kind,
        "image_id": image_id,
        "job_id": job_id,
        "metadata": json.dumps(facts),
        "created_at": as_text(now()),
    }
    await db.execute(QUERIES["insert_event"], values)
