"""The source that `[images] keep_source` keeps, under the key that the row has named from the start.

It is put, durable, before the COMMIT that completes the job. `stripped` is written by the caged worker, and walked and
copied by this process before; `as_is` is the staged upload itself.
"""

from pathlib import Path

from ..imaging.recipe import SOURCE
from ..lazy_dataclass import dataclass
from .lanes.messages import Rendered
from .rendered_files import checked_file
from .table.model import Job


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A local file that is to be kept under `key`: its size in bytes and its SHA-256 in hex."""

    key: str
    path: Path
    size_bytes: int
    sha256: str


def to_keep(job: Job, rendered: Rendered, staged: Path, copies: Path) -> KeptFile | None:
    """What a render keeps. None: nothing is to be kept, or the file is too damaged to be cleaned."""
    if job.source_key is None:
        return None
    if job.recipe.keep_source == "as_is":
        return KeptFile(job.source_key, staged, job.content_length, job.sha256)
    made = rendered.source
    if made is None:
        return None
    return KeptFile(job.source_key, checked_file(copies, SOURCE), made.size_bytes, made.sha256)
