"""Loads named statements from .sql files, so that the durability logic can be reviewed in one place."""

import re
import sqlite3
from collections.abc import Callable
from importlib.resources import files

OnQuery = Callable[[str, float], None]  # called with (statement name, seconds)
HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
PART = re.compile(r"\{(\w+)\}")


def script(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def migration(name: str) -> str:
    return script(f"migrations/{name}")


def statements(name: str) -> dict[str, str]:
    """The statements of a file by their names. `{name}` in one stands for another of the same file, as a subquery."""
    parts = HEADING.split(script(name))[1:]
    found = {heading: body.strip() for heading, body in zip(parts[::2], parts[1::2], strict=True)}
    return {heading: PART.sub(lambda part: found[part[1]], body) for heading, body in found.items()}


def is_damage(error: Exception) -> bool:
    """Whether SQLite has found a damaged page, or a file that is not a database."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    return isinstance(error, sqlite3.Error) and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def ignore(_operation: str, _seconds: float) -> None:
    """The default: durations are dropped."""


QUERIES = statements("queries.sql") | statements("renders.sql") | statements("erasures.sql")
