"""Where a variant can be fetched."""

from contextlib import suppress
from typing import Literal
from urllib.parse import quote, urlsplit

import anyio

from ...access.signing import Signatures
from ...jobs.table.model import Job
from ...storage.base import StorageError, StorageNotConfigured
from ...storage.registry import StorageRegistry

ORIGIN_SECONDS = 1.0  # that a page waits for a storage that has not said yet where it is


class Urls:
    """`public_url` is put before every path; without one they are absolute paths.

    What lies in a storage that clients can fetch from has presigned addresses, made anew for each answer. With
    `signatures` reading is private: every other address is signed, as the path that the service itself sees.
    """

    def __init__(
        self, public_url: str, stores: StorageRegistry, presigned_seconds: int, signatures: Signatures | None = None
    ) -> None:
        self.presigned_seconds = presigned_seconds
        self.signatures = signatures
        self._public_url = public_url
        self._stores = stores
        self._origin = ""

    async def variant(self, job: Job, name: str) -> str:
        """Raises StorageError: not configured any more, or no keys to sign with."""
        if self.is_presigned(job):
            return await self.presigned(job, name, "GET", self.presigned_seconds)
        path = f"/storage/{job.storage_bucket}/{job.ready[name]}"
        query = f"?{self.signatures.query(path)}" if self.signatures else ""
        return f"{self._public_url}{quote(path)}{query}"

    def is_presigned(self, job: Job) -> bool:
        if job.storage_backend not in self._stores.storages:
            raise StorageNotConfigured(job.storage_backend)
        return job.storage_backend in self._stores.presigning

    async def presigned(self, job: Job, name: str, method: Literal["GET", "HEAD"], seconds: int) -> str:
        storage = self._stores.presigning[job.storage_backend]
        private = self.signatures is not None
        return await storage.url(job.storage_bucket, job.ready[name], seconds, method, private=private)

    async def foreign_origin(self) -> str:
        """Where presigned addresses lead to: `scheme://host`; empty while there are none."""
        for storage in self._stores.presigning.values() if not self._origin else ():
            with suppress(StorageError), anyio.move_on_after(ORIGIN_SECONDS):
                address = urlsplit(await storage.url("", "x", 1))
                self._origin = f"{address.scheme}://{address.netloc}"
        return self._origin

    async def of(self, job: Job) -> dict[str, str]:
        """{variant: url} of all that can be fetched."""
        return {
            variant.name: await self.variant(job, variant.name)
            for variant in job.recipe.variants
            if variant.name in job.ready
        }

    def of_page(self, image_id: str, size: str) -> str:
        """From the service's own root, for its own pages, wherever `public_url` leads."""
        path = f"/api/v1/images/{image_id}/direct"
        query = f"&{self.signatures.query(path, size)}" if self.signatures else ""
        return f"{path}?size={size}{query}"
