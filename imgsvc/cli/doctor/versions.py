"""The versions of the main components."""

import platform
import sqlite3
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from ... import __version__
from ...settings import Settings
from .finding import Finding, well

SHOWN = ("starlette", "hypercorn", "aiosqlite", "pydantic", "joserfc", "httpx")


def versions(_settings: Settings) -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {_version(name)}" for name in SHOWN)
    yield well(
        f"imgsvc {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {libraries}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(missing)"
