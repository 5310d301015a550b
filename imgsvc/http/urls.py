"""Where a variant can be fetched."""

from urllib.parse import quote

from ..jobs.model import Job


class Urls:
    """`public_url` is put before every path; without one they are absolute paths."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url

    def variant(self, job: Job, name: str) -> str:
        return f"{self._public_url}/storage/{quote(job.storage_bucket)}/{quote(job.ready[name])}"

    def of(self, job: Job) -> dict[str, str]:
        """{variant: url} of all that can be fetched."""
        return {
            variant.name: self.variant(job, variant.name)
            for variant in job.recipe.variants
            if variant.name in job.ready
        }
