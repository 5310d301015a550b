"""How many workers there are on a small box, and what is left for their jobs."""

import os

import pytest

import imgsvc.jobs.lanes.memory_budget as of_this_machine
from imgsvc.imaging.header import Header
from imgsvc.imaging.limits import preview_bytes, render_bytes
from imgsvc.jobs.lanes.memory_budget import MemoryTooSmall, budget, granted, render_lanes
from imgsvc.settings.fields import MEGABYTE
from imgsvc.settings.jobs import Images
from imgsvc.settings.workers import Workers

PROCESSORS = 32


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(PROCESSORS)))
    monkeypatch.setattr(of_this_machine, "processor_limit", lambda: None)


@pytest.mark.parametrize(("quota", "lanes"), [(None, PROCESSORS), (2.0, 2), (1.5, 2), (0.5, 1), (100.0, PROCESSORS)])
def test_no_more_lanes_than_a_quota_keeps_busy(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, lanes: int
) -> None:
    monkeypatch.setattr(of_this_machine, "processor_limit", lambda: quota)
    assert render_lanes(Workers(memory_mb=100_000)) == lanes
    assert render_lanes(Workers(count=7, memory_mb=100_000)) == 7


@pytest.mark.parametrize(("memory", "lanes"), [(100_000, PROCESSORS), (512, 3), (352, 1), (160, 1)])
def test_workers_leave_memory_for_jobs(memory: int, lanes: int) -> None:
    workers = Workers(memory_mb=memory)
    assert render_lanes(workers) == lanes
    share = budget(workers)
    assert share.preview + share.render >= memory * MEGABYTE // 2


@pytest.mark.parametrize(
    ("limit", "megabytes"), [(None, 8000), (100_000, 8000), (1024, 864), (512, 352), (300, 150)], ids=str
)
def test_a_limit_is_used_up_and_a_machine_is_shared(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, megabytes: int
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 16_000 * MEGABYTE // 4096)
    monkeypatch.setattr(of_this_machine, "memory_limit", lambda: limit and limit * MEGABYTE)
    assert granted(Workers()) == megabytes * MEGABYTE
    assert granted(Workers(memory_mb=77)) == 77 * MEGABYTE


def test_a_phone_photo_fits_into_the_smallest_sensible_container() -> None:
    """12 megapixels, with all variants, where 512 MB are granted."""
    header = Header("JPEG", 4032, 3024, channels=3, coefficients=1.5)
    share = budget(Workers(memory_mb=352))
    assert render_bytes(header, Images().recipe) <= share.render
    assert (preview_bytes(header, Images().recipe) or 0) <= share.preview


def test_a_configured_count_is_not_lowered() -> None:
    assert render_lanes(Workers(count=8, memory_mb=256)) == 8
    with pytest.raises(MemoryTooSmall, match="with 8 render workers it must be at least 440"):
        budget(Workers(count=8, memory_mb=256))
    with pytest.raises(MemoryTooSmall, match="with 1 render workers it must be at least 160"):
        budget(Workers(memory_mb=100))
