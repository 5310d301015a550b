"""config.toml at the top of the repository: every setting with its default, environment name and words."""

import json
import textwrap
from collections.abc import Iterator

from docs.sources import Setting, sections, settings

WIDTH = 120
COLUMN = 28  # where the comments begin
HEADER = """\
# imgsvc: every setting with its default. A line that is removed means the same as the default.
# A .env file beside this one overrides it, and the environment overrides both; the name to use there is in brackets.
# Append _FILE to that name (JWT_SECRET_KEY_FILE) to read the value from a file, as container engines hand over secrets:
# one newline at its end is ignored, and giving both is an error. A value that can't be used stops the start with one
# line that says what is allowed.
"""


def text() -> str:
    """The whole file."""
    parts = [HEADER]
    for section in sections():
        head = f"[{section.name}]"
        lines = [f"{head:{COLUMN}}# {section.words}" if section.words else head]
        for one in settings():
            if one.section == section.name:
                lines += _lines(one)
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _lines(one: Setting) -> Iterator[str]:
    """`name = value  # [ENVIRONMENT] Words. (Bounds)`, with further lines of the comment below."""
    start = f"{one.field} = {_toml(one.value)}"
    comment = f"[{one.environment}] {one.words}" + (f" ({one.bounds})" if one.bounds else "")
    column, behind = max(COLUMN, len(start) + 1), f"{'':{COLUMN}}# "
    beside = column + len(f"# [{one.environment}]") <= WIDTH
    if not beside:
        yield start
    yield from textwrap.wrap(
        comment,
        WIDTH,
        initial_indent=f"{start:{column}}# " if beside else behind,
        subsequent_indent=behind,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _toml(value: object) -> str:
    """A value in TOML: text, number, true or false, a list, or a table in one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(inner)}' for name, inner in value.items())} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # a basic string of TOML is one of JSON
