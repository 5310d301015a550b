"""Client of an imgsvc service, async and sync. It needs httpx and nothing else, of this package neither.

    async with AsyncClient("https://img.example.org", token=TOKEN) as client:
        receipt = await client.upload(Path("photo.jpg"), bucket="holiday")
        job = await client.wait(receipt.job_id)
        print(job.urls["thumbnail"])

`Client` has the same methods for programs without an event loop.
"""

from .async_client import AsyncClient
from .errors import (
    ConnectionFailed,
    ImgsvcError,
    JobFailed,
    Refused,
    StillProcessing,
    WebhookInvalid,
)
from .models import Event, Image, Job, ListedImage, Receipt
from .retries import Retries
from .sync_client import Client
from .webhook import Message, verify_webhook

__all__ = [
    "AsyncClient",
    "Client",
    "ConnectionFailed",
    "Event",
    "Image",
    "ImgsvcError",
    "Job",
    "JobFailed",
    "ListedImage",
    "Message",
    "Receipt",
    "Refused",
    "Retries",
    "StillProcessing",
    "WebhookInvalid",
    "verify_webhook",
]
