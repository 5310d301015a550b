"""Progress and findings of a maintenance task."""

from collections import Counter
from dataclasses import field
from typing import Literal

from ..lazy_dataclass import dataclass

Kind = Literal[
    "missing",  # a row names it, but it does not exist
    "wrong_size",
    "wrong_digest",
    "unreadable",  # the storage could not read it
    "no_source",  # the uploaded bytes of an unfinished job are missing
    "no_backend",  # the row names a backend that is not configured
    "orphaned",  # no row names it
    "foreign",  # no row names it, and its name is not one of ours
    "not_removed",
    "not_moved",
]
LISTED = 100


class MaintenanceFailed(Exception):
    """The task can't be done or completed. The message gives the reason in plain words for the operator."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault that was found. `path` is bucket and key; sizes are in bytes."""

    kind: Kind
    backend: str
    path: str
    image_id: str | None = None
    size_bytes: int | None = None
    expected_bytes: int | None = None


@dataclass(slots=True)
class Progress:
    """`done` of `total` items of the current `phase`; the keys of `counts` depend on the kind of task.

    The first `listed` findings are kept; all of them are counted.
    """

    listed: int = LISTED
    phase: str = ""
    done: int = 0
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    found: int = 0

    def begin(self, phase: str, total: int = 0) -> None:
        self.phase, self.done, self.total = phase, 0, total

    def advance(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def find(self, finding: Finding) -> None:
        self.found += 1
        self.counts[finding.kind] += 1
        if finding.size_bytes and finding.kind in ("orphaned", "foreign"):
            self.counts[f"{finding.kind}_bytes"] += finding.size_bytes
        if len(self.findings) < self.listed:
            self.findings.append(finding)
