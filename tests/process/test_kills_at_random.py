"""A small sample of `./run torture kills`."""

from pathlib import Path

import pytest

from tests.torture.kills.__main__ import attack
from tests.torture.report import Report

pytestmark = pytest.mark.process


def test_some_kills_at_random_moments(tmp_path: Path) -> None:
    report = Report("sample")
    assert attack(tmp_path, 1, 5, "sample", report) == []
    first = int(str(report.figures["kills"]))
    assert attack(tmp_path, first + 1, 10, "sample", report) == []  # goes on there
    kills = int(str(report.figures["kills"]))
    assert kills > first >= 1
    section = report.section()
    assert "nothing found" in section and f"| kills | {kills} |" in section
