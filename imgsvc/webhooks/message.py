"""The body of a delivery, made again for each attempt from the image's row, and its signature.

Standard Webhooks 1.0.0 (github.com/standard-webhooks/standard-webhooks): `type`, `timestamp` of the event, `data`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from standardwebhooks import Webhook as Signer

from ..jobs.table.model import Job
from ..jobs.table.webhook_table import Delivery
from ..jobs.views import JobStatus

UrlsOf = Callable[[Job], Awaitable[dict[str, str]]]  # raises StorageError


async def body_of(delivery: Delivery, job: Job | None, urls_of: UrlsOf) -> bytes:
    """`job`: the image's row now; None: it is deleted, and the message has its IDs only. Raises StorageError."""
    data: dict[str, Any] = {"image_id": delivery.image_id, "job_id": delivery.job_id}
    if job is not None and delivery.event_type not in ("image.deleted", "image.expired"):
        shown = JobStatus.of(job)
        data |= {
            "bucket": job.storage_bucket,
            "status": shown.status,
            "created_at": shown.created_at,
            "completed_at": shown.completed_at,
            "ready": shown.ready,
            "urls": await urls_of(job),
            "dominant_color": job.measured.get("dominant_color"),
            "thumbhash": job.measured.get("thumbhash"),
            "client_metadata": job.client_metadata,
            "error": shown.error,
            "error_code": shown.error_code,
            "retryable": shown.retryable,
        }
    return encoded(delivery.event_type, delivery.occurred_at, data)


def encoded(kind: str, moment: str, data: Mapping[str, Any]) -> bytes:
    text = json.dumps({"type": kind, "timestamp": moment, "data": data}, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def headers_of(message_id: str, moment: datetime, body: bytes, secrets: Sequence[SecretStr]) -> dict[str, str]:
    """Signed with every secret, for the moment of this attempt: receivers refuse old ones."""
    text = body.decode()
    signatures = [Signer(secret.get_secret_value()).sign(message_id, moment, text) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
