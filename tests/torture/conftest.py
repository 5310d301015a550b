"""The attacks that pytest runs write into the report, too."""

import pytest

from tests.torture.report import Report, default


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
