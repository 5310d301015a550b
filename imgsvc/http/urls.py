"""Where a variant can be fetched."""

from urllib.parse import quote

from ..access.signing import Signatures
from ..jobs.model import Job


class Urls:
    """`public_url` is put before every path; without one they are absolute paths.

    With `signatures` reading is private: every address is signed, as the path that the service itself sees.
    """

    def __init__(self, public_url: str, signatures: Signatures | None = None) -> None:
        self._public_url = public_url
        self.signatures = signatures

    def variant(self, job: Job, name: str) -> str:
        path = f"/storage/{job.storage_bucket}/{job.ready[name]}"
        query = f"?{self.signatures.query(path)}" if self.signatures else ""
        return f"{self._public_url}{quote(path)}{query}"

    def of(self, job: Job) -> dict[str, str]:
        """{variant: url} of all that can be fetched."""
        return {
            variant.name: self.variant(job, variant.name)
            for variant in job.recipe.variants
            if variant.name in job.ready
        }

    def of_page(self, image_id: str, size: str) -> str:
        """From the service's own root, for its own pages, wherever `public_url` leads."""
        path = f"/api/v1/images/{image_id}/direct"
        query = f"&{self.signatures.query(path, size)}" if self.signatures else ""
        return f"{path}?size={size}{query}"
