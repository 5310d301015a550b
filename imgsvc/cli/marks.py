"""Lines that begin with a tick, an exclamation mark or a cross."""

import sys
from typing import Literal

import typer

Mark = Literal["well", "warning", "wrong"]
SIGNS: dict[Mark, tuple[str, str]] = {
    "well": ("✓", typer.colors.GREEN),
    "warning": ("!", typer.colors.YELLOW),
    "wrong": ("✗", typer.colors.RED),
}
PLAIN: dict[Mark, str] = {"well": "ok", "warning": "!", "wrong": "FAILED"}  # where a terminal knows ASCII only


def print_tick(mark: Mark, name: str, said: str, advice: str = "") -> None:
    """One line: what is not ours to choose in it loses its line breaks."""
    sign, colour = SIGNS[mark]
    text = f"{name:<14} {said}{f' → {advice}' if advice else ''}"
    encoding = sys.stdout.encoding or "ascii"
    try:
        f"{sign}→".encode(encoding)
    except UnicodeEncodeError:
        sign, text = PLAIN[mark], text.replace("→", "->").encode(encoding, "replace").decode(encoding)
    typer.echo(f"{typer.style(sign, fg=colour, bold=True)} {' '.join(text.splitlines())}")
