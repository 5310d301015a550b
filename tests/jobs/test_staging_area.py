"""The staging folder, in which each upload that waits has a file."""

import tracemalloc
import uuid
from pathlib import Path

from imgsvc.jobs.staging_area import StagingArea

MANY, TOGETHER = 5_000, 500


def test_many_uploads_that_wait_are_listed_without_all_being_in_memory(tmp_path: Path) -> None:
    names = {str(uuid.uuid4()) for _ in range(MANY)}
    for name in names:
        (tmp_path / name).touch()
    area = StagingArea(tmp_path, tmp_path / "orphaned")
    listed = [one.name for batch in area.batches(TOGETHER) for one in batch]
    assert len(listed) == MANY and set(listed) == names
    tracemalloc.start()
    try:
        for _ in area.batches(TOGETHER):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * MANY  # all together take 150 each
