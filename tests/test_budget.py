"""How many workers there are on a small box, and what is left for their jobs."""

import os

import pytest

from imgsvc.jobs.budget import MemoryTooSmall, budget, render_lanes
from imgsvc.settings import MEGABYTE, Workers

PROCESSORS = 32


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(PROCESSORS)))


@pytest.mark.parametrize(("memory", "lanes"), [(100_000, PROCESSORS), (512, 5), (256, 2), (160, 1)])
def test_workers_leave_memory_for_jobs(memory: int, lanes: int) -> None:
    workers = Workers(memory_mb=memory)
    assert render_lanes(workers) == lanes
    share = budget(workers)
    assert share.preview + share.render >= memory * MEGABYTE // 2


def test_a_configured_count_is_not_lowered() -> None:
    assert render_lanes(Workers(count=8, memory_mb=256)) == 8
    with pytest.raises(MemoryTooSmall, match="with 8 render workers it must be at least 440"):
        budget(Workers(count=8, memory_mb=256))
    with pytest.raises(MemoryTooSmall, match="with 1 render workers it must be at least 160"):
        budget(Workers(memory_mb=100))
