"""The attacks that pytest runs write into the report, too."""

from pathlib import Path

import pytest

from tests.torture.report import Report, default

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Each worker of `./run test` would import these files, draw their photos, and leave all of it out."""
    return True if config.option.markexpr == "not torture" and HERE in collection_path.parents else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was run, and what failed. Figures are what tests say by `record_property`."""
    if default() is None:
        return
    report = Report("Tests")
    for outcome in ("passed", "failed", "skipped"):
        for one in terminalreporter.stats.get(outcome, []):
            if "tests/torture" not in one.nodeid:
                continue
            name = one.nodeid.removeprefix("tests/torture/")
            report.figures[name] = ", ".join([outcome, *(f"{what}: {value}" for what, value in one.user_properties)])
            if outcome == "failed":
                report.findings.append(f"{name}: {one.longreprtext.strip().splitlines()[-1]}")
    if report.figures:
        report.write(default())
