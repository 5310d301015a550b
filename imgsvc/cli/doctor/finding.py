"""The result of a check."""

from ...lazy_dataclass import dataclass
from ..marks import Mark


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was found, and what to do about it (empty if nothing is wrong)."""

    status: Mark
    said: str
    advice: str = ""


def well(said: str) -> Finding:
    return Finding("well", said)


def warning(said: str, advice: str) -> Finding:
    return Finding("warning", said, advice)


def wrong(said: str, advice: str) -> Finding:
    return Finding("wrong", said, advice)
