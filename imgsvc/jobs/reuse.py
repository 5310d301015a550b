"""The same photo twice: a job takes over the variants of its twin instead of being rendered.

A twin is a completed job of the same user and organisation with the same source bytes, recipe and backend. Across users
nothing is shared: being ready at once would tell what others have.
"""

from typing import Any, Literal

from ..imaging.recipe import SOURCE
from ..lazy_dataclass import dataclass
from ..storage.base import Copying, Differs, NotStored, Original, PuttingTogether, Storage, StorageError
from .publish import in_time, store_all
from .table.model import Job
from .table.transactions import Kept

ReuseStatus = Literal["reused", "gone", "differs", "error"]


class NoTwin(Exception):
    """The twin can't serve: it is gone, or its row is damaged."""


@dataclass(frozen=True, slots=True)
class Copies:
    """The outcome of a run that renders nothing. `twin` is None if it is gone."""

    job: Job
    twin: Job | None

    async def store(self, storage: Storage) -> tuple[dict[str, str], dict[str, Any], Kept | None]:
        """Store copies of the variants that the job lacks, and of the kept source.

        Returns {variant: key}, measurements for the row, and the source.

        Raises NoTwin, StorageError, or whatever the storage raised.
        """
        originals, measured = self._originals(), self._measured()
        if not isinstance(storage, Copying):
            raise StorageError("this storage can't copy")
        keys = {name: self.job.key(name) for name in originals if name != SOURCE}
        source = originals.get(SOURCE)
        every = {**keys, SOURCE: self.job.source_key} if source and self.job.source_key else keys

        bucket, size_bytes = self.job.storage_bucket, sum(one.size_bytes for one in originals.values())

        async def copy(name: str, key: str) -> None:
            await storage.copy(bucket, key, originals[name])

        if isinstance(storage, PuttingTogether):
            wanted = {key: originals[name] for name, key in every.items()}
            await in_time(storage.copy_all(bucket, wanted), size_bytes)
        else:
            await store_all(every, size_bytes, copy)
        return {**self.job.paths, **keys}, measured, source

    def _originals(self) -> dict[str, Original]:
        """The twin's variants that the job lacks; in further formats those that there are."""
        job, twin = self.job, self.twin
        if twin is None or not is_twin(job, twin):
            raise NoTwin
        wanted = {variant.name for variant in job.recipe.variants}
        wanted |= {variant.name for variant in job.recipe.further if variant.name in twin.paths}
        try:
            made = {name: twin.measured["variants"][name] for name in wanted}
            return self._source(twin) | {
                name: Original(twin.storage_bucket, twin.paths[name], made[name]["size_bytes"], made[name]["sha256"])
                for name in wanted - set(job.paths)
            }
        except (KeyError, TypeError, ValueError) as error:
            raise NoTwin from error

    def _source(self, twin: Job) -> dict[str, Original]:
        """The twin's source, if one is to be kept. It may have been dropped since: then it is written again."""
        if self.job.source_key is None:
            return {}
        kept = twin.kept_source
        if kept is None:
            raise NoTwin
        return {SOURCE: Original(kept.bucket, kept.key, kept.size_bytes, kept.digest)}

    def _measured(self) -> dict[str, Any]:
        assert self.twin is not None
        found, own = self.twin.measured, self.job.measured
        return {**found, **own, "variants": {**found["variants"], **own.get("variants", {})}}


def is_twin(job: Job, twin: Job) -> bool:
    """Whether the variants of `twin` are those that `job` would get."""
    same = (job.org_id, job.user_id, job.sha256, job.recipe_text, job.storage_backend)
    other = (twin.org_id, twin.user_id, twin.sha256, twin.recipe_text, twin.storage_backend)
    return same == other and None not in same and twin.status == "completed" and not job.recipe_damaged


def status_of(error: Exception) -> ReuseStatus:
    """Why a twin was of no use, for the metric and the audit trail."""
    if isinstance(error, (NoTwin, NotStored)):
        return "gone"
    return "differs" if isinstance(error, Differs) else "error"
