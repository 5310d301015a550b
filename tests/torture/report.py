"""The report of the attacks: a Markdown page that each run appends a section to.

`--report FILE` of an attack, or TORTURE_REPORT for all of them, those that pytest runs among them.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

VARIABLE = "TORTURE_REPORT"
TITLE = "# Attacks\n\nWhat was run, when, with which seed, and what was found. The newest is last.\n"


@dataclass(slots=True)
class Report:
    """One run. `figures` are counts and measurements by what they are of; `findings` is what does not hold."""

    attack: str
    seed: object = "none"
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    figures: dict[str, object] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    text: str = ""  # as it was printed

    def add(self, figures: Mapping[str, object], findings: Iterable[str] = ()) -> None:
        self.figures |= figures
        self.findings += findings

    def step(self, words: str) -> None:
        """Show how far it is."""
        seconds = (datetime.now(UTC) - self.began).total_seconds()
        print(f"{seconds:.0f} s: {words}", file=sys.stderr, flush=True)

    def section(self) -> str:
        seconds = (datetime.now(UTC) - self.began).total_seconds()
        command = shlex.join(["./run", "torture", *_arguments()])
        lines = [
            f"\n## {self.attack}: {'nothing found' if not self.findings else f'{len(self.findings)} findings'}\n",
            f"{self.began:%Y-%m-%d %H:%M} UTC, {seconds:.0f} s, seed {self.seed}: `{command}`\n",
        ]
        if self.figures:
            lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in self.figures.items()), ""]
        lines += [f"- {' '.join(one.split())}" for one in self.findings]
        if self.text:
            lines += ["```", self.text, "```"]
        return "\n".join(lines).rstrip() + "\n"

    def printed(self) -> int:
        """Print it. Returns the exit status."""
        for name, value in self.figures.items():
            print(f"{name}: {value}")
        print("\n".join(self.findings) or "nothing found")
        return 1 if self.findings else 0

    def write(self, path: Path | None) -> None:
        """Append to the page at `path`; None: there is none."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as page:
            page.write(("" if page.tell() else TITLE) + self.section())


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", type=Path, default=default(), metavar="FILE", help="a page to append the result to")


def default() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def _arguments() -> list[str]:
    """Those of this command, as they were given to ./run torture."""
    name = getattr(sys.modules["__main__"], "__package__", "") or ""  # of a run by pytest: pytest's own
    attack = name.removeprefix("tests.torture.").replace("_", "-")
    return [attack, *sys.argv[1:]] if name.startswith("tests.torture.") else sys.argv[1:]
