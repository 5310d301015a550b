"""Prints lines that begin with ✓, ! or ✗."""

import sys
from typing import Literal

import typer

Mark = Literal["well", "warning", "wrong"]
SIGNS: dict[Mark, tuple[str, str]] = {
    "well": ("✓", typer.colors.GREEN),
    "warning": ("!", typer.colors.YELLOW),
    "wrong": ("✗", typer.colors.RED),
}
PLAIN: dict[Mark, str] = {"well": "ok", "warning": "!", "wrong": "FAILED"}  # for ASCII-only terminals


def print_tick(mark: Mark, name: str, text: str, advice: str = "") -> None:
    """Print one line. Line breaks in external text are removed."""
    sign, colour = SIGNS[mark]
    line = f"{name:<14} {text}{f' → {advice}' if advice else ''}"
    encoding = sys.stdout.encoding or "ascii"
    try:
        f"{sign}→".encode(encoding)
    except UnicodeEncodeError:
        sign, line = PLAIN[mark], line.replace("→", "->").encode(encoding, "replace").decode(encoding)
    typer.echo(f"{typer.style(sign, fg=colour, bold=True)} {' '.join(line.splitlines())}")
