"""Shows maintenance tasks: a progress bar on a terminal, otherwise a line every few seconds."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .maintenance_summary import KINDS
from .polling import Show

LINE_SECONDS = 5.0


@contextmanager
def shown(verb: str) -> Iterator[Show]:
    """Show progress on standard error, so that the findings can be piped."""
    if not sys.stderr.isatty():
        yield _lines(verb)
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task(verb, total=None)

        def show(task: dict[str, Any]) -> None:
            words = f"{verb}: {task['phase']}" if task["phase"] else verb
            bar.update(row, description=escape(words), completed=task["done"], total=task["total"] or None)

        yield show


def _lines(verb: str) -> Show:
    last = time.monotonic()

    def show(task: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            of = f" of {task['total']}" if task["total"] else ""
            print(f"{verb}: {task['phase']} {task['done']}{of}", file=sys.stderr, flush=True)  # noqa: T201

    return show


def print_ended(task: dict[str, Any], summary: str | None, *, as_json: bool) -> None:
    """Print the findings, then one line with the result; or everything as JSON."""
    if as_json:
        print(json.dumps(task, indent=2))  # noqa: T201
        return
    for finding in task["findings"]:
        print(_finding(finding))  # noqa: T201
    if task["found"] > len(task["findings"]):
        print(f"… and {task['found'] - len(task['findings'])} more")  # noqa: T201
    if summary is not None:
        print(summary)  # noqa: T201


def _finding(finding: dict[str, Any]) -> str:
    where = finding["path"] or f"image {finding['image_id']}"
    sizes = ""
    if finding["kind"] == "wrong_size":
        sizes = f" ({finding['size_bytes']} bytes instead of {finding['expected_bytes']})"
    elif finding["size_bytes"] is not None and finding["kind"] in ("orphaned", "foreign"):
        sizes = f" ({finding['size_bytes']} bytes)"
    return f"{KINDS[finding['kind']]:<16} {finding['backend']}: {where}{sizes}"
