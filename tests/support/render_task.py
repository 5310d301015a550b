"""The task of rendering one file, as the service gives it to a lane."""

import hashlib
from pathlib import Path

from imgsvc.imaging.recipe import Recipe
from imgsvc.jobs.lanes.messages import Task


def render_task(folder: Path, data: bytes, recipe: Recipe, mime: str = "image/jpeg") -> Task:
    """Write `data` to `folder`/source; its variants go to `folder`/made."""
    source, made = folder / "source", folder / "made"
    source.write_bytes(data)
    made.mkdir(exist_ok=True)
    return Task(
        kind="render",
        id="job.1",
        job_id="job",
        run=1,
        trace_id="trace",
        source=str(source),
        mime=mime,
        recipe=recipe.to_json(),
        folder=str(made),
        done=(),
        time_limit=60,
        memory_ceiling=1 << 30,
        file_ceiling=1 << 30,
        sha256=hashlib.sha256(data).hexdigest(),
    )
