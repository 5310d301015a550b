"""URLs of variants."""

from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, urlsplit

import anyio

from ...access.signing import Signatures
from ...jobs.table.model import Job
from ...storage.base import StorageError, StorageNotConfigured
from ...storage.registry import StorageRegistry

ORIGIN_SECONDS = 1.0  # that a page waits for a storage whose origin is not known yet


_quoted = lru_cache(4096)(quote)  # of the paths of variants


class Urls:
    """Makes URLs. `public_url` is put before every path; without one URLs are absolute paths.

    Variants in a storage that clients can fetch from get presigned URLs, new ones for each response. With `signatures`
    reading is private: all other URLs are signed, for the path as the service itself sees it.
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
        """The URL of a variant. Raises StorageError: the storage is not configured, or has no keys to sign with."""
        if self.is_presigned(job):
            return await self.presigned(job, name, "GET", self.lifetime(job, self.presigned_seconds))
        return self._own(job, job.ready[name])

    def are_lasting(self, job: Job) -> bool:
        """Whether the URLs of this job are the same for every reader and at any time. Raises StorageNotConfigured."""
        return self.signatures is None and not self.is_presigned(job)

    def _own(self, job: Job, key: str) -> str:
        path = f"/storage/{job.storage_bucket}/{key}"
        query = f"?{self.signatures.query(path, until=_until(job))}" if self.signatures else ""
        return f"{self._public_url}{_quoted(path)}{query}"

    def stored(self, job: Job, name: str, expires: int | None) -> str:
        """The URL below /storage, whatever storage it is in. A signed one ends at `expires`, in seconds since 1970."""
        path = f"/storage/{job.storage_bucket}/{job.ready[name]}"
        query = f"?{self.signatures.query_until(path, expires)}" if self.signatures and expires else ""
        return f"{self._public_url}{_quoted(path)}{query}"

    def is_presigned(self, job: Job) -> bool:
        if job.storage_backend not in self._stores.storages:
            raise StorageNotConfigured(job.storage_backend)
        return job.storage_backend in self._stores.presigning

    async def presigned(self, job: Job, name: str, method: Literal["GET", "HEAD"], seconds: int) -> str:
        storage = self._stores.presigning[job.storage_backend]
        private = self.signatures is not None or job.expires_at is not None  # the object itself says: for a year
        return await storage.url(job.storage_bucket, job.ready[name], seconds, method, private=private)

    def lifetime(self, job: Job, seconds: int) -> int:
        """So many seconds, or fewer if the image expires before; at least one."""
        left = job.seconds_left
        return seconds if left is None else max(1, min(seconds, left))

    async def valid_seconds(self, job: Job, seconds: int) -> int:
        """How long a presigned URL made now for `seconds` is valid. Raises StorageError."""
        return await self._stores.presigning[job.storage_backend].url_seconds(seconds)

    async def foreign_origin(self) -> str:
        """The origin of presigned URLs, `scheme://host`; empty if there are none."""
        for storage in self._stores.presigning.values() if not self._origin else ():
            with suppress(StorageError), anyio.move_on_after(ORIGIN_SECONDS):
                address = urlsplit(await storage.url("", "x", 1))
                self._origin = f"{address.scheme}://{address.netloc}"
        return self._origin

    async def of(self, job: Job) -> dict[str, str]:
        """{variant: url} of all variants that can be fetched."""
        ready = job.ready
        names = [variant.name for variant in job.recipe.variants if variant.name in ready]
        if names and self.is_presigned(job):
            return {name: await self.variant(job, name) for name in names}
        return {name: self._own(job, ready[name]) for name in names}

    async def formats(self, job: Job) -> dict[str, dict[str, str]]:
        """{further format: {variant: url}} of what can be fetched. Raises as `variant`."""
        return {
            form: {size: await self.variant(job, name) for size, name in names.items()}
            for form, names in job.formats.items()
        }

    def direct(self, job: Job) -> dict[str, str]:
        """{variant: URL} of this service for all variants that can be fetched, wherever they are stored."""
        ready = job.ready
        return {
            variant.name: f"{self._public_url}{self.of_page(job.image_id, variant.name, _until(job))}"
            for variant in job.recipe.variants
            if variant.name in ready
        }

    def of_page(self, image_id: str, size: str, until: float | None = None) -> str:
        """A URL relative to the service's root, for its own pages, whatever `public_url` is."""
        path = f"/api/v1/images/{image_id}/direct"
        query = f"&{self.signatures.query(path, size, until)}" if self.signatures else ""
        return f"{path}?size={size}{query}"


def _until(job: Job) -> float | None:
    """When the image expires, in seconds since 1970."""
    return datetime.fromisoformat(job.expires_at).timestamp() if job.expires_at else None
