"""The few forms of Markdown that the generated pages use."""

from collections.abc import Iterable, Sequence

GENERATED = "<!-- Made from the code by `./run docs`: change the code, not this page. -->"


def code(text: str) -> str:
    return f"`{text}`"


def escaped(text: str) -> str:
    """Plain text, in which `*` is no mark of emphasis."""
    return text.replace("*", "\\*")


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join(lines)


def link_to_error(name: str) -> str:
    return f"[`{name}`](errors.md#{name})"
