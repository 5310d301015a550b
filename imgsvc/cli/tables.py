"""Jobs and webhooks as tables for a terminal."""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 240
COLOURS = {"completed": "green", "failed": "red", "retrying": "yellow", "processing": "cyan"}


def print_jobs(jobs: list[dict[str, Any]]) -> None:
    console = _console()
    if not jobs:
        console.print("No jobs.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "status", "created", "user", "bucket", "attempts", "error"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("job", "status", "created"))
    for job in jobs:
        table.add_row(
            job["job_id"],
            _status(job["status"]),
            _time(job["created_at"]),
            Text(job["user_id"] or ""),
            Text(job["bucket"]),
            str(job["attempts"]),
            Text(_error(job)),
        )
    console.print(table)


def print_job(job: dict[str, Any]) -> None:
    console = _console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in job.items():
        if name != "events" and value not in (None, []):
            shown = (
                _status(value)
                if name == "status"
                else Text(", ".join(value) if isinstance(value, list) else str(value))
            )
            table.add_row(Text(name, style="bold"), shown)
    console.print(table)
    trail = Table(box=None, pad_edge=False, title="audit trail", title_justify="left")
    for heading in ("time", "event", "facts"):
        trail.add_column(heading, overflow="fold")
    for event in reversed(job["events"]):
        facts = ", ".join(f"{name}={value}" for name, value in event["facts"].items() if name != "trace_id")
        trail.add_row(_time(event["created_at"]), event["event"], Text(facts))
    console.print(trail)


def print_webhooks(webhooks: list[dict[str, Any]]) -> None:
    console = _console()
    if not webhooks:
        console.print("No webhooks.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "waiting", "oldest", "state"):
        table.add_column(heading, overflow="fold")
    for one in webhooks:
        oldest = _time(one["oldest_waiting_since"]) if one["oldest_waiting_since"] else ""
        state = "on" if one["configured"] else "not in the settings"
        if one["switched_off_at"]:
            state = f"switched off since {_time(one['switched_off_at'])}: it answered 410"
        elif one["overflowed_at"]:
            state += f"; too many waited at {_time(one['overflowed_at'])}"
        table.add_row(Text(one["name"]), str(one["waiting"]), oldest, Text(state))
    console.print(table)


def print_attempts(attempts: list[dict[str, Any]]) -> None:
    console = _console()
    if not attempts:
        console.print("No attempts.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("time", "event", "image", "attempt", "status", "ms", "delivery"):
        table.add_column(heading, overflow="fold")
    for one in attempts:
        status = str(one["status"] or one["reason"])
        state = f"waits until {_time(one['next_attempt_at'])}" if one["next_attempt_at"] else one["state"] or ""
        table.add_row(
            _time(one["started_at"]),
            one["event"] or "",
            one["image_id"] or "",
            str(one["attempt"]),
            status,
            str(one["milliseconds"]),
            Text(state),
        )
    console.print(table)


def print_images(images: list[dict[str, Any]]) -> None:
    console = _console()
    if not images:
        console.print("No images.")
        return
    table = Table(box=None, pad_edge=False)
    whose = ("user",) if "user_id" in images[0] else ()  # not in a list of one's own
    for heading in ("image", "status", "created", *whose, "bucket", "file", "bytes"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("image", "status", "created"))
    for image in images:
        table.add_row(
            image["image_id"],
            _status(image["status"]),
            _time(image["created_at"]),
            *(Text(image["user_id"] or "") for _ in whose),
            Text(image["bucket"]),
            Text(image["original_filename"] or ""),
            str(image["size_bytes"]),
        )
    console.print(table)


def print_image(image: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in image.items():
        if name == "status":
            table.add_row(Text(name, style="bold"), _status(value))
        elif isinstance(value, dict) and name == "dimensions":
            table.add_row(Text(name, style="bold"), f"{value['width']} × {value['height']}")
        elif isinstance(value, dict):
            for label, text in _rows(value):
                table.add_row(Text(label, style="bold"), Text(text))
        elif value not in (None, []):
            shown = "\n".join(map(_facts, value)) if isinstance(value, list) else str(value)
            table.add_row(Text(name, style="bold"), Text(shown))
    _console().print(table)


def _rows(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A row for each member: `medium` of URLs, `avif medium` of those in a further format; anything deeper as JSON."""
    for name, one in value.items():
        if isinstance(one, dict) and all(isinstance(inner, str) for inner in one.values()):
            yield from ((f"{name} {size}", url) for size, url in one.items())
        else:
            yield name, json.dumps(one) if isinstance(one, dict) else str(one)


def _facts(one: Any) -> str:
    """An entry of a list on one line."""
    if not isinstance(one, dict):
        return str(one)
    return ", ".join(f"{name}={value}" for name, value in one.items() if value not in (None, "", {}, []))


def print_keys(keys: list[dict[str, Any]]) -> None:
    console = _console()
    if not keys:
        console.print("No API keys.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "name", "user", "organisation", "permissions", "created", "last used", "revoked"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "key")
    for key in keys:
        times = [_time(key[name]) if key[name] else "" for name in ("created_at", "last_used_at", "revoked_at")]
        names = [Text(text) for text in (key["name"], key["sub"], key["org"], ", ".join(key["permissions"]))]
        table.add_row(key["key_id"], *names, *times)
    console.print(table)


def _console() -> Console:
    """A console. Output to a file or pipe is not wrapped to a terminal's width."""
    return Console(width=None if sys.stdout.isatty() else WIDE)


def _status(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))


def _time(text: str) -> str:
    """The time in the local time zone, to the second."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _error(job: dict[str, Any]) -> str:
    if not job["error"]:
        return ""
    return f"{job['error']}{' (can be retried)' if job['can_retry'] else ''}"
