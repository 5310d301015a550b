"""What a check found."""

from dataclasses import dataclass

from ..marks import Mark


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was seen, and what to do about it (empty when all is well)."""

    status: Mark
    said: str
    advice: str = ""


def well(said: str) -> Finding:
    return Finding("well", said)


def warning(said: str, advice: str) -> Finding:
    return Finding("warning", said, advice)


def wrong(said: str, advice: str) -> Finding:
    return Finding("wrong", said, advice)
