"""Maps a stored file to its job and decides whether it is needed. Shared by verify, gc and backup."""

from typing import Literal

from ..jobs.table.scan import Owner
from ..storage.base import Stored
from ..storage.keys import StoredName

Fate = Literal["kept", "leaving", "orphaned"]


def place_of(stored: Stored) -> StoredName | None:
    """Parse a name; None if it is not one of ours. Backends may split bucket and key differently."""
    return StoredName.of(f"{stored.bucket}/{stored.key}")


def disposition(place: StoredName, backend: str, owner: Owner | None) -> Fate:
    """`kept`: its job needs it or is making it. `leaving`: its row lists it for removal. `orphaned`: neither."""
    if owner is None or owner.job.storage_bucket != place.bucket:
        return "orphaned"
    job, key = owner.job, _whole(place)
    if (backend, key) in owner.further:
        return "leaving" if job.deleted_at else "kept"
    if backend not in (job.storage_backend, job.also_in):
        return "orphaned"
    listed = key in job.paths.values() or (key == job.source_key and bool(job.paths))
    if job.deleted_at or job.status == "failed":
        return "leaving" if listed else "orphaned"
    if backend != job.storage_backend:
        return "orphaned"
    if job.status == "completed":
        there = key in job.paths.values() or (job.kept_source is not None and key == job.source_key)
        return "kept" if there and not place.partial else "orphaned"
    return "kept" if key in {job.source_key, *(job.key(one.name) for one in job.recipe.variants)} else "orphaned"


def _whole(place: StoredName) -> str:
    """The key of the file that an interrupted put was to become."""
    if not place.partial:
        return place.key
    folder, _, name = place.key.rpartition("/")
    return f"{folder}/{name.removeprefix('.').removesuffix('.partial')}"
