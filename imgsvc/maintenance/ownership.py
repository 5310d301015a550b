"""Maps a stored file to its job and decides whether it is needed. Shared by verify, gc and backup."""

from dataclasses import dataclass
from typing import Literal

from ..jobs.table.model import Job
from ..storage.base import Stored
from ..storage.keys import OURS

Fate = Literal["kept", "leaving", "orphaned"]


@dataclass(frozen=True, slots=True)
class Place:
    """The image, variant and location of one of our files; `partial`: an interrupted put left it."""

    bucket: str
    key: str
    variant: str
    image_id: str
    partial: bool

    @classmethod
    def of(cls, stored: Stored) -> "Place | None":
        """Parse a name; None if it is not one of ours. Backends may split bucket and key differently."""
        found = OURS.fullmatch(f"{stored.bucket}/{stored.key}")
        if found is None:
            return None
        return cls(found["bucket"], found["key"], found["variant"], found["image"], found["partial"] is not None)


def disposition(place: Place, backend: str, job: Job | None) -> Fate:
    """`kept`: its job needs it or is making it. `leaving`: its row lists it for removal. `orphaned`: neither."""
    if job is None or job.storage_bucket != place.bucket or backend not in (job.storage_backend, job.also_in):
        return "orphaned"
    listed = place.variant in job.paths
    if job.deleted_at or job.status == "failed":
        return "leaving" if listed else "orphaned"
    if backend != job.storage_backend:
        return "orphaned"
    if job.status == "completed":
        return "kept" if listed and not place.partial else "orphaned"
    return "kept" if place.variant in {variant.name for variant in job.recipe.variants} else "orphaned"
