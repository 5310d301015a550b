"""A small sample of `./run torture connections`, without its times: other tests run beside it."""

from pathlib import Path

import pytest

from tests.torture.connections.__main__ import attack, options
from tests.torture.report import Report

pytestmark = pytest.mark.process
FEW = ["--idle", "300", "--slow", "20", "--seconds", "2", "--at-once", "8", "--rounds", "1"]


def test_crowd_is_cheap_and_gone_after_its_limits(tmp_path: Path) -> None:
    report = Report("sample")
    attack(tmp_path, options(FEW), report, timed=False)
    assert report.findings == []
    assert report.figures["connections"] == 340
